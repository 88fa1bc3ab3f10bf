"""The outputs of a fusion when only some of its members are present."""

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
_SCALED = (
    "the weights of the others are scaled to sum 1; without any member, label frequencies are "
    "predicted"
)


class Coalitions(Protocol):
    """A fusion that can be computed for any coalition of its members."""

    @property
    def absence(self) -> str:
        """How the fusion is computed without a member, in words."""
        ...

    @property
    def predictions(self) -> MemberOutputs:
        """The predictions of each member."""
        ...

    def outputs(self, present: Present) -> tuple[Array, ...]:
        """The outputs of the fusion of some members.

        Args:
            present: The members that take part, booleans `(members,)`.
        """
        ...


@dataclass(frozen=True, eq=False)
class MeanCoalitions:
    """A weighted mean: the weights of those present are scaled to sum 1.

    Args:
        predictions: The predictions of each member.
        weights: One for each member, with sum 1.
        prior: The outputs where the weights of those present sum to 0.
    """

    predictions: MemberOutputs = field(repr=False)
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
        members = [self.predictions.outputs[i] for i in used]
        return tuple(_weighted(parts, shares) for parts in zip(*members, strict=True))


def _weighted(parts: Sequence[Array], shares: Sequence[float]) -> Array:
    each = zip(parts, shares, strict=True)
    return np.asarray(sum(share * part.astype(np.float64) for part, share in each))


@dataclass(frozen=True, eq=False)
class PoolCoalitions:
    """A mean of logits or a median: the weights of those present are scaled to sum 1 too.

    Args:
        predictions: The predictions of each member.
        pool: The mean, with one weight for each member.
        prior: The outputs where the weights of those present sum to 0.
    """

    predictions: MemberOutputs = field(repr=False)
    pool: Pool
    prior: tuple[Array, ...] = field(repr=False)
    absence: str = _SCALED

    def outputs(self, present: Present) -> tuple[Array, ...]:
        """The pool of those present, or the prior."""
        indices = [int(i) for i in np.flatnonzero(present)]
        return tuple(
            self._output(pool, indices, parts, prior)
            for pool, parts, prior in zip(
                self.pool.each, zip(*self.predictions.outputs, strict=True), self.prior, strict=True
            )
        )

    def _output(
        self, pool: OutputPool, indices: list[int], parts: Sequence[Array], prior: Array
    ) -> Array:
        used = [i for i in indices if pool.weights[i] > 0]
        if not used:
            return prior
        total = sum(pool.weights[i] for i in used)
        scaled = replace(pool, weights=tuple(weight / total for weight in pool.weights)).of(used)
        (output,) = Pool((scaled,)).predict(MemberOutputs(tuple((parts[i],) for i in used)))
        return output


@dataclass(frozen=True, eq=False)
class ImputedCoalitions:
    """Any other fitted fusion: absent members are replaced by their mean predictions.

    Args:
        predictions: The predictions of each member.
        fusion: Function from the predictions of all members to the outputs.
        means: The mean prediction of each member, arrays of one row.
    """

    predictions: MemberOutputs = field(repr=False)
    fusion: Callable[[MemberOutputs], tuple[Array, ...]] = field(repr=False)
    means: MemberOutputs = field(repr=False)
    absence: str = "its mean prediction is used for every row"

    @classmethod
    def of(
        cls, predictions: MemberOutputs, fusion: Callable[[MemberOutputs], tuple[Array, ...]]
    ) -> ImputedCoalitions:
        """Coalitions with the mean of the predictions for absent members."""
        means = replace(predictions.map(lambda array: array.mean(axis=0, keepdims=True)), raw=())
        return cls(predictions, fusion, means)

    def outputs(self, present: Present) -> tuple[Array, ...]:
        """The fusion of the predictions of those present and the means of the others."""

        def one_imputed(own: Sequence[Any], mean: Sequence[Any], is_there: bool) -> tuple[Any, ...]:
            if is_there:
                return tuple(own)
            return tuple(np.broadcast_to(m, o.shape) for o, m in zip(own, mean, strict=True))

        def imputed(own: Any, mean: Any) -> tuple[tuple[Any, ...], ...]:
            each = zip(own, mean, present, strict=True) if own else ()
            return tuple(one_imputed(*one) for one in each)

        return self.fusion(
            MemberOutputs(
                imputed(self.predictions.outputs, self.means.outputs),
                imputed(self.predictions.features, self.means.features),
                self.predictions.raw,
            )
        )


@dataclass(frozen=True, eq=False)
class CascadeCoalitions:
    """A cascade: absent members are skipped, and the last one present predicts all rows left.

    Args:
        predictions: The predictions of each member.
        exits: The exits of the cascade of all members.
        prior: The outputs without any member.
    """

    predictions: MemberOutputs = field(repr=False)
    exits: Exits
    prior: tuple[Array, ...] = field(repr=False)
    absence: str = (
        "rows go past it, and the last member that is present predicts all that are left; without "
        "any member, label frequencies are predicted"
    )

    def outputs(self, present: Present) -> tuple[Array, ...]:
        """The outputs of the cascade of those present."""
        used = [int(i) for i in np.flatnonzero(present)]
        if not used:
            return self.prior
        thresholds = tuple(self.exits.thresholds[i] for i in used[:-1])
        exits = replace(self.exits, thresholds=thresholds)
        members = [self.predictions.outputs[i][0] for i in used]
        result = np.array(exits.output(members))
        stays = np.ones(len(result), dtype=np.bool_)
        for stage in range(1, len(used)):
            # Confidence is taken of whole columns: rows do not depend on each other.
            goes = stays & exits.leaves(members[:stage])
            result[goes] = exits.output(members[:stage])[goes]
            stays &= ~goes
        return (result,)


@dataclass(frozen=True, eq=False)
class JoinedCoalitions:
    """The coalitions of several folds, each of which has rows of its own.

    Args:
        predictions: The predictions of each member for all rows.
        parts: The row indices of each fold, and its coalitions.
    """

    predictions: MemberOutputs = field(repr=False)
    parts: tuple[tuple[NDArray[np.int64], Coalitions], ...]

    @property
    def absence(self) -> str:
        """The outputs of each fold's coalitions, put together."""
        return self.parts[0][1].absence

    def outputs(self, present: Present) -> tuple[Array, ...]:
        """The outputs of all folds, in the order of the rows."""
        each = [(rows, part.outputs(present)) for rows, part in self.parts]
        shapes = [(len(self.predictions.outputs[0][0]), *part.shape[1:]) for part in each[0][1]]
        whole = tuple(np.empty(shape) for shape in shapes)
        for rows, outputs in each:
            for into, part in zip(whole, outputs, strict=True):
                into[rows] = part
        return whole


def coalitions_of(head: Head, predictions: MemberOutputs, prior: tuple[Array, ...]) -> Coalitions:
    """The coalitions of a fitted fusion head."""
    if isinstance(head, WeightedMean):
        return MeanCoalitions(predictions, head.weights, prior)
    if isinstance(head, ExitHead):
        return CascadeCoalitions(predictions, head.exits, prior)
    if isinstance(head, Pool) and not any(pool.per_class for pool in head.each):
        return PoolCoalitions(predictions, head, prior)
    return ImputedCoalitions.of(predictions, head.predict)
