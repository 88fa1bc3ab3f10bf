"""`Separate`: write convolutions as a depthwise and a pointwise one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import keras
import numpy as np

from saikei.budget import Budget
from saikei.calibration import refit
from saikei.edits.base import Edit, read_with_sizes
from saikei.edits.finite import check_finite_weights
from saikei.edits.lowrank.budgeted import choose_within
from saikei.edits.lowrank.convolutions import split_depthwise
from saikei.edits.lowrank.options import Options, least_loss_within, total_cost
from saikei.edits.lowrank.plan import SplitPlan, planned, split_layers
from saikei.edits.lowrank.select import Found, Splitter, find_options, listed
from saikei.errors import BudgetError, EditError
from saikei.graph import Graph

SPLITTERS: Mapping[str, Splitter] = MappingProxyType(
    {f"Conv{n}D": split_depthwise for n in (1, 2, 3)}
)


@dataclass(frozen=True)
class Separate(Edit):
    """Write convolutions as a depthwise one and a pointwise one, fitted by least squares.

    A k×k convolution of c to n channels costs k·k·c·n multiplications a position; separated, it
    costs (k·k + n)·c·m with the depth multiplier m (Howard et al., "MobileNets", 2017). For each
    input channel the kernel is a matrix (k·k, n), and its truncated singular value decomposition
    of rank m is the closest that m filters with their pointwise weights can come.

    The depthwise layer is linear and has strides, padding and dilation; the pointwise one keeps
    the name, the bias and the activation. They are two layers and no `SeparableConv`, so that
    the channels between them can be pruned and counted like any others. Pointwise convolutions,
    and those that would become no smaller, are left alone.

    Args:
        keep: `None` separates every layer that becomes smaller by it. A share (`float` up to 1)
            of the MACs of these layers, or a `Budget` for the model: only as many as it takes,
            those of the least error first.
        depth_multiplier: filters for each input channel; with more the error is less.
        layers: only these; empty for all that fit.
        exclude: not these.
        compensate: refit the layers to what they gave before, by least squares on the data;
            nothing is trained. Only done when data is given.

    Raises:
        EditError: when an argument is out of range.

    Example:
        >>> edit = Separate(keep=0.5, depth_multiplier=2)
        >>> Separate.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    keep: float | Budget | None = None
    depth_multiplier: int = 1
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    compensate: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "exclude", tuple(self.exclude))
        _check_arguments(self)

    def plan(self, model: keras.Model, data: Any = None) -> SplitPlan:
        """Which layers would be separated, with the relative error of each kernel.

        Args:
            model: a built model.
            data: not used.

        Raises:
            EditError: when no layer would be separated.
        """
        found, rows = self._choice(read_with_sizes(model, data))
        return planned(found.options, rows, found.left_alone, "stays whole, as the limit allows")

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph with the chosen layers separated."""
        check_finite_weights("Separate", graph)
        found, rows = self._choice(graph)
        changed = split_layers(graph, found.options, rows)
        return refit(graph, changed, data) if self.compensate and data is not None else changed

    def _choice(self, graph: Graph) -> tuple[Found, list[int]]:
        found = self._at_multiplier(
            find_options(graph, SPLITTERS, self.layers, self.exclude, "Separate")
        )
        if not found.options:
            reasons = listed(found.left_alone) or "no convolution is chosen"
            raise EditError(f"Separate would change nothing: {reasons}.")
        if isinstance(self.keep, Budget):
            return found, choose_within(graph, found.options, self.keep, "Separate")
        if self.keep is None:
            return found, [1] * len(found.options)
        return found, _within_share(found.options, self.keep)

    def _at_multiplier(self, found: Found) -> Found:
        """The same with a choice between whole and one depth multiplier alone."""
        options, left_alone = [], dict(found.left_alone)
        for layer in found.options:
            rows = np.flatnonzero(layer.rank == self.depth_multiplier)
            if len(rows):
                options.append(layer.only(rows))
            else:
                left_alone[layer.layer] = (
                    f"would not be smaller with a depth multiplier of {self.depth_multiplier} "
                    f"(at most {int(layer.rank.max())})"
                )
        return Found(tuple(options), left_alone)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready arguments."""
        keep = {"budget": self.keep.to_dict()} if isinstance(self.keep, Budget) else self.keep
        return {
            "keep": keep,
            "depth_multiplier": self.depth_multiplier,
            "layers": list(self.layers),
            "exclude": list(self.exclude),
            "compensate": self.compensate,
        }

    @classmethod
    def from_dict(cls, arguments: Mapping[str, Any]) -> Separate:
        """The inverse of `to_dict`."""
        values = dict(arguments)
        if isinstance(values.get("keep"), Mapping):
            values["keep"] = Budget.from_dict(values["keep"]["budget"])
        return cls(**values)


def _within_share(options: tuple[Options, ...], keep: float) -> list[int]:
    whole = total_cost(options, [0] * len(options), "macs")
    rows = least_loss_within(options, {"macs": keep * whole})
    if rows is None:
        least = total_cost(options, [1] * len(options), "macs")
        raise BudgetError(
            f"Separate(keep={keep}) cannot be reached: the layers can be brought down to "
            f"{least / whole:.2g} of their MACs. Raise it, or lower the depth multiplier."
        )
    if not any(rows):
        raise EditError(f"Separate(keep={keep}) would change nothing: every layer stays whole.")
    return rows


def _check_arguments(edit: Separate) -> None:
    keep = edit.keep
    if keep is not None and not isinstance(keep, Budget):
        if not isinstance(keep, float):
            raise EditError(f"Separate(keep={keep!r}): give a share, a Budget or None.")
        if not 0 < keep <= 1:
            raise EditError(f"Separate(keep={keep}): a share has to be above 0 and at most 1.")
    multiplier: Any = edit.depth_multiplier
    if isinstance(multiplier, bool) or not isinstance(multiplier, int) or multiplier < 1:
        raise EditError(
            f"Separate(depth_multiplier={multiplier!r}): give a whole number of at least 1."
        )
