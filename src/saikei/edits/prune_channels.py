"""`PruneChannels`: cut the channels that matter least."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import keras
import numpy as np

from saikei.budget import Budget
from saikei.calibration.samples import calibration_samples
from saikei.calibration.surviving_outputs import Kept, kept_outputs
from saikei.channels import BoolMask, ChannelGroup, ChannelMap, map_channels, uncut_layers
from saikei.edits.allocation import ALLOCATIONS, keep_in_order
from saikei.edits.attention_heads import uniform_groups
from saikei.edits.base import Edit, Option
from saikei.edits.channel_options import channel_options
from saikei.edits.checks import check_amount
from saikei.edits.compensate import cut_and_compensate, cut_and_fold
from saikei.edits.drop_channels import DropChannels, dropped
from saikei.edits.knapsack import removal_order
from saikei.edits.within_budget import largest_within, uniform_within
from saikei.errors import EditError, PinnedWarning, SaikeiError, in_one_line, listed
from saikei.graph import Graph
from saikei.hub import task_data
from saikei.importance import CRITERIA, Criterion, ScoreFunction, Scores
from saikei.limits import check_seed, check_whole

Scope = Literal["global", "layer", "uniform"]


@dataclass(frozen=True)
class PruneChannels(Edit):
    """Cut filters, units and whatever is tied to them, the least important first.

    Args:
        keep: How much stays: a share of the channels (`float` up to 1), a number of channels
            (`int`, of each group in layer scope, of all groups together in global scope, where it
            has to be at least the number of groups), or a `Budget`: as many channels as it allows.
        importance: What is kept. From weights alone: `"magnitude"` (their L2 norm), `"l1"`,
            `"bn_scale"`, `"geometric_median"`; from data: `"reconstruction"` (what the others
            cannot make up for), `"activation"`, `"apoz"`; from data with labels, whose sample
            weights count: `"taylor"`, `"hessian"`; or `"random"`. Or a function of a `ChannelMap`,
            a `numpy.random.Generator` and the chosen samples, which gives a score for each channel.
            By default `"reconstruction"` when data is given, and else `"magnitude"`.
        scope: `"layer"` keeps the same share of every group; `"uniform"` too, but only whole heads
            of attention, whose size stays, and where heads together are as wide as what they
            read, the width goes with their number: so the blocks of a transformer stay alike, and
            a cut model of KerasHub is of its class again; `"global"` weighs the channels of
            all groups against each other. Under a budget, reconstruction errors are weighed
            against the cost that a channel saves; other scores are ranked.
        multiple_of: Keep multiples of this number of channels, for hardware that likes them.
        layers: The layers whose output channels may go; all when empty. What is tied to them
            is cut with them.
        exclude: Layers whose output channels stay.
        seed: Seed of the random importance.
        compensate: Make up for what goes, without training: constant channels are added to the
            biases of what reads them, and when data is given, the layers that are left are
            refitted by least squares to what they gave before.

    Raises:
        EditError: When an argument is out of range.

    Example:
        >>> edit = PruneChannels(keep=0.5, importance="random", seed=1)
        >>> PruneChannels.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    method: ClassVar[str] = "prune"
    stage: ClassVar[int] = 1
    keep: float | int | Budget
    importance: str | ScoreFunction | None = field(
        default=None,
        metadata={
            "json": "use the name of a criterion, or save plan(model), which names the channels"
        },
    )
    scope: Scope = "global"
    multiple_of: int = 1
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    seed: int = 0
    compensate: bool = True

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        _check_arguments(self)

    def plan(self, model: keras.Model, data: Any = None) -> DropChannels:
        """Which channels of which layers would go, without touching a weight.

        Called with the same data, the plan gives the same model as this edit.

        Args:
            model: A built model.
            data: For an importance that looks at data.
        """
        data = task_data(model, data)
        channel_map = map_channels(self.read(model, data))
        return dropped(channel_map, self._mask(channel_map, data), self.compensate)

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph with only the most important channels."""
        channel_map = map_channels(graph)
        return cut_and_compensate(channel_map, self._mask(channel_map, data), data, self.compensate)

    def unfitted(self, graph: Graph, data: Any = None) -> tuple[Graph, Kept]:
        """The graph with only the most important channels, and what is left of its outputs."""
        channel_map = map_channels(graph)
        mask = self._mask(channel_map, data)
        return cut_and_fold(channel_map, mask), kept_outputs(channel_map, mask)

    @classmethod
    def options(cls, graph: Graph, data: Any = None) -> tuple[Option, ...]:
        """For each group of channels, several numbers of them that stay.

        Channels go by their error of reconstruction where there is data, and else by magnitude.
        """
        return channel_options(graph, data)

    def _mask(self, channel_map: ChannelMap, data: Any) -> BoolMask:
        self.check_layers(channel_map.graph)
        groups = [g for g in channel_map.groups if not g.pinned and self._chosen(g)]
        if self.scope == "uniform":
            groups = uniform_groups(channel_map, groups, named=bool(self.layers))
        _warn_of_pins(channel_map)
        if not groups:
            raise EditError(_nothing_to_cut(self, channel_map, groups))
        _check_multiple(self.multiple_of, groups)
        self._check_count(groups)
        criterion = self._criterion(data)
        scores = _scores(criterion, channel_map, data, self.seed)
        mask = self._allocated(channel_map, groups, scores, criterion.error)
        if mask.all():
            raise EditError(_nothing_to_cut(self, channel_map, groups))
        return mask

    def _chosen(self, group: ChannelGroup) -> bool:
        made = set(group.layers_made)
        return not made & set(self.exclude) and (not self.layers or bool(made & set(self.layers)))

    def _criterion(self, data: Any) -> Criterion:
        if callable(self.importance):
            return Criterion(self.importance, "nothing" if data is None else "inputs")
        name = self.importance
        if name is None:
            name = "magnitude" if data is None else "reconstruction"
        criterion = CRITERIA[name]
        if criterion.needs != "nothing" and data is None:
            raise EditError(
                f"Importance '{name}' looks at data, and none is given: hand in (x, y) as the "
                "second argument, or use importance='magnitude'."
            )
        return criterion

    def _check_count(self, groups: list[ChannelGroup]) -> None:
        """Refuse a number of channels that leaves less than one for each group."""
        keep = self.keep if isinstance(self.keep, int) else len(groups)
        if self.scope == "global" and keep < len(groups):
            raise EditError(
                f"PruneChannels(keep={self.keep}): in global scope this is the number of channels "
                f"in all {len(groups)} groups together, and each keeps at least one: give at "
                f"least {len(groups)}, or a share such as 0.5."
            )

    def _allocated(
        self,
        channel_map: ChannelMap,
        groups: list[ChannelGroup],
        scores: Scores,
        by_cost: bool,
    ) -> BoolMask:
        if self.scope == "uniform" and isinstance(self.keep, Budget):
            return uniform_within(channel_map, groups, scores, self.keep, self.multiple_of)
        order = None
        if by_cost and self.scope == "global" and isinstance(self.keep, Budget):
            order = removal_order(channel_map, groups, scores, self.keep)

        def mask_for(keep: float | int) -> BoolMask:
            if order is not None:
                return keep_in_order(channel_map, groups, scores, order, keep, self.multiple_of)
            return ALLOCATIONS[self.scope](channel_map, groups, scores, keep, self.multiple_of)

        if isinstance(self.keep, Budget):
            return largest_within(channel_map, self.keep, mask_for)
        return mask_for(self.keep)


def _check_arguments(edit: PruneChannels) -> None:
    check_amount("PruneChannels", "keep", edit.keep, "a number of channels")
    if edit.keep == 1 and isinstance(edit.keep, int) and edit.scope == "global":
        raise EditError(
            "PruneChannels(keep=1) would cut every layer to one channel, as 1 is a number of "
            "channels: give a share, such as 0.5 (1.0 keeps all), or scope='layer' if you mean it."
        )
    named = edit.importance is not None and not callable(edit.importance)
    if named and edit.importance not in CRITERIA:
        raise EditError(
            f"Unknown importance '{edit.importance}': use one of {', '.join(sorted(CRITERIA))}."
        )
    if edit.scope not in ALLOCATIONS:
        raise EditError(f"Unknown scope '{edit.scope}': use 'global', 'layer' or 'uniform'.")
    check_whole("PruneChannels: multiple_of", edit.multiple_of, kind=EditError)
    check_seed(edit.seed, EditError)


def _scores(criterion: Criterion, channel_map: ChannelMap, data: Any, seed: int) -> Scores:
    samples = None
    if (data is not None and criterion.needs != "nothing") or (
        data is not None and criterion not in CRITERIA.values()
    ):
        samples = calibration_samples(channel_map.graph, data)
    try:
        scores = criterion.score(channel_map, np.random.default_rng(seed), samples)
    except SaikeiError:
        raise
    # A function of the user's may raise anything.
    except Exception as error:
        if criterion in CRITERIA.values():
            raise
        raise EditError(
            f"The function given as importance failed: {in_one_line(error)}. It is called with a "
            "channel map, a numpy.random.Generator and samples, and gives one score for each "
            "channel."
        ) from error
    if np.shape(scores) != (channel_map.count,) or not np.isfinite(scores).all():
        raise EditError(
            f"The importance gave {np.shape(scores)} numbers, and the graph has "
            f"{channel_map.count} channels: give one finite score for each."
        )
    return np.asarray(scores, dtype=np.float64)


def _check_multiple(multiple_of: int, groups: list[ChannelGroup]) -> None:
    """Groups that have fewer channels than one multiple cannot keep multiples of it."""
    small = [f"'{group.name}' ({group.size})" for group in groups if group.size < multiple_of]
    if len(small) == len(groups):
        raise EditError(
            f"PruneChannels: multiple_of={multiple_of} is more than any group has channels: use "
            f"at most {max(group.size for group in groups)}."
        )
    if small:
        warnings.warn(
            f"Of these groups no multiple of {multiple_of} channels can be kept, so any number "
            f"is: {listed(small, 5, ', ')}. Exclude them, or use a smaller multiple_of.",
            PinnedWarning,
            5,
        )


def _warn_of_pins(channel_map: ChannelMap) -> None:
    """Name the layers that keep their width: those of unknown kind, and all where they are many."""
    reasons = list(channel_map.unknown.values())
    uncut = uncut_layers(channel_map)
    if uncut.share >= 0.5:
        named = (f"'{name}' ({why})" for name, why in uncut.reasons.items())
        reasons.append(
            f"{uncut.share:.0%} of the parameters are in layers that keep their width: "
            f"{listed(named, 5, ', ')}"
        )
    if reasons:
        message = f"Channels around these layers are not cut: {'; '.join(reasons)}."
        warnings.warn(message, PinnedWarning, 4)


def _nothing_to_cut(
    edit: PruneChannels, channel_map: ChannelMap, groups: list[ChannelGroup]
) -> str:
    if groups:
        return (
            f"PruneChannels(keep={edit.keep}) would change nothing: every one of the "
            f"{len(groups)} channel groups keeps all its channels; ask for less."
        )
    reasons = dict.fromkeys(f"{g.name}: {g.pinned or 'excluded'}" for g in channel_map.groups)
    reasons |= dict.fromkeys(channel_map.unknown.values())
    if not reasons:
        return (
            "PruneChannels has nothing to cut: no layer has channels. Give a model with a dense, "
            "convolutional or recurrent layer before its outputs."
        )
    if any(not group.pinned for group in channel_map.groups):
        fix = "Choose other layers, or exclude fewer"
    elif channel_map.unknown:
        fix = "Make such layers of Keras's layers and keras.ops, or register_rule for them"
    else:
        fix = (
            "All channels of inputs and outputs stay, so that a backbone alone keeps its width: "
            "give the whole task, with its head; Sparsify changes such layers too"
        )
    return f"PruneChannels has nothing to cut: {'; '.join(reasons)}. {fix}."
