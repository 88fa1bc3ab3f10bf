"""`explain`: what each member of a fusion is worth, or what the parts of one model contribute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from saikei.arguments import checked
from saikei.batches import Array
from saikei.errors import FusionError
from saikei.fusion.average import Average
from saikei.fusion.average.weighted_mean import WeightedMean
from saikei.fusion.average.weights import finite
from saikei.fusion.base import Fusion, OutputFusion
from saikei.fusion.evidence import Evidence, MemberOutputs, gather
from saikei.fusion.members import AnyMembers, Members
from saikei.hub import runs_tasks
from saikei.judging.explaining.coalitions import (
    Coalitions,
    JoinedCoalitions,
    MeanCoalitions,
    coalitions_of,
)
from saikei.judging.explaining.comparison import compare_outputs
from saikei.judging.explaining.explanation import Explanation, MemberPart
from saikei.judging.explaining.games import Metric, game_of
from saikei.judging.explaining.one_model import explain_model
from saikei.judging.explaining.recover_members import (
    check_held_out,
    find_members,
    recover_members,
)
from saikei.judging.explaining.removable import losses_without, removable
from saikei.judging.explaining.shapley import shapley
from saikei.judging.nested import Nest
from saikei.merging.checks import checked_weights
from saikei.runs.explained import ModelExplanation
from saikei.scoring.labelled import Labelled
from saikei.scoring.labels import Labels
from saikei.scoring.task import Task, labels_of

ORDERS = 512


@checked
@runs_tasks("fused original", data=("data",))
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
    original: keras.Model | None = None,
    class_names: Sequence[str] | None = None,
) -> Explanation | ModelExplanation:
    """Explain what each member of a fusion is worth, or what one model is made of and looks at.

    One model that no fusion made gets a `ModelExplanation`: for each channel group how much the
    metric grows when a quarter, half and three quarters of its channels are removed; and by
    gradient times input and Grad-CAM, what it looks at, beside what `original` looks at.

    The members of a fusion: up to 12 have exact Shapley values, over all coalitions; more have
    values over drawn orders of joining, with standard errors. How a fusion is computed without a
    member is in `Explanation.absence`: a mean scales the weights of the others to sum 1, and
    without any member predicts the label frequencies; a cascade skips absent members; any other
    fusion gets an absent member's mean prediction.

    Args:
        fused: A model that `Average`, `Cascade`, `Multimodal` or `Stack` made, loaded from a file
            or not; members of weight 0 have been left out of it. Or its members: two or more
            models, or what `cross_fit` gives. Or any other model, which is explained alone.
        data: `(x, y)` arrays or a dataset that neither members nor fusion were fitted to; `None`
            with what `cross_fit` gives. For one model, it may be without labels: the predictions
            of the original, or else of the model, then take their place.
        fusion: The fusion of the members, where members are given: any `OutputFusion`, such as
            `Average`, `Stack`, `Cascade` or `BestMember`; an equal average by default. A fusion
            that is fitted is fitted for each fold to the other folds.
        metric: `"loss"`, log-loss or squared error, summed over outputs; or `"accuracy"`, of one
            output with classes.
        folds: The number of folds or a scikit-learn splitter, as in `nested_score`.
        orders: How many orders of joining to draw for more than 12 members.
        seed: Seed of the orders and the folds.
        allow_in_sample: Explain even on rows that a part was trained on.
        original: A model of the same inputs and outputs, such as the one that `fused` was made
            from; with it, `fused` is explained as one model even where it has members.
        class_names: Names of the classes in the order of their numbers; `None` shows numbers.

    Raises:
        FusionError: When the members do not fit each other, the fusion cannot be explained, or a
            part was trained on some of the data.
        InputError: When `original` has other inputs or outputs.
        DataError: When the data does not fit the members or the model.

    Example:
        >>> import numpy as np
        >>> from saikei import Average
        >>> nets = [
        ...     keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
        ...     for _ in range(3)
        ... ]
        >>> x, y = np.ones((9, 4), "float32"), np.arange(9) % 3
        >>> explained = explain(Average()(nets), (x, y))
        >>> gain = explained.without_members - explained.with_all
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
        if data is None:
            raise FusionError("There is no data: call explain(model, (x, y)) with held-out data.")
        parts = find_members(fused) if original is None else None
        if parts is None:
            if not allow_in_sample:
                check_held_out(fused, data)
            return explain_model(
                fused, data, original=original, metric=metric, class_names=class_names or ()
            )
        tasks, labels, coalitions, names = recover_members(fused, parts, data, allow_in_sample)
        found = _explained(tasks, labels, coalitions, names, metric, orders, seed)
        return replace(found, class_names=tuple(class_names or ()))
    if original is not None:
        raise FusionError("original= is for one model: leave it out, or give a model.")
    fusion = Average() if fusion is None else fusion
    if not isinstance(fusion, OutputFusion):
        raise FusionError(
            f"{type(fusion).__name__} is not a function of its members' outputs that could be "
            "fitted to each fold: fuse the members, and explain the fused model with data that it "
            "was not fitted to."
        )
    members = Members.of(fused)
    names = members.names
    if fusion.data == "none":
        evidence = gather(members, data, allow_in_sample)
        coalitions = coalitions_of(
            fusion.fit_head(evidence), evidence.predictions, _prior(evidence)
        )
    else:
        nest = Nest.of([fusion], members, data, folds, seed, allow_in_sample)
        evidence, coalitions = _joined(fusion, nest)
    found = _explained(evidence.tasks, evidence.labels, coalitions, names, metric, orders, seed)
    return replace(found, class_names=tuple(class_names or ()))


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
        tasks: What the output learns, or one for each output.
        predictions: One entry for each member: `(n, …, outputs)`, or for several outputs a list
            of such arrays. They should come from data that no member was trained on.
        y: Labels, or a list of labels for each output.
        weights: One weight for each member; equal ones when not given.
        names: The names of the members; `member_1` and so on when not given.
        metric: The metric that the values add up to, as in `explain`.
        orders: The number of random orders, as in `explain`.
        seed: Seed of the orders.

    Raises:
        FusionError: When there are fewer than two members, or an argument is out of range.
        DataError: When predictions are not finite, or do not fit each other or the labels.
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
    given_outputs = MemberOutputs(members)
    coalitions = coalitions_of(
        WeightedMean(given), given_outputs, Labelled.of(tasks, labels).prior(members[0])
    )
    return _explained(tuple(tasks), labels, coalitions, names, metric, orders, seed)


def _joined(fusion: OutputFusion[Any], nest: Nest) -> tuple[Evidence, Coalitions]:
    """Evidence of the rows of all folds, and coalitions fitted for each fold to the others."""
    rows = np.sort(np.concatenate([fold.test for fold in nest.folds]))
    evidence = nest.evidence.take(rows)
    prior = _prior(evidence)
    ready, parts = fusion.ready(nest.evidence), []
    for fold in nest.folds:
        here = np.searchsorted(rows, fold.test)
        fitted = ready.fit_head(nest.evidence.take(fold.train))
        predictions = evidence.take(here).predictions
        parts.append((here, coalitions_of(fitted, predictions, tuple(one[here] for one in prior))))
    return evidence, JoinedCoalitions(evidence.predictions, tuple(parts))


def _prior(evidence: Evidence) -> tuple[Array, ...]:
    return evidence.labelled.prior(evidence.predictions.outputs[0])


def _check_orders(orders: object) -> None:
    if isinstance(orders, bool) or not isinstance(orders, int) or orders < 1:
        raise FusionError(f"orders={orders!r}: give a whole number of at least 1.")


def _explained(
    tasks: tuple[Task, ...],
    labels: tuple[Labels, ...],
    coalitions: Coalitions,
    names: Sequence[str],
    metric: Metric,
    orders: int,
    seed: int,
) -> Explanation:
    """Compute the explanation from the fused outputs of all coalitions.

    Args:
        tasks: What each output learns.
        labels: The labels of each output.
        coalitions: The fused outputs for any coalition.
        names: The names of the members.
        metric: The loss that members lower.
        orders: How many orders to draw, where there are too many members for exact values.
        seed: Seed of the orders.

    Raises:
        FusionError: When the metric is unknown, or there is none like it of the tasks.
        DataError: When predictions do not fit the labels.
    """
    game = game_of(tasks, labels, coalitions, metric)
    count = game.members
    shared = shapley(game, orders, seed)
    without = losses_without(game, [(i,) for i in range(count)])
    gone = removable(game)
    fused = coalitions.outputs(np.ones(count, dtype=np.bool_))
    weights = _weights(coalitions)
    parts = tuple(
        MemberPart(
            name=str(names[i]),
            alone=Labelled.of(tasks, labels).score(coalitions.predictions.outputs[i]),
            shapley=float(shared.values[i]),
            error=float(shared.errors[i]),
            sampling_error=float(shared.sampling_errors[i]),
            without=without[i],
            weight=None if weights is None else float(weights[i]),
            can_go=i in gone.members,
        )
        for i in range(count)
    )
    views = tuple(
        compare_outputs(
            task, y, [member[index] for member in coalitions.predictions.outputs], fused[index]
        )
        for index, (task, y) in enumerate(zip(tasks, labels, strict=True))
    )
    return Explanation(
        metric=_metric_name(tasks, metric),
        members=parts,
        fused=Labelled.of(tasks, labels).score(fused),
        with_all=shared.with_all,
        without_members=shared.without_members,
        removable=gone,
        outputs=views,
        absence=coalitions.absence,
        orders=shared.orders,
    )


def _weights(coalitions: Coalitions) -> Array | None:
    if isinstance(coalitions, MeanCoalitions):
        return np.array(coalitions.weights)
    if isinstance(coalitions, JoinedCoalitions):
        each = [_weights(part) for _, part in coalitions.parts]
        known = [one for one in each if one is not None]
        return np.mean(known, axis=0) if len(known) == len(each) else None
    return None


def _metric_name(tasks: Sequence[Task], metric: Metric) -> str:
    if metric == "accuracy":
        return "error rate"
    if len(tasks) > 1:
        return "loss"
    return "squared error" if tasks[0].kind == "regression" else "log-loss"
