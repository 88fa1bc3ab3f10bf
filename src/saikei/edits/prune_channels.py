"""`PruneChannels`: cut the channels that matter least."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import keras
import numpy as np

from saikei.budget import Budget
from saikei.channels import BoolMask, ChannelGroup, ChannelMap, map_channels
from saikei.edits.allocation import keep_globally, keep_per_layer
from saikei.edits.base import Edit
from saikei.edits.compensate import cut_and_refit
from saikei.edits.cut import cut
from saikei.edits.drop_channels import DropChannels, check_layer_names, dropped
from saikei.edits.within_budget import largest_within
from saikei.errors import EditError, PinnedWarning
from saikei.graph import Graph, read
from saikei.importance import CRITERIA

Scope = Literal["global", "layer"]


@dataclass(frozen=True)
class PruneChannels(Edit):
    """Cut filters, units and whatever is tied to them, the least important first.

    Args:
        keep: what stays: a share of the channels (`float` up to 1), a number of channels
            (`int`, of each group in layer scope, of all in global scope), or a `Budget`: as
            many channels as it allows.
        importance: `"magnitude"` or `"random"`.
        scope: `"layer"` keeps the same share of every group; `"global"` ranks the channels of
            all groups together.
        multiple_of: keep multiples of this number of channels, for hardware that likes them.
        exclude: layers whose output channels stay.
        seed: of the random importance.
        compensate: refit the layers that are left to what they gave before, by least squares on
            the data; nothing is trained. Only done when data is given.

    Raises:
        EditError: when an argument is out of range.

    Example:
        >>> edit = PruneChannels(keep=0.5, importance="random", seed=1)
        >>> PruneChannels.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    keep: float | int | Budget
    importance: str = "magnitude"
    scope: Scope = "global"
    multiple_of: int = 1
    exclude: tuple[str, ...] = ()
    seed: int = 0
    compensate: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "exclude", tuple(self.exclude))
        _check_arguments(self)

    def plan(self, model: keras.Model, data: Any = None) -> DropChannels:
        """Which channels of which layers would go, without touching a weight.

        Args:
            model: a built model.
            data: not used by magnitude and random importance.
        """
        channel_map = map_channels(read(model))
        return dropped(channel_map, self._mask(channel_map))

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph with only the most important channels."""
        channel_map = map_channels(graph)
        mask = self._mask(channel_map)
        if self.compensate and data is not None:
            return cut_and_refit(channel_map, mask, data)
        return cut(channel_map, mask)

    def _mask(self, channel_map: ChannelMap) -> BoolMask:
        check_layer_names(self.exclude, channel_map.graph.operations, "PruneChannels(exclude=…)")
        groups = [g for g in channel_map.groups if not g.pinned]
        groups = [g for g in groups if not set(g.layers_made) & set(self.exclude)]
        _warn_of_pins(channel_map)
        scores = CRITERIA[self.importance](channel_map, np.random.default_rng(self.seed))
        allocate = keep_per_layer if self.scope == "layer" else keep_globally

        def mask_for(keep: float | int) -> BoolMask:
            return allocate(channel_map, groups, scores, keep, self.multiple_of)

        if isinstance(self.keep, Budget):
            mask = largest_within(channel_map, self.keep, mask_for)
        else:
            mask = mask_for(self.keep)
        if mask.all():
            raise EditError(_nothing_to_cut(self, channel_map, groups))
        return mask

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready arguments."""
        keep = {"budget": self.keep.to_dict()} if isinstance(self.keep, Budget) else self.keep
        return {
            "keep": keep,
            "importance": self.importance,
            "scope": self.scope,
            "multiple_of": self.multiple_of,
            "exclude": list(self.exclude),
            "seed": self.seed,
            "compensate": self.compensate,
        }

    @classmethod
    def from_dict(cls, arguments: Mapping[str, Any]) -> PruneChannels:
        """The inverse of `to_dict`."""
        values = dict(arguments)
        if isinstance(values["keep"], Mapping):
            values["keep"] = Budget.from_dict(values["keep"]["budget"])
        return cls(**{**values, "exclude": tuple(values.get("exclude", ()))})


def _check_arguments(edit: PruneChannels) -> None:
    keep = edit.keep
    if isinstance(keep, bool) or not isinstance(keep, (float, int, Budget)):
        raise EditError(f"PruneChannels(keep={keep!r}): give a share, a count or a Budget.")
    if isinstance(keep, float) and not 0 < keep <= 1:
        raise EditError(
            f"PruneChannels(keep={keep}): a share has to be above 0 and at most 1; "
            "an int is a number of channels."
        )
    if isinstance(keep, int) and keep < 1:
        raise EditError(f"PruneChannels(keep={keep}): keep at least one channel.")
    if edit.importance not in CRITERIA:
        raise EditError(
            f"Unknown importance '{edit.importance}': use one of {', '.join(sorted(CRITERIA))}."
        )
    if edit.scope not in ("global", "layer"):
        raise EditError(f"Unknown scope '{edit.scope}': use 'global' or 'layer'.")
    if edit.multiple_of < 1:
        raise EditError(f"PruneChannels(multiple_of={edit.multiple_of}): use 1 or more.")


def _warn_of_pins(channel_map: ChannelMap) -> None:
    """Say which layers stay whole because their kind is unknown; outputs always stay."""
    if channel_map.unknown:
        reasons = "; ".join(channel_map.unknown.values())
        warnings.warn(f"Channels around these layers are not cut: {reasons}.", PinnedWarning, 4)


def _nothing_to_cut(
    edit: PruneChannels, channel_map: ChannelMap, groups: list[ChannelGroup]
) -> str:
    if groups:
        return (
            f"PruneChannels(keep={edit.keep}) would change nothing: every one of the "
            f"{len(groups)} channel groups keeps all its channels; ask for less."
        )
    reasons = dict.fromkeys(f"{g.name}: {g.pinned or 'excluded'}" for g in channel_map.groups)
    return f"PruneChannels has nothing to cut: {'; '.join(reasons) or 'no layer has channels'}."
