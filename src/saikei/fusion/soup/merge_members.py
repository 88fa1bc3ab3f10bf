"""The making of a soup: members measured, aligned where that helps, and merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import keras

from saikei.errors import FusionError
from saikei.fusion.soup.alignment import align_members
from saikei.fusion.soup.architecture import Place, Tensors, with_tensors
from saikei.fusion.soup.barrier import Barrier, measure_barrier
from saikei.fusion.soup.mixing import fisher_mix, greedy_mix, mix
from saikei.fusion.soup.scorer import Trial
from saikei.graph import Graph, build
from saikei.merging.methods import Ema, Fisher, Greedy, Linear
from saikei.merging.names import Method


@dataclass(frozen=True, eq=False)
class SoupFit:
    """A soup and how it came about.

    Args:
        model: the merged model.
        weights: of each member in the mean; empty where the method is none.
        barriers: the loss on the way from the first member to each other, as they came; empty
            where it was not measured.
        aligned: likewise after alignment; empty where there was none.
        moved: for each member how many channels took another place; empty without alignment.
        losses: of each member on the data, nats or squared error; empty without data.
        loss: of the soup on the same data; `None` without.
        path: of a greedy soup, the metric after each member that joined.
    """

    model: keras.Model = field(repr=False)
    weights: tuple[float, ...] = ()
    barriers: tuple[Barrier, ...] = ()
    aligned: tuple[Barrier, ...] = ()
    moved: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    loss: float | None = None
    path: tuple[float, ...] = ()

    @property
    def barrier(self) -> float | None:
        """The greatest height that stood between merged members; `None` if not measured."""
        heights = [one.height for one in self.aligned or self.barriers]
        return max(heights, default=None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; without the model."""
        return {
            "weights": list(self.weights),
            "barrier": self.barrier,
            "barriers": [one.to_dict() for one in self.barriers],
            "aligned": [one.to_dict() for one in self.aligned],
            "moved": list(self.moved),
            "losses": list(self.losses),
            "loss": self.loss,
            "path": list(self.path),
        }


@dataclass(frozen=True, eq=False)
class Pot:
    """What a soup is made of, once it is read and checked.

    Args:
        graph: of the first member.
        names: of the members, for messages.
        members: the weights of each, by place.
        base: those of the base, for methods that need one.
        kept: places where the first member's numbers stay.
        trial: on held-out data; `None` without.
        data: the held-out arrays; `None` without.
        losses: of the members on the data; empty without.
    """

    graph: Graph
    names: Sequence[str]
    members: Sequence[Tensors]
    base: Tensors | None
    kept: set[Place]
    trial: Trial | None
    data: Any
    losses: Sequence[float]

    def cook(self, method: Method, align: bool | Literal["auto"], points: int) -> SoupFit:
        """Measure, align, and merge.

        Args:
            method: of merging.
            align: whether channels are put in one order; `"auto"` does it where a wall stands.
            points: on each line between members; 0 measures none.

        Raises:
            FusionError: when a wall stands between members.
        """
        trial = self.trial
        before = self._barriers(self.members, points)
        if align == "auto":
            align = any(barrier.stands for barrier in before)
        aligned = align_members(self.graph, self.members, self.base, trial) if align else None
        members = self.members if aligned is None else aligned.members
        after = () if aligned is None else self._barriers(members, points)
        if not isinstance(method, Greedy):
            # A greedy soup takes only members that it has measured to do good.
            self._refuse_wall(before, after)
        numbers, weights, path = self._mixed(method, members)
        return SoupFit(
            model=build(with_tensors(self.graph, numbers), "soup"),
            weights=weights,
            barriers=before,
            aligned=after,
            moved=() if aligned is None else aligned.moved,
            losses=tuple(self.losses),
            loss=None if trial is None else float(trial.losses(numbers).mean()),
            path=path,
        )

    def _barriers(self, members: Sequence[Tensors], points: int) -> tuple[Barrier, ...]:
        if not points or self.trial is None:
            return ()
        return tuple(
            measure_barrier(self.trial, (1, number), (members[0], other), self.kept, points)
            for number, other in enumerate(members[1:], start=2)
        )

    def _refuse_wall(self, before: Sequence[Barrier], after: Sequence[Barrier]) -> None:
        standing = [barrier for barrier in after or before if barrier.stands]
        if not standing:
            return
        worst = max(standing, key=lambda barrier: barrier.height)
        one, other = worst.members
        told = ""
        if after:
            was = next(b.height for b in before if b.members == worst.members)
            told = f" ({was:.3g} before their channels were aligned)"
        mend = "or use align=True, " if not after else ""
        raise FusionError(
            f"Member {one} ('{self.names[one - 1]}') and member {other} "
            f"('{self.names[other - 1]}') do not lie in one valley: on the line between them the "
            f"loss rises {worst.height:.3g} above their own{told}. Merge models that were "
            f"fine-tuned from one network, {mend}use Average, or insist with check=False."
        )

    def _mixed(
        self, method: Method, members: Sequence[Tensors]
    ) -> tuple[Tensors, tuple[float, ...], tuple[float, ...]]:
        """The weights of the soup, the members' shares, and a greedy soup's path."""
        count = len(members)
        if isinstance(method, Greedy):
            assert self.trial is not None
            found, chosen, path = greedy_mix(method, self.graph, members, self.trial, self.kept)
            shares = tuple(1 / len(chosen) if i in chosen else 0.0 for i in range(count))
            return found, shares, path
        weights: tuple[float, ...] = ()
        if isinstance(method, Fisher):
            merged = fisher_mix(method, self.graph, members, self.data, self.kept)
        else:
            merged = mix(method, self.graph, members, self.base, self.kept)
        if isinstance(method, Ema):
            weights = method.weights(count)
        elif isinstance(method, Linear):
            weights = method.weights or (1 / count,) * count
        return merged if self.trial is None else self.trial.settled(merged), weights, ()
