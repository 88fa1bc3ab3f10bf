"""From the weights of members to those of their soup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saikei.errors import FusionError
from saikei.fusion.soups.architecture import Place, Tensors, statistics, with_tensors
from saikei.fusion.soups.information import fisher_information
from saikei.fusion.soups.trial import Trial
from saikei.graph import Graph
from saikei.merging.fitted import Fisher, Greedy
from saikei.merging.kernels import fisher
from saikei.merging.methods import Ema, Linear, Merge


def mix(
    method: Merge, graph: Graph, members: Sequence[Tensors], base: Tensors | None, kept: set[Place]
) -> Tensors:
    """Merge weights tensor by tensor.

    Moving statistics are no differences that were learned: methods of differences and angles
    leave them to the mean.

    Args:
        method: of merging.
        graph: of the first member.
        members: the weights of each.
        base: those of the base, for methods that need one.
        kept: places where the first member's numbers stay.

    Raises:
        FusionError: naming the weight that does not fit the method, or is not finite.
    """
    method.check_count(len(members))
    plain = method if isinstance(method, (Linear, Ema)) else Linear()
    measured = statistics(graph)
    merged = dict(members[0])
    for place in members[0].keys() - kept:
        arrays = [numbers[place] for numbers in members]
        one = plain if place in measured else method
        try:
            merged[place] = one.tensor(
                "/".join(place), arrays, base[place] if base is not None else None
            )
        except FusionError as error:
            raise FusionError(f"'{place[1]}' of layer '{place[0]}': {error}") from error
    return merged


def fisher_mix(
    method: Fisher, graph: Graph, members: Sequence[Tensors], data: Any, kept: set[Place]
) -> Tensors:
    """The mean of weights by their Fisher information on data."""
    known = [
        fisher_information(with_tensors(graph, numbers), data, method.samples)
        for numbers in members
    ]
    merged = mix(Linear(), graph, members, None, kept)
    for place in merged.keys() - kept - statistics(graph):
        information = [one[place] for one in known]
        merged[place] = fisher([numbers[place] for numbers in members], information)
    return merged


def greedy_mix(
    method: Greedy, graph: Graph, members: Sequence[Tensors], trial: Trial, kept: set[Place]
) -> tuple[Tensors, tuple[int, ...], tuple[float, ...]]:
    """The greedy soup.

    Returns:
        Its weights, the places of the members in it, in the order in which they joined, and the
        metric after each.
    """

    def cost(numbers: Tensors) -> float:
        score = trial.score(numbers)
        if method.metric == "loss":
            return score.loss
        return -score.value if score.greater_is_better else score.value

    alone = [cost(numbers) for numbers in members]
    first, *others = sorted(range(len(members)), key=lambda place: (alone[place], place))
    chosen, best, soup = [first], alone[first], members[first]
    path = [best]
    for place in others:
        tried = [members[one] for one in (*chosen, place)]
        mean = trial.settled(mix(Linear(), graph, tried, None, kept))
        reached = cost(mean)
        if reached <= best:
            chosen.append(place)
            best, soup = reached, mean
            path.append(reached)
    sign = -1 if method.metric == "accuracy" and trial.tasks[0].greater_is_better else 1
    return soup, tuple(chosen), tuple(sign * one for one in path)
