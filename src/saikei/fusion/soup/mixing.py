"""The methods of merging, applied to all weights of the members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import tree

from saikei.calibration.samples import calibration_samples
from saikei.errors import FusionError
from saikei.fusion.soup.architecture import Tensors, WeightName, statistics, with_tensors
from saikei.fusion.soup.scorer import WeightScorer, variables_of
from saikei.graph import Graph, build
from saikei.importance.from_gradients import BATCH
from saikei.importance.gradients import weight_gradients
from saikei.importance.objective import objective
from saikei.merging.kernels import fisher
from saikei.merging.methods import Ema, Fisher, Greedy, Linear, Merge
from saikei.tensors import to_floats


def mix(
    method: Merge,
    graph: Graph,
    members: Sequence[Tensors],
    base: Tensors | None,
    kept: set[WeightName],
) -> Tensors:
    """Merge weights tensor by tensor.

    Moving statistics are averaged: methods of differences and angles are for weights that were
    learned.

    Args:
        method: How tensors are merged.
        graph: The graph of the first member.
        members: The weights of each member.
        base: The weights of the base, for methods that need one; else `None`.
        kept: Names of weights that stay as in the first member.

    Raises:
        FusionError: Naming the weight that does not fit the method, or is not finite.
    """
    method.check_count(len(members))
    plain = method if isinstance(method, (Linear, Ema)) else Linear()
    measured = statistics(graph)
    merged = dict(members[0])
    for key in members[0].keys() - kept:
        arrays = [numbers[key] for numbers in members]
        one = plain if key in measured else method
        try:
            merged[key] = one.tensor("/".join(key), arrays, base[key] if base is not None else None)
        except FusionError as error:
            raise FusionError(f"'{key[1]}' of layer '{key[0]}': {error}") from error
    return merged


def fisher_mix(
    method: Fisher, graph: Graph, members: Sequence[Tensors], data: Any, kept: set[WeightName]
) -> Tensors:
    """The mean of the members, each number weighted by its Fisher information on data."""
    known = [
        fisher_information(with_tensors(graph, numbers), data, method.samples)
        for numbers in members
    ]
    merged = mix(Linear(), graph, members, None, kept)
    for key in merged.keys() - kept - statistics(graph):
        information = [one[key] for one in known]
        merged[key] = fisher([numbers[key] for numbers in members], information)
    return merged


def greedy_mix(
    method: Greedy,
    graph: Graph,
    members: Sequence[Tensors],
    scorer: WeightScorer,
    kept: set[WeightName],
) -> tuple[Tensors, tuple[int, ...], tuple[float, ...]]:
    """The greedy soup.

    Returns:
        The weights of the soup, the indices of its members in the order in which they were added,
        and the metric after each of them.
    """

    def cost(numbers: Tensors) -> float:
        score = scorer.score(numbers)
        if method.metric == "loss":
            return score.loss
        return -score.value if score.greater_is_better else score.value

    alone = [cost(numbers) for numbers in members]
    first, *others = sorted(range(len(members)), key=lambda index: (alone[index], index))
    chosen, best, soup = [first], alone[first], members[first]
    path = [best]
    for index in others:
        tried = [members[one] for one in (*chosen, index)]
        mean = scorer.recalibrated(mix(Linear(), graph, tried, None, kept))
        reached = cost(mean)
        if reached <= best:
            chosen.append(index)
            best, soup = reached, mean
            path.append(reached)
    greater = scorer.labelled.tasks[0].greater_is_better
    sign = -1 if method.metric == "accuracy" and greater else 1
    return soup, tuple(chosen), tuple(sign * one for one in path)


def fisher_information(graph: Graph, data: Any, samples: int) -> Tensors:
    """`E[(∂L/∂w)²]` for each weight, over gradients of a few samples at a time.

    The diagonal of the empirical Fisher matrix: how much the loss depends on each weight.

    Args:
        graph: The graph of a member, with its weights.
        data: `(x, y)` arrays.
        samples: How many rows are used; the same rows at every call.

    Raises:
        EditError: When the labels do not fit the outputs.
    """
    model = build(graph)
    chosen = calibration_samples(graph, data, samples)
    first, labels = tree.map_structure(lambda a: a[: 4 * BATCH], chosen.with_labels())
    outputs = [to_floats(o) for o in tree.flatten(model(first, training=False))]
    gradients_of = weight_gradients(model, objective(outputs, labels, graph.marks))
    parts = chosen.inputs, chosen.truths()
    position = {id(weight): number for number, weight in enumerate(model.weights)}
    total = [np.zeros(weight.shape, np.float64) for weight in model.weights]
    steps = range(0, len(chosen) - len(chosen) % BATCH or len(chosen), BATCH)
    for start in steps:
        x, truths = tree.map_structure(lambda a, at=start: a[at : at + BATCH], parts)
        for sum_, gradient in zip(total, gradients_of(x, truths), strict=True):
            sum_ += np.square(gradient, dtype=np.float64)
    variables = variables_of(graph, model)
    return {where: total[position[id(v)]] / len(steps) for where, v in variables.items()}
