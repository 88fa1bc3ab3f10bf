"""The plan of an edit that splits layers, which prints as a table, and the splitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from saikei.columns import in_columns
from saikei.edits.lowrank.options import Options
from saikei.graph import Graph, replace_operations, unused_name


@dataclass(frozen=True)
class LayerSplit:
    """How one layer is split.

    Args:
        layer: The name of the layer.
        scheme: `"svd"`, `"channel"`, `"spatial"` or `"depthwise"`.
        rank: The rank of the product, or the depth multiplier where the scheme is depthwise.
        full_rank: The rank at which the product would be exact.
        energy: Share of the kernel's sum of squares that is kept.
        params: The number of parameters of the kernel, before and after.
        macs: Multiply-accumulates per sample, before and after.
    """

    layer: str
    scheme: str
    rank: int
    full_rank: int
    energy: float
    params: tuple[int, int]
    macs: tuple[int, int]

    @property
    def error(self) -> float:
        """Distance between the kernel and the product, relative to the kernel's norm."""
        return float(max(1.0 - self.energy, 0.0) ** 0.5)


@dataclass(frozen=True)
class SplitPlan:
    """Which layers will be split, and which not; printed, it is a table.

    Args:
        splits: One for each layer that is split, in the graph's order.
        left_alone: Why, for every other layer of a kind that could be.
    """

    splits: tuple[LayerSplit, ...]
    left_alone: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [("layer", "scheme", "rank", "energy kept", "params", "MACs")]
        for split in self.splits:
            params, macs = (f"{a:,} → {b:,}" for a, b in (split.params, split.macs))
            rank = f"{split.rank} of {split.full_rank}"
            rows.append((split.layer, split.scheme, rank, f"{split.energy:.1%}", params, macs))
        lines = [in_columns(rows)]
        lines += [f"{name}: left alone, {reason}" for name, reason in self.left_alone.items()]
        return "\n".join(lines)


def planned(
    options: Sequence[Options], rows: Sequence[int], left_alone: Mapping[str, str], kept: str
) -> SplitPlan:
    """The plan of a choice.

    Args:
        options: The options of each layer.
        rows: The index of the chosen option of each layer.
        left_alone: Why other layers are not split, by name.
        kept: Why layers stay that could be split.
    """
    splits, reasons = [], dict(left_alone)
    for layer, row in zip(options, rows, strict=True):
        if row == 0:
            reasons[layer.layer] = kept
            continue
        split = layer.split(row)
        columns = layer.costs["params"], layer.costs["macs"]
        params, macs = ((int(c[0]), int(c[row])) for c in columns)
        splits.append(
            LayerSplit(
                layer=layer.layer,
                scheme=split.scheme,
                rank=int(layer.rank[row]),
                full_rank=split.spectrum.rank,
                energy=1.0 - float(layer.loss[row]),
                params=params,
                macs=macs,
            )
        )
    return SplitPlan(tuple(splits), reasons)


def split_layers(graph: Graph, options: Sequence[Options], rows: Sequence[int]) -> Graph:
    """The graph with the chosen layers split; the last factor keeps the layer's name."""
    chains, taken = {}, set[str]()
    for layer, row in zip(options, rows, strict=True):
        if row > 0:
            first = unused_name(graph, f"{layer.layer}_basis", also=taken)
            taken.add(first)
            chains[layer.layer] = layer.split(row).chain(first, int(layer.rank[row]))
    return replace_operations(graph, chains)
