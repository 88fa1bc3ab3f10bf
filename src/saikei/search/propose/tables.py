"""From a graph and its library to a `Space`: what every combination of options costs.

Under cuts of channels the cost of a call is exact where it is a product of what each group gives,
as for convolutions and dense layers, and interpolated elsewhere. What other options of a layer save
is taken as a share of the layer's cost. So costs are predicted; those of a structure that is
proposed are counted.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from saikei.channels import BoolMask, ChannelMap, map_channels
from saikei.costs.counting import live_tensors
from saikei.costs.per_call import ADDITIVE, CallCosts, calls_of
from saikei.edits.options import Option, stitch
from saikei.search.library import Library, Measured
from saikei.search.propose.cuts import cuts_of
from saikei.search.propose.space import Array, Memory, Site, Space, Term

# A rank saves less where few channels are left: its cost grows with their number, and that of the
# whole layer with the product of both numbers.
EXPONENTS = {"factorize": 0.5}
# A table of more entries is split into one for each pair of sites.
LARGEST = 4096


class Tables:
    """What does not depend on the blocks that are removed: made once for a graph and its library.

    Args:
        channel_map: The original graph with its channels.
        library: The library of the model.
    """

    def __init__(self, channel_map: ChannelMap, library: Library) -> None:
        self.map = channel_map
        self.library = library
        self._costs = CallCosts(channel_map)
        self.replaced = tuple(e for e in library.entries if e.option.edit.replaces)
        graph = channel_map.graph
        self._whole = [self._costs.of(index) for index in range(len(graph.calls))]
        self._sites = {
            name: tuple(e for e in entries if not _apart(e.option))
            for name, entries in library.sites.items()
        }
        self._channels = {
            name: cuts
            for name, entries in self._sites.items()
            if (cuts := cuts_of(channel_map, entries)) is not None
        }
        self._calls = self._calls_by_site()
        self._corners: dict[tuple[int, tuple[str, ...]], Array] = {}

    @property
    def depth(self) -> int:
        """How many blocks can be removed one after the other."""
        return len(self.library.depth)

    def removed(self, depth: int) -> frozenset[str]:
        """The layers that go with the first blocks of the library's order."""
        gone = [entry.option.layers for entry in self.library.depth[:depth]]
        return frozenset(itertools.chain.from_iterable(gone))

    def space(
        self,
        depth: int = 0,
        weights: Mapping[str, float] | None = None,
        memory: bool = True,
        replaced: Measured | None = None,
    ) -> Space:
        """The space of all options that are left when the first blocks are removed.

        Args:
            depth: How many blocks of the library's order are removed.
            weights: For methods by name, what their losses are multiplied by; 1 if not given.
            memory: Whether the memory of structures is predicted too.
            replaced: An option that replaces layers, of which no other option is left.
        """
        first = [*self.library.depth[:depth]]
        new = [] if replaced is None else [replaced]
        gone = self.removed(depth).union(*(e.option.layers for e in new))
        weights = weights or {}
        names = [n for n, entries in self._sites.items() if _left(entries, gone)]
        sites = tuple(self._site(name, weights, replaced) for name in names)
        position = {name: number for number, name in enumerate(names)}
        forms = self._forms(names, position)
        terms: list[Term] = []
        fixed = np.zeros(len(ADDITIVE))
        for index, call in enumerate(self.map.graph.calls):
            if call.operation in gone:
                continue
            channels = tuple(n for n in self._calls[index] if n in position)
            found = self._terms(index, channels, position, forms.get(call.operation, []))
            terms += found
            if not found:
                fixed += self._whole[index]
        terms += self._added(names, position)
        # Blocks lose together what was measured for them together.
        base = sum(
            max(e.loss, 0.0) * weights.get(e.option.method, 1.0) for e in [*first[-1:], *new]
        )
        for entry in new:
            fixed += self._layers_cost(entry.option) + self._change(entry)
        options = tuple(entry.option for entry in [*first, *new])
        alive = self._memory(position, options) if memory else None
        return Space(sites, tuple(terms), fixed, alive, options, base)

    def _site(self, name: str, weights: Mapping[str, float], replaced: Measured | None) -> Site:
        entries = self._sites[name]
        losses = [
            self.library.added_loss(e, replaced) * weights.get(e.option.method, 1.0)
            for e in entries
        ]
        return Site(name, tuple(e.option for e in entries), np.array([0.0, *losses]))

    def _calls_by_site(self) -> list[list[str]]:
        """For each call, the channel sites that its cost depends on."""
        groups = [g for g in self.map.groups if not g.pinned]
        calls = calls_of(self.map, groups)
        found: list[list[str]] = [[] for _ in self.map.graph.calls]
        for name, channels in self._channels.items():
            gone = ~channels.narrowest
            for group, indices in zip(groups, calls, strict=True):
                if gone[group.channels].any():
                    for index in indices:
                        if name not in found[index]:
                            found[index].append(name)
        return found

    def _corner(self, index: int, narrow: tuple[str, ...]) -> Array:
        """The costs of a call with some sites at their narrowest."""
        if not narrow:
            return self._whole[index]
        key = index, narrow
        if key not in self._corners:
            keep = np.logical_and.reduce([self._channels[name].narrowest for name in narrow])
            self._corners[key] = self._costs.of(index, keep)
        return self._corners[key]

    def _terms(
        self,
        index: int,
        channels: tuple[str, ...],
        position: dict[str, int],
        forms: list[tuple[int, Array, Array]],
    ) -> list[Term]:
        sizes = [len(self._sites[name]) + 1 for name in channels]
        sizes += [len(shares) for _, shares, _ in forms]
        if not sizes:
            return []
        if np.prod(sizes) <= LARGEST:
            sites = tuple(position[name] for name in channels)
            return [_with_forms(sites, self._table(index, channels), forms)]
        return self._pairs(index, channels, position, forms)

    def _table(self, index: int, channels: tuple[str, ...]) -> Array:
        """Costs of a call at all levels of its channel sites, between the corners."""
        corners = np.empty((*(2 for _ in channels), len(ADDITIVE)))
        for corner in itertools.product((0, 1), repeat=len(channels)):
            narrow = tuple(n for n, end in zip(channels, corner, strict=True) if end == 0)
            corners[corner] = self._corner(index, narrow)
        for axis, name in enumerate(channels):
            low, high = (np.expand_dims(np.take(corners, end, axis), axis) for end in (0, 1))
            between = self._between(index, name)
            shape = [1] * corners.ndim
            shape[axis], shape[-1] = between.shape
            corners = low + (high - low) * between.reshape(shape)
        return corners

    def _between(self, index: int, name: str) -> Array:
        """Each level of a site between its narrowest (0) and none (1), by what a call costs."""
        cuts = self._channels[name]
        # A layer that reads and makes the same group costs by the square of its channels.
        levels = [self._whole[index], *(self._costs.of(index, mask) for mask in cuts.masks)]
        costs = np.stack(levels)
        low = costs[1 + int(np.argmin(cuts.counts[1:]))]
        room = costs[0] - low
        found = (costs - low) / np.where(room > 0, room, 1.0)
        return np.asarray(np.where(room > 0, found, cuts.position[:, None]))

    def _pairs(
        self,
        index: int,
        channels: tuple[str, ...],
        position: dict[str, int],
        forms: list[tuple[int, Array, Array]],
    ) -> list[Term]:
        """One term for each site that a call reads, with the site that saves most as the other."""
        whole = self._whole[index]
        saved = {name: whole - self._corner(index, (name,)) for name in channels}
        hub = max(channels, key=lambda name: float(saved[name].sum()))
        out = self._channels[hub]
        least = out.kept.min()
        outer = least + (1 - least) * out.position
        left = whole.copy()
        terms = []
        for name in channels:
            if name == hub:
                continue
            inner = self._channels[name]
            part = saved[name] / max(1 - inner.kept.min(), 1e-12)
            part = np.minimum(part, left)
            left = left - part
            table = np.multiply.outer(np.multiply.outer(inner.kept, outer), part)
            terms.append(_with_forms((position[name], position[hub]), table, forms))
        terms.append(_with_forms((position[hub],), np.multiply.outer(outer, left), forms))
        return terms

    def _forms(
        self, names: Sequence[str], position: dict[str, int]
    ) -> dict[str, list[tuple[int, Array, Array]]]:
        """For each layer, the sites that give it other forms, with shares of cost and exponents."""
        found: dict[str, list[tuple[int, Array, Array]]] = defaultdict(list)
        for name in names:
            if name in self._channels:
                continue
            entries = self._sites[name]
            for layer in dict.fromkeys(n for e in entries for n in e.option.layers):
                shares = np.ones((len(entries) + 1, len(ADDITIVE)))
                exponents = np.ones(len(entries) + 1)
                for level, entry in enumerate(entries, 1):
                    if layer in entry.option.layers:
                        shares[level] = self._share(entry)
                    exponents[level] = EXPONENTS.get(entry.option.method, 1.0)
                if (shares != 1).any():
                    found[layer].append((position[name], shares, exponents))
        return found

    def _layers_cost(self, option: Option) -> Array:
        calls = enumerate(self.map.graph.calls)
        own = [self._whole[index] for index, call in calls if call.operation in option.layers]
        return np.asarray(np.sum(own, axis=0)) if own else np.zeros(len(ADDITIVE))

    def _change(self, entry: Measured) -> Array:
        original = self.library.original
        return np.array([getattr(entry.costs, a) - getattr(original, a) for a in ADDITIVE], float)

    def _share(self, entry: Measured) -> Array:
        """What is left of the cost of its layers; 1 for costs that are added instead."""
        own, change = self._layers_cost(entry.option), self._change(entry)
        scales = (change < 0) & (own + change >= 0) & (own > 0)
        return np.where(scales, 1 + change / np.maximum(own, 1.0), 1.0)

    def _added(self, names: Sequence[str], position: dict[str, int]) -> list[Term]:
        """What options add to the costs, or save outside of their layers."""
        terms = []
        for name in names:
            if name in self._channels:
                continue
            table = np.zeros((len(self._sites[name]) + 1, len(ADDITIVE)))
            for level, entry in enumerate(self._sites[name], 1):
                table[level] = np.where(self._share(entry) == 1, self._change(entry), 0.0)
            if table.any():
                terms.append(Term((position[name],), table))
        return terms

    def _memory(self, position: dict[str, int], first: Sequence[Option]) -> Memory:
        """The live activations after the first options: removed blocks may keep some for longer."""
        left = map_channels(stitch(self.map.graph, first)[1]) if first else self.map
        refs, live, sizes = live_tensors(left)
        names = [(left.graph.calls[ref.call].operation, ref.output) for ref in refs]
        whole = self._tensor_bytes(None)
        saved: dict[int, Array] = {}
        for name, cuts in self._channels.items():
            if name in position:
                narrow = self._tensor_bytes(cuts.narrowest)
                lost = np.array([whole.get(n, 0.0) - narrow.get(n, 0.0) for n in names])
                if lost.any():
                    # Bytes are linear in the number of channels.
                    saved[position[name]] = np.multiply.outer(1 - cuts.position, lost)
        return Memory(live, sizes, saved)

    def _tensor_bytes(self, keep: BoolMask | None) -> dict[tuple[str, int], float]:
        """The bytes of each tensor, by its operation and number among its outputs."""
        refs, _, sizes = live_tensors(self.map, keep)
        names = [(self.map.graph.calls[ref.call].operation, ref.output) for ref in refs]
        return dict(zip(names, sizes.tolist(), strict=True))


def _apart(option: Option) -> bool:
    """Whether an option is the same in all structures of a space."""
    return option.edit.one_by_one or option.edit.replaces


def _left(entries: Sequence[Measured], gone: frozenset[str]) -> bool:
    """Whether a site is still there when layers are gone."""
    layers = {name for entry in entries for name in entry.option.layers}
    return bool(entries) and not (layers and layers <= gone)


def _with_forms(
    sites: tuple[int, ...], table: Array, forms: Sequence[tuple[int, Array, Array]]
) -> Term:
    """A term times what other forms of the layer leave of it."""
    full = table[(0,) * len(sites)]
    for site, shares, exponents in forms:
        part = table / np.where(full > 0, full, 1.0)
        levels = [
            np.where(full > 0, full * share * part**exponent, 0.0)
            for share, exponent in zip(shares, exponents, strict=True)
        ]
        levels[0] = table
        table = np.stack(levels, axis=len(sites))
        sites = (*sites, site)
    return Term(sites, table)
