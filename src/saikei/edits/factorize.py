"""`Factorize`: write layers as products of two thinner ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from saikei.budget import Budget
from saikei.edits.base import Option
from saikei.edits.checks import check_share_or_budget
from saikei.edits.lowrank.convolutions import split_conv
from saikei.edits.lowrank.matrices import split_dense, split_einsum, split_embedding
from saikei.edits.lowrank.options import Options
from saikei.edits.lowrank.splitting import Splitter, SplittingEdit, find_options
from saikei.errors import EditError
from saikei.graph import Graph
from saikei.limits import check_whole

Scheme = Literal["auto", "channel", "spatial"]

# Shares of a layer's cost that its options come down to; with many layers, every other one.
SHARES = (0.75, 0.5, 0.35, 0.25, 0.125)
MANY = 16
WIDE = 600

# Rounding in float32 weights leaves about so much energy in what would be zero.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Factorize(SplittingEdit):
    """Write layers as products of two thinner ones, by truncated singular value decomposition.

    A `Dense` layer of shape (in, out) becomes one of (in, rank), linear and without bias, and
    one of (rank, out) with the name, the bias and the activation. `EinsumDense` layers that
    multiply by one matrix are split in the same way, and an `Embedding` becomes a thinner table
    and a `Dense` layer. Convolutions are split in one of two schemes:

    - `"channel"`: the whole window to `rank` channels, then 1×1 to all (Zhang et al., 2016). In
      a grouped convolution, `rank` channels in each group;
    - `"spatial"`: the first axis of the window to `rank` channels, then the others: k×1 and 1×k
      in two dimensions (Jaderberg et al., 2014), k×1×1 and 1×k×k in three.

    Strides, dilation, padding and data format stay. Among all products of a rank, the kernel of
    this one is closest to the original's. A layer that no rank makes smaller is left alone.

    Args:
        keep: How much stays: a share of each layer's cost (`float` up to 1; parameters or MACs,
            whichever is the larger share), or a `Budget` for the model. Within a budget each
            layer gets its own rank, or stays whole, so that the sum of the energy lost, relative
            to each layer's own, is smallest.
        rank: Instead of `keep`: the rank of every layer that it makes smaller.
        energy: Instead of `keep`: the smallest rank that keeps this share of the sum of squares
            of each kernel, up to 1.
        layers: The names of the layers to change; all that fit when empty.
        exclude: The names of layers that stay as they are.
        scheme: How convolutions are split; `"auto"` takes for each layer what loses less, or costs
            less.
        compensate: Refit the layers to what they gave before, by least squares on the data;
            nothing is trained. Only done when data is given.

    Raises:
        EditError: When an argument is out of range.

    Example:
        >>> edit = Factorize(energy=0.9, exclude=("classes",))
        >>> Factorize.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    method: ClassVar[str] = "factorize"
    keep: float | Budget | None = None
    rank: int | None = None
    energy: float | None = None
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    scheme: Scheme = "auto"
    compensate: bool = True

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        if sum(amount is not None for amount in (self.keep, self.rank, self.energy)) != 1:
            raise EditError(
                "Factorize needs one of keep, rank and energy, for example Factorize(keep=0.5) or "
                "Factorize(energy=0.95)."
            )
        if self.keep is not None:
            check_share_or_budget("Factorize", self.keep, "for a rank give rank=")
        if self.rank is not None:
            check_whole("Factorize: rank", self.rank, kind=EditError)
        if self.energy is not None:
            _check_energy(self.energy)
        if self.scheme not in ("auto", "channel", "spatial"):
            raise EditError(f"Unknown scheme '{self.scheme}': use 'auto', 'channel' or 'spatial'.")

    @classmethod
    def options(cls, graph: Graph, data: Any = None) -> tuple[Option, ...]:  # noqa: ARG003
        """For each layer that can be split, several ranks."""
        wide = wide_layers(graph)
        small = find_options(cls(rank=1, exclude=wide), graph).options
        # The windows of wide convolutions make matrices whose decomposition takes too long.
        rest = find_options(cls(rank=1, layers=wide, scheme="channel"), graph) if wide else None
        found = small + (rest.options if rest is not None else ())
        shares = SHARES if len(found) <= MANY else SHARES[1::2]
        return tuple(option for layer in found for option in _rank_options(layer, shares))

    @property
    def splitters(self) -> Mapping[str, Splitter]:
        """For each kind of layer that can be split, how."""
        conv = partial(split_conv, scheme=self.scheme)
        return {
            "Dense": split_dense,
            "EinsumDense": split_einsum,
            "Embedding": split_embedding,
            **{f"Conv{n}D": conv for n in (1, 2, 3)},
        }

    def rows(self, options: tuple[Options, ...]) -> list[int]:
        """The chosen row of each layer's options, where no budget decides; 0 where it stays."""
        return [self.row(layer) for layer in options]

    def row(self, options: Options) -> int:
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
            order, right = closest_first, options.rank == self.rank
        chosen = order[(right & split)[order]]
        return int(chosen[0]) if len(chosen) else 0

    @property
    def reason_to_stay(self) -> str:
        """Why a layer that could be split is not."""
        if self.energy is not None:
            return f"is smaller as it is than at a rank that keeps {self.energy:.4g} of the energy"
        if isinstance(self.keep, Budget):
            return "stays whole, as the budget allows"
        return f"is smaller as it is than at rank {self.rank or 1}"


def wide_layers(graph: Graph) -> tuple[str, ...]:
    """Convolutions of which a window along one axis has many numbers."""
    return tuple(
        name
        for name, operation in graph.operations.items()
        if operation.kind in ("Conv1D", "Conv2D", "Conv3D") and "kernel" in operation.weights
        if min(operation.weights["kernel"].shape[-2:]) * operation.weights["kernel"].shape[0] > WIDE
    )


def _rank_options(layer: Options, shares: Sequence[float]) -> list[Option]:
    """Ranks of a layer that bring it to about these shares of its cost."""
    options: dict[int, Option] = {}
    for share in shares:
        row = Factorize(keep=share).row(layer)
        if row == 0 or row in options:
            continue
        rank, scheme = int(layer.rank[row]), layer.split(row).scheme
        of_conv: Scheme = "channel" if scheme == "channel" else "spatial"
        edit = Factorize(
            rank=rank,
            layers=(layer.layer,),
            scheme=of_conv if scheme in ("channel", "spatial") else "auto",
        )
        along = " along one axis of the window" if scheme == "spatial" else ""
        change = f"rank {rank}{along}"
        options[row] = Option(
            f"layer:{layer.layer}", Factorize.method, change, edit, (layer.layer,)
        )
    return list(options.values())


def _check_energy(energy: Any) -> None:
    if isinstance(energy, bool) or not isinstance(energy, (int, float)) or not 0 < energy <= 1:
        raise EditError(f"Factorize(energy={energy!r}): give a share above 0 and at most 1.")
