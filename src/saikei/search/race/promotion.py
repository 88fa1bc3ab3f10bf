"""Which candidates go on to the next rung."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from saikei.runs.front import goodness
from saikei.scoring.labelled import Labelled
from saikei.search.race.plan import Plan, RungResult

# Ranks flip while networks are distilled, so that the last of a family is safe up to this rung.
SAFE_RUNGS = 3
# The share of the costs of the largest network from which one counts as large.
_LARGE = 0.75


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


def small_unproven(racers: Sequence[Racer], axis: str, judge: Labelled) -> set[str]:
    """The names of the small networks that are not clearly ahead of all larger ones.

    A larger network gains more from a long training, and a short one on few rows cannot tell.
    Small ones have less than three quarters of the costs of the largest one, and are clearly ahead
    if the 95 % interval of the paired difference to the best large one leaves zero out.

    Args:
        racers: Candidates that keep the budget.
        axis: The cost that counts, such as "macs".
        judge: Scores their outputs on the validation data.
    """
    most = max((racer.result.cost.on(axis) for racer in racers), default=0.0)
    large = [racer for racer in racers if racer.result.cost.on(axis) >= _LARGE * most]
    if len(large) == len(racers):
        return set()
    best = max(large, key=lambda racer: goodness(racer.result.score)).result
    sign = 1 if best.score.greater_is_better else -1
    ahead = {
        racer.plan.name: judge.difference(racer.result.outputs, best.outputs)
        for racer in racers
        if racer not in large
    }
    return {name for name, one in ahead.items() if not one.clear or sign * one.value < 0}


def places_after(generation: int, generations: int, places: int) -> int:
    """How many candidates have gone on after so many generations, of all that will.

    Args:
        generation: Number of generations that are done.
        generations: Number of all.
        places: Number of candidates that go on in the end.
    """
    return places * generation // generations
