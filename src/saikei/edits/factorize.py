"""`Factorize`: write layers as products of two thinner ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from saikei.budget import Budget
from saikei.edits.checks import check_amount
from saikei.edits.lowrank.convolutions import split_conv
from saikei.edits.lowrank.matrices import split_dense, split_einsum, split_embedding
from saikei.edits.lowrank.options import Options
from saikei.edits.lowrank.splitting import Splitter, SplittingEdit
from saikei.errors import EditError

Scheme = Literal["auto", "channel", "spatial"]

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
            whichever is the larger share), a rank (`int`), or a `Budget` for the model. Within a
            budget each layer gets its own rank, or stays whole, so that the sum of the energy
            lost, relative to each layer's own, is smallest.
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
    keep: float | int | Budget | None = None
    energy: float | None = None
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    scheme: Scheme = "auto"
    compensate: bool = True

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        if (self.keep is None) == (self.energy is None):
            raise EditError(
                "Factorize needs one of keep and energy, for example Factorize(energy=0.95) or "
                "Factorize(keep=0.5)."
            )
        if self.keep is not None:
            check_amount("Factorize", "keep", self.keep, "a rank")
        if self.energy is not None:
            _check_energy(self.energy)
        if self.scheme not in ("auto", "channel", "spatial"):
            raise EditError(f"Unknown scheme '{self.scheme}': use 'auto', 'channel' or 'spatial'.")

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
        return [self._row(layer) for layer in options]

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

    @property
    def reason_to_stay(self) -> str:
        """Why a layer that could be split is not."""
        if self.energy is not None:
            return f"is smaller as it is than at a rank that keeps {self.energy:.4g} of the energy"
        if isinstance(self.keep, Budget):
            return "stays whole, as the budget allows"
        return f"is smaller as it is than at rank {self.keep}"


def _check_energy(energy: Any) -> None:
    if isinstance(energy, bool) or not isinstance(energy, (int, float)) or not 0 < energy <= 1:
        raise EditError(f"Factorize(energy={energy!r}): give a share above 0 and at most 1.")
