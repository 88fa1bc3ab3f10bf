"""The options of each layer, and the choice over all layers that loses least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saikei.edits.lowrank.split import Split, Splits

Array = np.ndarray[Any, np.dtype[Any]]

# The price of a unit of cost is bisected so often between the cheapest and the closest choice.
STEPS = 60


@dataclass(frozen=True)
class Options:
    """The options of a layer: row 0 is the layer itself, each other a split that is smaller.

    Args:
        splits: The layer and its splits.
        scheme: For each row, the index of the split; -1 in row 0.
        rank: For each row, the rank; 0 in row 0.
        loss: For each row, the share of the kernel's energy (sum of squares) that is lost.
        costs: For each row, the `"params"`, `"macs"` and `"bytes"` of the kernels alone.
    """

    splits: Splits
    scheme: Array
    rank: Array
    loss: Array
    costs: Mapping[str, Array]

    @property
    def layer(self) -> str:
        """The layer's name."""
        return self.splits.layer

    def split(self, row: int) -> Split:
        """The split of a row above 0."""
        return self.splits.schemes[int(self.scheme[row])]

    def only(self, rows: Array) -> Options:
        """The layer as it is, and some of the rows."""
        rows = np.concatenate([[0], rows[rows > 0]]).astype(int)
        costs = {name: column[rows] for name, column in self.costs.items()}
        return Options(self.splits, self.scheme[rows], self.rank[rows], self.loss[rows], costs)


def paying_options(splits: Splits, itemsize: int) -> Options:
    """The ranks with fewer parameters than the layer has, and no more MACs.

    A table that is looked up has no MACs, so any product of tables costs some: there the
    parameters decide alone.
    """
    scheme, rank, loss = [np.array([-1])], [np.array([0])], [np.array([0.0])]
    params, macs = [np.array([splits.params])], [np.array([splits.macs])]
    for index, split in enumerate(splits.schemes):
        ranks = np.arange(1, split.spectrum.rank + 1)
        pays = ranks * split.params_per_rank < splits.params
        if splits.macs:
            pays &= ranks * split.macs_per_rank <= splits.macs
        ranks = ranks[pays]
        scheme.append(np.full(len(ranks), index))
        rank.append(ranks)
        loss.append(split.spectrum.losses()[pays])
        params.append(ranks * split.params_per_rank)
        macs.append(ranks * split.macs_per_rank)
    counts = np.concatenate(params)
    costs = {"params": counts, "macs": np.concatenate(macs), "bytes": counts * itemsize}
    return Options(
        splits, np.concatenate(scheme), np.concatenate(rank), np.concatenate(loss), costs
    )


def least_loss_within(options: Sequence[Options], limits: Mapping[str, float]) -> list[int] | None:
    """One row for each layer, so that the costs keep the limits and little energy is lost.

    A knapsack with a choice in each layer. A price on cost is bisected: at each price every
    layer takes what is cheapest in energy lost and cost together, which is the best choice for
    the cost that comes out. What is left of the limits then goes to the layers that gain most.

    Args:
        options: The options of each layer; the energy lost is relative to each layer's own.
        limits: The limit on the sum of each cost over these layers.

    Returns:
        Rows, or `None` where the limits cannot be kept.
    """
    whole = {name: max(sum(o.costs[name][0] for o in options), 1) for name in limits}
    prices = [sum(o.costs[name] / whole[name] for name in limits) for o in options]

    def at(price: float) -> list[int]:
        return [int(np.argmin(o.loss + price * p)) for o, p in zip(options, prices, strict=True)]

    rows = [int(np.argmin(p)) for p in prices]
    if not _fits(options, rows, limits):
        return None
    low, high = -12.0, 12.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        tried = at(10.0**middle)
        if _fits(options, tried, limits):
            rows, high = tried, middle
        else:
            low = middle
    return _filled(options, rows, limits)


def _fits(options: Sequence[Options], rows: Sequence[int], limits: Mapping[str, float]) -> bool:
    return all(total_cost(options, rows, name) <= limit for name, limit in limits.items())


def total_cost(options: Sequence[Options], rows: Sequence[int], name: str) -> int:
    """The sum of a cost over the layers, at the chosen rows."""
    return int(sum(o.costs[name][row] for o, row in zip(options, rows, strict=True)))


def _filled(options: Sequence[Options], rows: list[int], limits: Mapping[str, float]) -> list[int]:
    """Better rows where they still fit, the largest gain first."""
    left = {name: limit - total_cost(options, rows, name) for name, limit in limits.items()}
    while True:
        best, gained = None, 0.0
        for index, layer in enumerate(options):
            gain = layer.loss[rows[index]] - layer.loss
            for name, room in left.items():
                gain = np.where(layer.costs[name] - layer.costs[name][rows[index]] > room, 0, gain)
            row = int(np.argmax(gain))
            if gain[row] > gained:
                best, gained = (index, row), float(gain[row])
        if best is None:
            return rows
        index, row = best
        for name in left:
            column = options[index].costs[name]
            left[name] -= float(column[row] - column[rows[index]])
        rows[index] = row
