"""Which candidates go on to the next rung."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from saikei.runs.front import goodness
from saikei.scoring.labelled import Labelled, Outputs
from saikei.search.race.plan import Plan, RungResult

# Ranks flip while networks are distilled, so that the last of a family is safe up to this rung.
SAFE_RUNGS = 3
# Of equal metrics, the one with the lower loss is better.
_LOSS_SHARE = 1e-6


@dataclass(frozen=True, eq=False)
class Racer:
    """A candidate in the race.

    Args:
        plan: What it is.
        epoch: Number of epochs that it is trained for.
        result: The result of its last part, without the state, which is not kept here, and with
            the score before any training.
    """

    plan: Plan
    epoch: int
    result: RungResult


# For each candidate, how much it adds; more is better.
Value = Callable[[Sequence[Racer]], Sequence[float]]


def promoted(
    racers: Sequence[Racer],
    values: Mapping[str, float],
    places: int,
    gone_on: Sequence[str],
    safe: bool,
) -> tuple[Racer, ...]:
    """The candidates that go on to the next rung, the most valuable first.

    Args:
        racers: All candidates that have finished the rung, also those that went on before.
        values: What each of them adds, by name.
        places: Number of candidates that go on now.
        gone_on: Names of those that went on before.
        safe: Whether the best of each family that has none in the next rung goes first.
    """
    order = {racer.plan.name: number for number, racer in enumerate(racers)}
    waiting = sorted(
        (racer for racer in racers if racer.plan.name not in gone_on),
        key=lambda racer: (-values[racer.plan.name], order[racer.plan.name]),
    )
    chosen: list[Racer] = []
    if safe:
        families = {r.plan.family for r in racers if r.plan.name in gone_on}
        for racer in waiting:
            if racer.plan.family not in families:
                families.add(racer.plan.family)
                chosen.append(racer)
    chosen += [racer for racer in waiting if racer not in chosen]
    return tuple(chosen[: max(0, places)])


def places_after(generation: int, generations: int, places: int) -> int:
    """How many candidates have gone on after so many generations, of all that will.

    Args:
        generation: Number of generations that are done.
        generations: Number of all.
        places: Number of candidates that go on in the end.
    """
    return places * generation // generations


def by_score_and_diversity(judge: Labelled) -> Value:
    """A value that ranks by the score alone or in an average with the best, whichever is higher.

    The budget is not looked at: it is for races whose candidates can all be averaged.

    Args:
        judge: Scores outputs on the validation data.
    """

    def value(racers: Sequence[Racer]) -> list[float]:
        if not racers:
            return []
        alone = [_goodness(judge, racer.result.outputs) for racer in racers]
        best = max(range(len(racers)), key=alone.__getitem__)
        means = [_mean(racers[best].result.outputs, racer.result.outputs) for racer in racers]
        values = [max(one, _goodness(judge, mean)) for one, mean in zip(alone, means, strict=True)]
        # What lifts the best one is not above it.
        values[best] = max(values) + _LOSS_SHARE
        return values

    return value


def _goodness(judge: Labelled, outputs: Outputs) -> float:
    score = judge.score(outputs)
    return goodness(score) - _LOSS_SHARE * score.loss


def _mean(first: Outputs, second: Outputs) -> Outputs:
    return tuple((a + b) / 2 for a, b in zip(first, second, strict=True))
