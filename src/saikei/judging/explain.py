"""`explain`: what each member of a fusion is worth, and which can go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from saikei.batches import Array
from saikei.errors import FusionError
from saikei.fusion.average import Average
from saikei.fusion.average.weighted_mean import WeightedMean
from saikei.fusion.average.weights import finite
from saikei.fusion.base import Fusion, OutputFusion
from saikei.fusion.evidence import Evidence, MemberOutputs, gather
from saikei.fusion.members import AnyMembers, Members
from saikei.judging.explaining.coalitions import JoinedTeam, Team, team_of
from saikei.judging.explaining.conclude import conclude
from saikei.judging.explaining.explanation import Explanation
from saikei.judging.explaining.games import Metric
from saikei.judging.explaining.recover_members import take_apart
from saikei.judging.nested import Nest
from saikei.merging.checks import checked_weights
from saikei.scoring.labelled import Labelled
from saikei.scoring.task import Task, labels_of

ORDERS = 512


def explain(
    fused: keras.Model | AnyMembers,
    data: Any = None,
    *,
    fusion: Fusion | None = None,
    metric: Metric = "loss",
    folds: Any = None,
    orders: int = ORDERS,
    seed: int = 0,
    allow_in_sample: bool = False,
) -> Explanation:
    """Explain what each member of a fusion is worth, on held-out data.

    Up to 12 members have exact Shapley values, over all coalitions; more have values over drawn
    orders of arrival, with standard errors. What a coalition says depends on the fusion, and
    stands in `Explanation.absence`: a mean scales the weights of those present to sum 1, and
    without anybody says how often each label occurs; a cascade goes past absent members; any
    other fusion hears of an absent member what that says on average.

    Args:
        fused: a model that `Average`, `Cascade`, `Multimodal` or `Stack` made, loaded from a file
            or not; members of weight 0 have been left out of it. Or its members: two or more
            models, or what `cross_fit` gives.
        data: `(x, y)` arrays or a dataset that neither members nor fusion were fitted to; `None`
            with what `cross_fit` gives.
        fusion: of the members, where they are given: `Average`, `Stack`, `Cascade` or
            `BestMember`; an equal average by default. One that is fitted is fitted, for each fold,
            to the other folds.
        metric: `"loss"`, log-loss or squared error, summed over outputs; or `"accuracy"`, of one
            output with classes.
        folds: as in `nested_score`.
        orders: how many to draw for more than 12 members.
        seed: of orders and folds.
        allow_in_sample: explain even on rows that a part was trained on.

    Raises:
        FusionError: when the members cannot be found in the model or do not fit each other, the
            fusion cannot be explained, or a part was trained on some of the data.
        DataError: when the data does not fit the members.

    Example:
        >>> import numpy as np
        >>> from saikei import Average
        >>> nets = [
        ...     keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
        ...     for _ in range(3)
        ... ]
        >>> x, y = np.ones((9, 4), "float32"), np.arange(9) % 3
        >>> explained = explain(Average()(nets), (x, y))
        >>> gain = explained.nobody - explained.everybody
        >>> bool(np.isclose(sum(member.shapley for member in explained.members), gain))
        True
    """
    _check_orders(orders)
    if isinstance(fused, keras.Model):
        if fusion is not None:
            raise FusionError(
                f"fusion={type(fusion).__name__} is given beside a fused model: leave it out, or "
                "give a list of members."
            )
        tasks, labels, team, names = take_apart(fused, data, allow_in_sample)
        return conclude(tasks, labels, team, names, metric, orders, seed)
    fusion = Average() if fusion is None else fusion
    if not isinstance(fusion, OutputFusion):
        raise FusionError(
            f"{type(fusion).__name__} is not a function of what its members say, or has no form "
            "that is fitted anew for each fold: fuse the members, and explain the fused model "
            "with data that it was not fitted to."
        )
    members = Members.of(fused)
    names = members.names
    if fusion.data == "none":
        evidence = gather(members, data, allow_in_sample)
        team = team_of(fusion.fit_head(evidence), evidence.predictions, _prior(evidence))
    else:
        nest = Nest.of([fusion], members, data, folds, seed, allow_in_sample)
        evidence, team = _joined(fusion, nest)
    return conclude(evidence.tasks, evidence.labels, team, names, metric, orders, seed)


def explain_predictions(
    tasks: Task | Sequence[Task],
    predictions: Sequence[Any],
    y: Any,
    weights: Sequence[float] | None = None,
    *,
    names: Sequence[str] | None = None,
    metric: Metric = "loss",
    orders: int = ORDERS,
    seed: int = 0,
) -> Explanation:
    """Explain a weighted mean of stored predictions.

    Args:
        tasks: what the output learns, or one for each output.
        predictions: one entry for each member: `(n, …, outputs)`, or for several outputs a list
            of such arrays. They should come from data that no member was trained on.
        y: labels, or a list of labels for each output.
        weights: one for each member; equal ones when not given.
        names: of the members.
        metric: as in `explain`.
        orders: as in `explain`.
        seed: of the orders.

    Raises:
        FusionError: when there are fewer than two members, or an argument is out of range.
        DataError: when predictions are not finite, or do not fit each other or the labels.
    """
    if isinstance(tasks, Task):
        tasks, predictions, y = (tasks,), [[one] for one in predictions], [y]
    _check_orders(orders)
    count = len(predictions)
    if count < 2:
        raise FusionError(f"There are {count} members to explain: give at least two.")
    members = tuple(tuple(finite(one, n)) for n, one in enumerate(predictions, start=1))
    given = checked_weights(tuple(weights)) if weights is not None else (1 / count,) * count
    names = [f"member_{n}" for n in range(1, count + 1)] if names is None else names
    for what, several in (("weights", given), ("names", names)):
        if len(several) != count:
            raise FusionError(
                f"{len(several)} {what} are given for {count} members: give one for each."
            )
    labels = tuple(labels_of(*one) for one in zip(tasks, members[0], y, strict=True))
    said = MemberOutputs(members)
    team = team_of(WeightedMean(given), said, Labelled.of(tasks, labels).prior(members[0]))
    return conclude(tuple(tasks), labels, team, names, metric, orders, seed)


def _joined(fusion: OutputFusion[Any], nest: Nest) -> tuple[Evidence, Team]:
    """Evidence of the rows of all folds, and the teams of the folds, each fitted to the others."""
    rows = np.sort(np.concatenate([fold.test for fold in nest.folds]))
    evidence = nest.evidence.take(rows)
    prior = _prior(evidence)
    ready, parts = fusion.ready(nest.evidence), []
    for fold in nest.folds:
        here = np.searchsorted(rows, fold.test)
        fitted = ready.fit_head(nest.evidence.take(fold.train))
        said = evidence.take(here).predictions
        parts.append((here, team_of(fitted, said, tuple(one[here] for one in prior))))
    return evidence, JoinedTeam(evidence.predictions, tuple(parts))


def _prior(evidence: Evidence) -> tuple[Array, ...]:
    return evidence.labelled.prior(evidence.predictions.outputs[0])


def _check_orders(orders: object) -> None:
    if isinstance(orders, bool) or not isinstance(orders, int) or orders < 1:
        raise FusionError(f"orders={orders!r}: give a whole number of at least 1.")
