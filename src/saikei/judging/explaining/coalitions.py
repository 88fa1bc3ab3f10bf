"""What a fusion says when only some of its members are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saikei.batches import Array
from saikei.fusion.average.pooling import OutputPool, Pool
from saikei.fusion.average.weighted_mean import WeightedMean
from saikei.fusion.base import Head
from saikei.fusion.cascade.fitting import ExitHead
from saikei.fusion.evidence import MemberOutputs
from saikei.models import Exits

Present: TypeAlias = NDArray[np.bool_]
_SCALED = "the weights of the others are scaled to sum 1; without any of them, the prior is said"


class Team(Protocol):
    """Members whose fusion can be asked without some of them."""

    @property
    def absence(self) -> str:
        """What it means that a member is absent, in words."""
        ...

    @property
    def said(self) -> MemberOutputs:
        """What each member says."""
        ...

    def outputs(self, present: Present) -> tuple[Array, ...]:
        """What the fusion of the members that are present says.

        Args:
            present: `(members,)`.
        """
        ...


@dataclass(frozen=True, eq=False)
class MeanTeam:
    """A weighted mean: the weights of those present are scaled to sum 1.

    Args:
        said: what each member says.
        weights: one for each member, with sum 1.
        prior: what is said where the weights of those present sum to 0.
    """

    said: MemberOutputs = field(repr=False)
    weights: tuple[float, ...]
    prior: tuple[Array, ...] = field(repr=False)
    absence: str = _SCALED

    def outputs(self, present: Present) -> tuple[Array, ...]:
        """The mean of those present, or the prior."""
        used = [int(i) for i in np.flatnonzero(present) if self.weights[i] > 0]
        if not used:
            return self.prior
        total = sum(self.weights[i] for i in used)
        shares = [self.weights[i] / total for i in used]
        members = [self.said.outputs[i] for i in used]
        return tuple(_weighted(parts, shares) for parts in zip(*members, strict=True))


def _weighted(parts: Sequence[Array], shares: Sequence[float]) -> Array:
    each = zip(parts, shares, strict=True)
    return np.asarray(sum(share * part.astype(np.float64) for part, share in each))


@dataclass(frozen=True, eq=False)
class PoolTeam:
    """Another pool, in logit space or a median: likewise.

    Args:
        said: what each member says.
        pool: of one weight for each member.
        prior: what is said where the weights of those present sum to 0.
    """

    said: MemberOutputs = field(repr=False)
    pool: Pool
    prior: tuple[Array, ...] = field(repr=False)
    absence: str = _SCALED

    def outputs(self, present: Present) -> tuple[Array, ...]:
        """What those present say together, or the prior."""
        places = [int(i) for i in np.flatnonzero(present)]
        return tuple(
            self._output(pool, places, parts, prior)
            for pool, parts, prior in zip(
                self.pool.each, zip(*self.said.outputs, strict=True), self.prior, strict=True
            )
        )

    def _output(
        self, pool: OutputPool, places: list[int], parts: Sequence[Array], prior: Array
    ) -> Array:
        used = [i for i in places if pool.weights[i] > 0]
        if not used:
            return prior
        total = sum(pool.weights[i] for i in used)
        scaled = replace(pool, weights=tuple(weight / total for weight in pool.weights)).of(used)
        (output,) = Pool((scaled,)).predict(MemberOutputs(tuple((parts[i],) for i in used)))
        return output


@dataclass(frozen=True, eq=False)
class ImputedTeam:
    """Any fusion that has been fitted: absent members say what they say on average.

    Args:
        said: what each member says.
        fusion: outputs from what all members say.
        means: what each member says on average.
    """

    said: MemberOutputs = field(repr=False)
    fusion: Callable[[MemberOutputs], tuple[Array, ...]] = field(repr=False)
    means: MemberOutputs = field(repr=False)
    absence: str = "it says of every row what it says on average"

    @classmethod
    def of(
        cls, said: MemberOutputs, fusion: Callable[[MemberOutputs], tuple[Array, ...]]
    ) -> ImputedTeam:
        """A team whose means are those of what is said."""
        means = replace(said.map(lambda array: array.mean(axis=0, keepdims=True)), raw=())
        return cls(said, fusion, means)

    def outputs(self, present: Present) -> tuple[Array, ...]:
        """What the fusion makes of those present and of the means of the others."""

        def heard(own: Sequence[Any], mean: Sequence[Any], there: bool) -> tuple[Any, ...]:
            if there:
                return tuple(own)
            return tuple(np.broadcast_to(m, o.shape) for o, m in zip(own, mean, strict=True))

        def all_heard(own: Any, mean: Any) -> tuple[tuple[Any, ...], ...]:
            each = zip(own, mean, present, strict=True) if own else ()
            return tuple(heard(*one) for one in each)

        return self.fusion(
            MemberOutputs(
                all_heard(self.said.outputs, self.means.outputs),
                all_heard(self.said.features, self.means.features),
                self.said.raw,
            )
        )


@dataclass(frozen=True, eq=False)
class CascadeTeam:
    """A cascade: absent members are skipped, and the last one present answers what is left.

    Args:
        said: what each member says.
        exits: of all members.
        prior: what is said when nobody is there.
    """

    said: MemberOutputs = field(repr=False)
    exits: Exits
    prior: tuple[Array, ...] = field(repr=False)
    absence: str = (
        "rows go past it, and the last member that is there keeps what is left; without any "
        "member, the prior is said"
    )

    def outputs(self, present: Present) -> tuple[Array, ...]:
        """What the cascade of those present says."""
        used = [int(i) for i in np.flatnonzero(present)]
        if not used:
            return self.prior
        thresholds = tuple(self.exits.thresholds[i] for i in used[:-1])
        exits = replace(self.exits, thresholds=thresholds)
        members = [self.said.outputs[i][0] for i in used]
        result = np.array(exits.output(members))
        stays = np.ones(len(result), dtype=np.bool_)
        for stage in range(1, len(used)):
            # Confidence is taken of whole columns: rows do not depend on each other.
            goes = stays & exits.leaves(members[:stage])
            result[goes] = exits.output(members[:stage])[goes]
            stays &= ~goes
        return (result,)


@dataclass(frozen=True, eq=False)
class JoinedTeam:
    """Rows of which each belongs to the team of one fold.

    Args:
        said: what each member says of all rows.
        parts: the rows of each team, and the team.
    """

    said: MemberOutputs = field(repr=False)
    parts: tuple[tuple[NDArray[np.int64], Team], ...]

    @property
    def absence(self) -> str:
        """As in each fold."""
        return self.parts[0][1].absence

    def outputs(self, present: Present) -> tuple[Array, ...]:
        """The outputs of all teams, in the order of the rows."""
        each = [(rows, team.outputs(present)) for rows, team in self.parts]
        shapes = [(len(self.said.outputs[0][0]), *part.shape[1:]) for part in each[0][1]]
        whole = tuple(np.empty(shape) for shape in shapes)
        for rows, outputs in each:
            for into, part in zip(whole, outputs, strict=True):
                into[rows] = part
        return whole


def team_of(combiner: Head, said: MemberOutputs, prior: tuple[Array, ...]) -> Team:
    """The team of a fusion that combines what members say.

    Args:
        combiner: fitted.
        said: of the rows to be explained.
        prior: see `Labelled.prior`.
    """
    if isinstance(combiner, WeightedMean):
        return MeanTeam(said, combiner.weights, prior)
    if isinstance(combiner, ExitHead):
        return CascadeTeam(said, combiner.exits, prior)
    if isinstance(combiner, Pool) and not any(pool.per_class for pool in combiner.each):
        return PoolTeam(said, combiner, prior)
    return ImputedTeam.of(said, combiner.predict)
