"""`race`: train generations of candidates in rungs, and their rivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from saikei.errors import BudgetError, WorkError
from saikei.executors.base import TaskFailure
from saikei.runs.front import goodness
from saikei.search.race.driver import Driver, Outcome, Part
from saikei.search.race.plan import Entry, Plan, RungTask
from saikei.search.race.promotion import SAFE_RUNGS, Racer, Value, places_after, promoted
from saikei.search.race.schedule import Schedule, branch
from saikei.search.race.settings import Space
from saikei.search.sizes import derived_seed
from saikei.search.study import Study

# Gives entries for the next generation, from what the candidates so far have shown.
More = Callable[[Sequence[Racer]], Sequence[Entry]]

RIVAL = "rival"
_SEED_OF_RIVAL = 1_000_000
_SEED_OF_REPEAT = 2_000_000


def race(
    entries: Sequence[Entry],
    schedule: Schedule,
    space: Space,
    driver: Driver,
    value: Value,
    *,
    seed: int,
    axis: str = "macs",
    study: Path | None = None,
    more: More | None = None,
) -> tuple[Racer, ...]:
    """Train candidates in generations and rungs; the most useful ones go on.

    The result depends on the arguments and the results of the trainings alone, not on the executor
    or on how often the race was interrupted.

    Args:
        entries: What takes part, the most promising first; begun again from the first, with other
            settings, if the schedule has more places.
        schedule: How many candidates are trained for how many epochs.
        space: The training settings to try.
        driver: Has the parts of trainings done.
        value: What each candidate adds to the best ensemble.
        seed: Seed of the settings, of new weights, and of the trainings.
        axis: The cost that the sampler of settings sees beside the metric.
        study: Path of the file of Optuna's study; `None` keeps it in memory.
        more: Gives entries that go first in the next generation, such as what the best ensemble
            lacks; `None` takes the entries in order.

    Returns:
        The candidates in the order in which they began, each with its last result.

    Raises:
        DiskError: If a result cannot be written.
        WorkError: If no candidate is left.
    """
    first = space.first(schedule.generation)
    with closing(Study(study, space.ranges, first, seed)) as opened:
        running = _Race(entries, schedule, space, driver, value, seed, axis, opened, more)
        for generation in range(running.generations):
            running.next_generation(generation)
        while not running.racers and running.may_find_smaller:
            running.next_generation(running.generations - 1)
    if not running.racers:
        raise WorkError(f"No candidate could be trained: {_reason(driver)}")
    return tuple(running.racers.values())


def _reason(driver: Driver) -> str:
    reasons = [failure.reason for failure in driver.failures.values()]
    return reasons[0] if reasons else "there are no entries: give at least one."


class _Race:
    """The candidates of a race so far."""

    def __init__(
        self,
        entries: Sequence[Entry],
        schedule: Schedule,
        space: Space,
        driver: Driver,
        value: Value,
        seed: int,
        axis: str,
        study: Study,
        more: More | None,
    ) -> None:
        self.racers: dict[str, Racer] = {}
        self._entries, self._schedule, self._space = tuple(entries), schedule, space
        self._driver, self._value, self._more = driver, value, more
        self._seed, self._axis, self._study = seed, axis, study
        self._taken = 0
        # Names of the candidates in each rung.
        self._reached: list[list[str]] = [[] for _ in schedule.rungs]

    @property
    def generations(self) -> int:
        """Number of generations."""
        places = self._schedule.rungs[0].places
        return -(-places // self._schedule.generation) if self._entries else 0

    @property
    def may_find_smaller(self) -> bool:
        """Whether all candidates were over the budget, and there are entries that had no turn.

        A latency that is measured again is another one. What is refused has cost no epochs.
        """
        kinds = {failure.kind for failure in self._driver.failures.values()}
        return kinds == {BudgetError.__name__} and self._taken < len(self._entries)

    def next_generation(self, generation: int) -> None:
        """Train new candidates, and those that go on.

        Args:
            generation: Its number; where places are given to the candidates of all generations,
                the last one may have another turn.
        """
        self._begin()
        for rung in range(1, len(self._schedule.rungs)):
            self._promote(generation, rung)

    def _begin(self) -> None:
        """Train the candidates of a generation to the first rung."""
        begin, places = len(self._reached[0]), self._schedule.rungs[0].places
        end = begin + self._schedule.generation
        end = min(end, places) if begin < places else end
        points = [self._study.ask(number, begin) for number in range(begin, end)]
        entries = self._drawn(end - begin)
        plans = [
            self._plan(number, entry, point)
            for number, entry, point in zip(range(begin, end), entries, points, strict=True)
        ]
        outcomes = self._train([(plan, 0, None) for plan in plans], rung=0)
        for number, point, outcome in zip(range(begin, end), points, outcomes, strict=True):
            if number >= self._study.count:
                self._study.tell(
                    point, self._objectives(outcome), {"name": plans[number - begin].name}
                )

    def _promote(self, generation: int, rung: int) -> None:
        """Train candidates of a rung to the next one."""
        after = self._schedule.rungs[rung]
        last = generation == self.generations - 1
        whole = rung == len(self._schedule.rungs) - 1
        places = places_after(generation + 1, self.generations, after.places)
        if whole:
            # Only when all candidates are known is one trained to its end.
            places = after.places if last else 0
        places -= len(self._reached[rung])
        finished = [self.racers[n] for n in self._reached[rung - 1] if n in self.racers]
        if places <= 0 or not finished:
            return
        everyone = list(self.racers.values())
        values = dict(zip([one.plan.name for one in everyone], self._value(everyone), strict=True))
        chosen = promoted(finished, values, places, self._reached[rung], rung < SAFE_RUNGS)
        self._train([(one.plan, one.epoch, one) for one in chosen], rung)

    def _drawn(self, count: int) -> list[Entry]:
        entries: list[Entry] = []
        if self._more is not None and self.racers:
            entries += list(self._more(list(self.racers.values())))[:count]
        for _ in range(count - len(entries)):
            entries.append(self._entries[self._taken % len(self._entries)])
            self._taken += 1
        return entries

    def _plan(self, number: int, entry: Entry, point: Mapping[str, Any]) -> Plan:
        return Plan(
            name=f"{number + 1:02d}-{entry.family.replace(' ', '-')}",
            family=entry.family,
            parent=entry.parent,
            recipe=entry.recipe,
            weights=entry.weights,
            teacher=entry.teacher,
            settings=self._space.settings(point, entry.weights),
            seed=derived_seed(self._seed, number),
            via=entry.via,
            step=entry.step,
            raises_rate=entry.weights == "kept" and self._space.raises_rate,
        )

    def _train(self, starts: Sequence[tuple[Plan, int, Racer | None]], rung: int) -> list[Outcome]:
        end, total = self._schedule.rungs[rung].epochs, self._schedule.full
        parts = [
            Part(
                RungTask(plan, begin, end, total, cost=None if racer is None else racer.result.cost)
            )
            for plan, begin, racer in starts
        ]
        outcomes = self._driver.train(parts)
        for (plan, _, racer), outcome in zip(starts, outcomes, strict=True):
            self._reached[rung].append(plan.name)
            if isinstance(outcome, TaskFailure):
                self.racers.pop(plan.name, None)
                continue
            before = outcome.before if racer is None else racer.result.before
            result = replace(outcome, state=None, before=before)
            self.racers[plan.name] = Racer(plan, end, result)
        return outcomes

    def _objectives(self, outcome: Outcome) -> tuple[float, float] | None:
        if isinstance(outcome, TaskFailure):
            return None
        return goodness(outcome.score), outcome.cost.on(self._axis)


def race_rivals(
    winner: Racer, schedule: Schedule, space: Space, driver: Driver, seed: int
) -> tuple[Racer, ...]:
    """Fresh weights of the winner's structure, for the winner's epochs and for the pipeline's.

    Both have one beginning, up to where the learning rate of the shorter one falls, which is
    trained once. The short one goes on under the name "rival-short", the long one as "rival".

    Args:
        winner: The candidate whose structure they have, and whose settings.
        schedule: Its `rival` is the number of epochs of the long one.
        space: The training settings that were tried.
        driver: Has the parts of trainings done.
        seed: Seed of the race.

    Returns:
        The short one and the long one; the long one alone if both have the same number of epochs.
        One that fails is missing.
    """
    plan = replace(
        winner.plan,
        name=RIVAL,
        family=RIVAL,
        weights="fresh",
        settings=_of_rival(winner, space),
        seed=derived_seed(seed, _SEED_OF_RIVAL),
    )
    cost, short, long = winner.result.cost, winner.epoch, max(winner.epoch, schedule.rival)
    common = short - branch(short, plan.settings.decay)
    if short == long:
        return _finished(driver, [Part(RungTask(plan, 0, long, long, cost=cost))])
    if common:
        driver.train([Part(RungTask(plan, 0, common, long, cost=cost))])
    if plan.name in driver.failures:
        return ()
    other = replace(plan, name=f"{RIVAL}-short")
    return _finished(
        driver,
        [
            Part(RungTask(other, common, short, short, cost=cost), RIVAL),
            Part(RungTask(plan, common, long, long, cost=cost)),
        ],
    )


def race_repeats(winner: Racer, repeats: int, driver: Driver, seed: int) -> tuple[Racer, ...]:
    """The winner's recipe, trained again with other seeds for as many epochs.

    Args:
        winner: The candidate.
        repeats: How often it is trained in all, the winner itself included.
        driver: Has the trainings done.
        seed: Seed of the race.

    Returns:
        The further ones. One that fails is missing.
    """
    plans = [
        replace(
            winner.plan,
            name=f"repeat-{number}",
            family="repeat",
            seed=derived_seed(seed, _SEED_OF_REPEAT + number),
        )
        for number in range(2, repeats + 1)
    ]
    end, cost = winner.epoch, winner.result.cost
    return _finished(driver, [Part(RungTask(plan, 0, end, end, cost=cost)) for plan in plans])


def _of_rival(winner: Racer, space: Space) -> Any:
    settings = winner.plan.settings
    return settings if winner.plan.weights == "fresh" else space.for_fresh(settings)


def _finished(driver: Driver, parts: Sequence[Part]) -> tuple[Racer, ...]:
    outcomes = driver.train(parts)
    return tuple(
        Racer(part.task.plan, part.task.end, replace(outcome, state=None))
        for part, outcome in zip(parts, outcomes, strict=True)
        if not isinstance(outcome, TaskFailure)
    )
