"""The making of a soup: measure barriers, align channels where that helps, merge weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from saikei.errors import FusionError
from saikei.fusion.base import Fitted, listed
from saikei.fusion.soup.alignment import align_members
from saikei.fusion.soup.architecture import Tensors, WeightName, with_tensors
from saikei.fusion.soup.barrier import Barrier, measure_barrier
from saikei.fusion.soup.mixing import fisher_mix, greedy_mix, mix
from saikei.fusion.soup.scorer import WeightScorer
from saikei.graph import Graph, build
from saikei.merging.methods import Ema, Fisher, Greedy, Linear
from saikei.merging.names import Method


@dataclass(frozen=True, eq=False)
class SoupFit(Fitted):
    """A soup and how it came about.

    Args:
        model: The merged model.
        weights: The weight of each member in the mean; empty where the method is no mean.
        barriers: The loss on the line from the first member to each other member, before
            alignment; empty where it was not measured.
        aligned: The same after alignment; empty where there was none.
        moved: For each member how many channels changed their index; empty without alignment.
        losses: The loss of each member on the data, nats or squared error; empty without data.
        loss: The loss of the soup on the same data; `None` without data.
        path: The metric after each member that a greedy soup added; empty for other soups.
    """

    json_adds: ClassVar[tuple[str, ...]] = ("barrier",)
    weights: tuple[float, ...] = ()
    barriers: tuple[Barrier, ...] = ()
    aligned: tuple[Barrier, ...] = ()
    moved: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    loss: float | None = None
    path: tuple[float, ...] = ()

    @property
    def barrier(self) -> float | None:
        """The highest barrier between the merged members; `None` if not measured."""
        heights = [one.height for one in self.aligned or self.barriers]
        return max(heights, default=None)

    @property
    def summary(self) -> str:
        """The weights of the members, or the losses."""
        if self.weights:
            return f"weights {listed(self.weights)}"
        if self.loss is None:
            return ""
        return f"loss {self.loss:.4f}, of the members alone {listed(self.losses)}"


@dataclass(frozen=True, eq=False)
class PreparedMembers:
    """Members that were read and checked.

    Args:
        graph: The graph of the first member.
        names: The names of the members, for messages.
        weights: The weights of each member, by layer and name.
        base: The weights of the base, for methods that need one; else `None`.
        kept: Names of weights that stay as in the first member.
        scorer: Scores weights on held-out data; `None` without data.
        data: The held-out arrays; `None` without data.
        losses: The loss of each member on the data; empty without data.
    """

    graph: Graph
    names: Sequence[str]
    weights: Sequence[Tensors]
    base: Tensors | None
    kept: set[WeightName]
    scorer: WeightScorer | None
    data: Any
    losses: Sequence[float]


def merge_members(
    members: PreparedMembers, method: Method, align: bool | Literal["auto"], points: int
) -> SoupFit:
    """Measure barriers, align channels, and merge.

    Args:
        members: The members to merge.
        method: How their weights are merged.
        align: Whether channels are put in one order; `"auto"` does it where there is a barrier.
        points: How many points are measured on each line between members; 0 measures none.

    Raises:
        FusionError: When there is a barrier between members.
    """
    graph, scorer = members.graph, members.scorer
    before = _barriers(members, members.weights, points)
    if align == "auto":
        align = any(barrier.significant for barrier in before)
    aligned = align_members(graph, members.weights, members.base, scorer) if align else None
    weights = members.weights if aligned is None else aligned.members
    after = () if aligned is None else _barriers(members, weights, points)
    if not isinstance(method, Greedy):
        # A greedy soup takes only members that lower its measured loss.
        _refuse_barrier(members.names, before, after)
    merged, shares, path = _mixed(members, method, weights)
    return SoupFit(
        model=build(with_tensors(graph, merged), "soup", compiled=True),
        weights=shares,
        barriers=before,
        aligned=after,
        moved=() if aligned is None else aligned.moved,
        losses=tuple(members.losses),
        loss=None if scorer is None else float(scorer.losses(merged).mean()),
        path=path,
    )


def _barriers(
    members: PreparedMembers, weights: Sequence[Tensors], points: int
) -> tuple[Barrier, ...]:
    if not points or members.scorer is None:
        return ()
    return tuple(
        measure_barrier(members.scorer, (1, number), (weights[0], other), members.kept, points)
        for number, other in enumerate(weights[1:], start=2)
    )


def _refuse_barrier(
    names: Sequence[str], before: Sequence[Barrier], after: Sequence[Barrier]
) -> None:
    found = [barrier for barrier in after or before if barrier.significant]
    if not found:
        return
    worst = max(found, key=lambda barrier: barrier.height)
    one, other = worst.members
    earlier = ""
    if after:
        was = next(b.height for b in before if b.members == worst.members)
        earlier = f"; {was:.3g} before their channels were aligned"
    fix = "" if after else "or use Soup(align=True), "
    raise FusionError(
        f"Member {one} ('{names[one - 1]}') and member {other} ('{names[other - 1]}') cannot be "
        f"averaged: between them the loss is {worst.height:.3g} higher (a loss barrier{earlier}). "
        f"Merge models that were fine-tuned from one network, {fix}use Average, or skip this check "
        "with Soup(check=False)."
    )


def _mixed(
    members: PreparedMembers, method: Method, weights: Sequence[Tensors]
) -> tuple[Tensors, tuple[float, ...], tuple[float, ...]]:
    """The weights of the soup, the members' shares of it, and a greedy soup's path."""
    count, graph, scorer = len(weights), members.graph, members.scorer
    if isinstance(method, Greedy):
        assert scorer is not None
        found, chosen, path = greedy_mix(method, graph, weights, scorer, members.kept)
        shares = tuple(1 / len(chosen) if i in chosen else 0.0 for i in range(count))
        return found, shares, path
    if isinstance(method, Fisher):
        merged = fisher_mix(method, graph, weights, members.data, members.kept)
    else:
        merged = mix(method, graph, weights, members.base, members.kept)
    shares = ()
    if isinstance(method, Ema):
        shares = method.weights(count)
    elif isinstance(method, Linear):
        shares = method.weights or (1 / count,) * count
    return merged if scorer is None else scorer.recalibrated(merged), shares, ()
