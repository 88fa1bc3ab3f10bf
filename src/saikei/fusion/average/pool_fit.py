"""How a pool is fitted: temperatures first, then the weights of the calibrated outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from saikei.errors import FusionError
from saikei.fusion.average.class_weights import ClassWeights
from saikei.fusion.average.pooling import (
    CalibratedFit,
    FittedAny,
    How,
    OutputPool,
    Pool,
    Space,
)
from saikei.fusion.evidence import Evidence
from saikei.scoring.links import links_of, logits_of
from saikei.scoring.task import Task
from saikei.scoring.temperature import Temperature, fit_temperature

Learn: TypeAlias = Callable[[Sequence[Task], Sequence[Sequence[Any]], Sequence[Any]], FittedAny]


def equal_pool(
    activations: Sequence[str],
    space: Space | None,
    how: How,
    members: int,
    tasks: Sequence[Task] = (),
) -> Pool:
    """A pool in which all members count the same.

    Args:
        activations: The last activation of each output.
        space: The space of the mean; see `OutputPool`.
        how: Whether the mean or the median is taken; see `OutputPool`.
        members: The number of members.
        tasks: What the outputs learn, where the fit depends on their logits.

    Raises:
        FusionError: When the outputs do not fit the space.
    """
    equal = (1 / members,) * members
    links = links_of(activations, tasks)
    return Pool(tuple(OutputPool(link, space, how, equal) for link in links))


def fit_pool(pool: Pool, evidence: Evidence, calibrate: bool, learn: Learn | None) -> Pool:
    """Fit temperatures, then weights.

    Args:
        pool: Its weights stay where none are learned.
        evidence: Labels and predictions of the members.
        calibrate: Whether temperatures are fitted.
        learn: Finds weights from tasks, predictions and labels; `None` keeps the weights.

    Raises:
        FusionError: When there is nothing to calibrate.
    """
    temperatures = None
    if calibrate:
        pool, temperatures = _calibrated(pool, evidence)
    weights = None
    if learn is not None:
        predictions = pool.prepare(evidence.predictions)
        weights = learn(_pooled_tasks(pool, evidence.tasks), predictions, evidence.labels)
        each = (weights.values,) * len(pool.each)
        pool = pool.weighted(weights.values if isinstance(weights, ClassWeights) else each)
    fitted = weights if temperatures is None else CalibratedFit(temperatures, weights)
    return replace(pool, fitted=fitted)


def _calibrated(
    pool: Pool, evidence: Evidence
) -> tuple[Pool, tuple[tuple[Temperature, ...] | None, ...]]:
    """A pool with the temperatures that fit the evidence best.

    Raises:
        FusionError: When no output is of classes or labels.
    """
    if all(task.kind == "regression" for task in evidence.tasks):
        raise FusionError("A regression has no probabilities to calibrate: leave calibrate out.")
    outputs = zip(*evidence.predictions.outputs, strict=True)
    found = tuple(
        None
        if task.kind == "regression"
        else tuple(fit_temperature(task, logits_of(part, one.link), labels) for part in parts)
        for task, one, parts, labels in zip(
            evidence.tasks, pool.each, outputs, evidence.labels, strict=True
        )
    )
    each = tuple(
        one
        if fitted is None
        else replace(one, temperatures=tuple(temperature.value for temperature in fitted))
        for one, fitted in zip(pool.each, found, strict=True)
    )
    return Pool(each), found


def _pooled_tasks(pool: Pool, tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks of the averaged outputs: in logit space probabilities are logits."""
    return tuple(
        replace(task, from_logits=True) if one.space == "logit" and one.link != "linear" else task
        for one, task in zip(pool.each, tasks, strict=True)
    )
