"""`Separate`: write convolutions as a depthwise and a pointwise one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from saikei.budget import Budget
from saikei.edits.base import Option
from saikei.edits.checks import check_share_or_budget
from saikei.edits.lowrank.convolutions import split_depthwise
from saikei.edits.lowrank.options import Options, least_loss_within, total_cost
from saikei.edits.lowrank.splitting import Splittable, Splitter, SplittingEdit, find_options
from saikei.errors import BudgetError, EditError
from saikei.graph import Graph
from saikei.limits import check_whole


@dataclass(frozen=True)
class Separate(SplittingEdit):
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
        depth_multiplier: Filters for each input channel; with more the error is less.
        layers: The names of the layers to change; all that fit when empty.
        exclude: The names of layers that stay as they are.
        compensate: Refit the layers to what they gave before, by least squares on the data;
            nothing is trained. Only done when data is given.

    Raises:
        EditError: When an argument is out of range.

    Example:
        >>> edit = Separate(keep=0.5, depth_multiplier=2)
        >>> Separate.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    method: ClassVar[str] = "separate"
    keep: float | Budget | None = None
    depth_multiplier: int = 1
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    compensate: bool = True

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        if self.keep is not None:
            check_share_or_budget("Separate", self.keep, "None separates every layer")
        check_whole("Separate: depth_multiplier", self.depth_multiplier, kind=EditError)

    @classmethod
    def options(cls, graph: Graph, data: Any = None) -> tuple[Option, ...]:  # noqa: ARG003
        """For each convolution that becomes smaller, one and two filters for each channel."""
        found = find_options(cls(), graph).options
        return tuple(
            Option(
                f"layer:{layer.layer}",
                cls.method,
                f"depthwise and pointwise, {filters} filter{'s' * (filters > 1)} a channel",
                cls(depth_multiplier=filters, layers=(layer.layer,)),
                (layer.layer,),
            )
            for layer in found
            for filters in (1, 2)
            if (layer.rank == filters).any()
        )

    @property
    def splitters(self) -> Mapping[str, Splitter]:
        """For each kind of layer that can be split, how."""
        return {f"Conv{n}D": split_depthwise for n in (1, 2, 3)}

    @property
    def reason_to_stay(self) -> str:
        """Why a layer that could be separated is not."""
        return "stays whole, as the limit allows"

    def rows(self, options: tuple[Options, ...]) -> list[int]:
        """The chosen row of each layer's options, where no budget decides."""
        if not isinstance(self.keep, float):
            return [1] * len(options)
        whole = total_cost(options, [0] * len(options), "macs")
        rows = least_loss_within(options, {"macs": self.keep * whole})
        if rows is None:
            least = total_cost(options, [1] * len(options), "macs")
            raise BudgetError(
                f"Separate(keep={self.keep}) cannot be reached: the layers can be brought down to "
                f"{least / whole:.2g} of their MACs. Raise it, or lower the depth multiplier."
            )
        return rows

    def allowed(self, found: Splittable) -> Splittable:
        """The options of the one depth multiplier."""
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
        return Splittable(tuple(options), left_alone)
