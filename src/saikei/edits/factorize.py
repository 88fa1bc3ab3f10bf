"""`Factorize`: write layers as products of two thinner ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import keras
import numpy as np

from saikei.budget import Budget
from saikei.calibration import refit
from saikei.edits.base import Edit, read_with_sizes
from saikei.edits.finite import check_finite_weights
from saikei.edits.lowrank.budgeted import choose_within
from saikei.edits.lowrank.convolutions import split_conv
from saikei.edits.lowrank.matrices import split_dense, split_einsum, split_embedding
from saikei.edits.lowrank.options import Options
from saikei.edits.lowrank.plan import SplitPlan, planned, split_layers
from saikei.edits.lowrank.select import Found, Splitter, find_options, listed
from saikei.errors import EditError
from saikei.graph import Graph

Scheme = Literal["auto", "channel", "spatial"]

# Rounding in float32 weights leaves about so much energy in what would be zero.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Factorize(Edit):
    """Write layers as products of two thinner ones, by truncated singular value decomposition.

    A `Dense` layer of shape (in, out) becomes one of (in, rank), linear and without bias, and
    one of (rank, out) with the name, the bias and the activation. `EinsumDense` layers that
    multiply by one matrix are split likewise, and an `Embedding` becomes a thinner table and a
    `Dense` layer. Convolutions are split in one of two schemes:

    - `"channel"`: the whole window to `rank` channels, then 1×1 to all (Zhang et al., 2016). In
      a grouped convolution, `rank` channels in each group;
    - `"spatial"`: the first axis of the window to `rank` channels, then the others: k×1 and 1×k
      in two dimensions (Jaderberg et al., 2014), k×1×1 and 1×k×k in three.

    Strides, dilation, padding and data format stay. Among all products of a rank, the kernel of
    this one is closest to the original's. A layer that no rank makes smaller is left alone.

    Args:
        keep: how much stays: a share of each layer's cost (`float` up to 1; parameters or MACs,
            whichever is the larger share), a rank (`int`), or a `Budget` for the model. Within a
            budget each layer gets its own rank, or stays whole, so that the sum of the energy
            lost, relative to each layer's own, is smallest.
        energy: instead of `keep`: the smallest rank that keeps this share of the sum of squares
            of each kernel, up to 1.
        layers: only these; empty for all that fit.
        exclude: not these.
        scheme: of convolutions; `"auto"` takes what loses less, or costs less, layer by layer.
        compensate: refit the layers to what they gave before, by least squares on the data;
            nothing is trained. Only done when data is given.

    Raises:
        EditError: when an argument is out of range.

    Example:
        >>> edit = Factorize(energy=0.9, exclude=("classes",))
        >>> Factorize.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    keep: float | int | Budget | None = None
    energy: float | None = None
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    scheme: Scheme = "auto"
    compensate: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "exclude", tuple(self.exclude))
        _check_arguments(self)

    def plan(self, model: keras.Model, data: Any = None) -> SplitPlan:
        """Which layers would be split, at which rank, and what is kept and saved.

        Args:
            model: a built model.
            data: not used.

        Raises:
            EditError: when no layer would be split.
        """
        found, rows = self._choice(read_with_sizes(model, data))
        return planned(found.options, rows, found.left_alone, self._reason_to_stay())

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph with the chosen layers split."""
        check_finite_weights("Factorize", graph)
        found, rows = self._choice(graph)
        changed = split_layers(graph, found.options, rows)
        return refit(graph, changed, data) if self.compensate and data is not None else changed

    def _choice(self, graph: Graph) -> tuple[Found, list[int]]:
        found = find_options(graph, _splitters(self.scheme), self.layers, self.exclude, "Factorize")
        if not found.options:
            reasons = listed(found.left_alone) or "no layer of a kind that it splits is chosen"
            raise EditError(f"Factorize would change nothing: {reasons}.")
        if isinstance(self.keep, Budget):
            rows = choose_within(graph, found.options, self.keep, "Factorize")
        else:
            rows = [self._row(options) for options in found.options]
        if not any(rows):
            why = {o.layer: self._reason_to_stay() for o in found.options} | dict(found.left_alone)
            raise EditError(f"Factorize would change nothing: {listed(why)}.")
        return found, rows

    def _row(self, options: Options) -> int:
        """The rank of one layer where each is on its own; 0 where it stays whole."""
        share = np.maximum.reduce([c / max(int(c[0]), 1) for c in options.costs.values()])
        if not options.splits.macs:
            share = options.costs["params"] / options.splits.params
        cheapest_first, closest_first = (
            np.lexsort(keys) for keys in ((options.loss, share), (share, options.loss))
        )
        split = options.rank > 0
        if self.energy is not None:
            order, right = cheapest_first, options.loss <= 1.0 - self.energy + ROUNDING
        elif isinstance(self.keep, float):
            order, right = closest_first, share <= self.keep
            if not (right & split).any():
                # Even rank 1 costs more than the share: it is what comes closest.
                right = options.rank == 1
        else:
            order, right = closest_first, options.rank == self.keep
        chosen = order[(right & split)[order]]
        return int(chosen[0]) if len(chosen) else 0

    def _reason_to_stay(self) -> str:
        if self.energy is not None:
            return f"is smaller as it is than at a rank that keeps {self.energy:.4g} of the energy"
        if isinstance(self.keep, Budget):
            return "stays whole, as the budget allows"
        return f"is smaller as it is than at rank {self.keep}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready arguments."""
        keep = {"budget": self.keep.to_dict()} if isinstance(self.keep, Budget) else self.keep
        return {
            "keep": keep,
            "energy": self.energy,
            "layers": list(self.layers),
            "exclude": list(self.exclude),
            "scheme": self.scheme,
            "compensate": self.compensate,
        }

    @classmethod
    def from_dict(cls, arguments: Mapping[str, Any]) -> Factorize:
        """The inverse of `to_dict`."""
        values = dict(arguments)
        if isinstance(values.get("keep"), Mapping):
            values["keep"] = Budget.from_dict(values["keep"]["budget"])
        return cls(**values)


def _splitters(scheme: Scheme) -> Mapping[str, Splitter]:
    conv = partial(split_conv, scheme=scheme)
    return MappingProxyType(
        {
            "Dense": split_dense,
            "EinsumDense": split_einsum,
            "Embedding": split_embedding,
            **{f"Conv{n}D": conv for n in (1, 2, 3)},
        }
    )


def _check_arguments(edit: Factorize) -> None:
    keep, energy = edit.keep, edit.energy
    if (keep is None) == (energy is None):
        raise EditError(
            "Factorize needs one of keep and energy, for example Factorize(energy=0.95) or "
            "Factorize(keep=0.5)."
        )
    if keep is not None:
        check_keep_argument("Factorize", keep)
    if energy is not None:
        _check_energy(energy)
    if edit.scheme not in ("auto", "channel", "spatial"):
        raise EditError(f"Unknown scheme '{edit.scheme}': use 'auto', 'channel' or 'spatial'.")


def check_keep_argument(edit: str, keep: Any) -> None:
    """Refuse a `keep` that is no share, no count of at least 1 and no budget."""
    if isinstance(keep, bool) or not isinstance(keep, (float, int, Budget)):
        raise EditError(f"{edit}(keep={keep!r}): give a share, a rank or a Budget.")
    if isinstance(keep, float) and not 0 < keep <= 1:
        raise EditError(
            f"{edit}(keep={keep}): a share has to be above 0 and at most 1; an int is a rank."
        )
    if isinstance(keep, int) and keep < 1:
        raise EditError(f"{edit}(keep={keep}): a rank has to be at least 1.")


def _check_energy(energy: Any) -> None:
    if isinstance(energy, bool) or not isinstance(energy, (int, float)) or not 0 < energy <= 1:
        raise EditError(f"Factorize(energy={energy!r}): give a share above 0 and at most 1.")
