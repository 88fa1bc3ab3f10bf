"""Who goes on in the race, on learning curves that are made up; nothing is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from saikei.budget import Budget
from saikei.errors import BudgetError, DiskError, InputError, WorkError
from saikei.executors.base import TaskFailure
from saikei.executors.inline import Inline
from saikei.runs.front import goodness
from saikei.search.race import (
    Driver,
    Entry,
    Plan,
    RungResult,
    RungTask,
    Schedule,
    Space,
    finalists,
    race,
    race_repeats,
    race_rivals,
    space_of,
)
from saikei.search.race.promotion import Racer, small_unproven
from saikei.search.race.schedule import branch, trial_epochs
from saikei.training.parts import TrainingState
from tests.search.made_up import cost, judge_of_binary, judge_of_number, right

ROWS = 200
JUDGE = judge_of_binary(np.arange(ROWS) % 2)
FAMILIES = ("kept", "fresh", "uniform")
ENTRIES = [Entry(family, "original", None) for family in FAMILIES]
SPACE = space_of(None, 32)
EFFORT = 140
SCHEDULE = Schedule.of(EFFORT, len(FAMILIES))

# How many rows a candidate of a family predicts correctly after so many epochs: the fresh one is
# the worst for long, and the best in the end.
CURVES = {
    "kept": lambda epoch: 150 + epoch,
    "uniform": lambda epoch: 140 + epoch,
    "fresh": lambda epoch: 60 + 30 * epoch,
    "rival": lambda epoch: 100,
    "repeat": lambda epoch: 150,
}


@dataclass
class Made:
    """Trainings that were done, and what breaks."""

    done: list[RungTask] = field(default_factory=list)
    fails: dict[str, Exception] = field(default_factory=dict)

    @property
    def epochs(self) -> Counter[tuple[str, int]]:
        """How often each epoch of each candidate was trained."""
        return Counter(
            (task.plan.name, epoch) for task in self.done for epoch in range(task.begin, task.end)
        )


def made_up(made: Made, task: RungTask) -> RungResult:
    """The result of a part on the curve of its family."""
    if task.plan.family in made.fails:
        raise made.fails[task.plan.family]
    assert (task.state is None) == (task.begin == 0)
    assert task.state is None or task.state.epoch == task.begin
    made.done.append(task)
    correct = min(ROWS, CURVES[task.plan.family](task.end))
    outputs = right(JUDGE, correct, first=task.plan.seed % ROWS)
    state = TrainingState(task.end, (), (), (), 0.0, task.end, 1e-3)
    return RungResult(state, outputs, JUDGE.score(outputs), None, {}, 0.0, task.cost or cost())


class Memory:
    """What a driver stores; raises `KeyboardInterrupt` after so many results."""

    def __init__(self, most: int | None = None) -> None:
        self.results: dict[tuple[str, int], Any] = {}
        self.most = most

    def load(self, name: str, epoch: int) -> Any:
        return self.results.get((name, epoch))

    def store(self, name: str, epoch: int, result: Any) -> None:
        assert (name, epoch) not in self.results
        self.results[name, epoch] = result
        if self.most is not None and len(self.results) >= self.most:
            raise KeyboardInterrupt


def by_score(racers: Sequence[Racer]) -> list[float]:
    return [goodness(one.result.score) - 1e-6 * one.result.score.loss for one in racers]


def raced(memory: Memory, made: Made, schedule: Schedule = SCHEDULE, **changes: Any) -> Any:
    driver = Driver(made, Inline(), memory.load, memory.store, made_up)
    value = changes.pop("value", by_score)
    result = race(
        changes.pop("entries", ENTRIES), schedule, SPACE, driver, value, seed=3, **changes
    )
    winner = max(result, key=lambda one: one.result.score.value)
    rivals = race_rivals(winner, schedule, SPACE, driver, seed=3)
    return result, rivals, driver


def shown(result: Any, rivals: Any, driver: Driver) -> Any:
    racers = [(one.plan, one.epoch, one.result.score) for one in (*result, *rivals)]
    return racers, reasons(driver), dict(driver.spent)


def reasons(driver: Driver) -> dict[str, str]:
    return {name: failure.reason for name, failure in driver.failures.items()}


def test_the_last_of_a_family_is_safe_until_the_third_rung() -> None:
    result, _, _ = raced(Memory(), Made())
    third = SCHEDULE.rungs[2].epochs
    reached = dict.fromkeys(FAMILIES, 0)
    for racer in result:
        reached[racer.plan.family] = max(reached[racer.plan.family], racer.epoch)
    assert all(epochs >= third for epochs in reached.values())
    # The one that was the worst for two rungs is trained to the end.
    best = max(result, key=lambda one: one.epoch)
    assert (best.plan.family, best.epoch) == ("fresh", SCHEDULE.full)


@pytest.mark.parametrize("effort", [3, 8, 20, 45, 90, 200])
def test_nothing_is_trained_twice_and_the_effort_is_kept(effort: int) -> None:
    schedule, made = Schedule.of(effort, len(FAMILIES)), Made()
    _, rivals, driver = raced(Memory(), made, schedule)
    assert max(made.epochs.values()) == 1
    assert len(made.epochs) == sum(driver.spent.values()) <= effort
    assert rivals[-1].epoch == schedule.rival
    assert sum(n for (family, _), n in driver.spent.items() if family != "rival") == schedule.search


def test_an_interrupted_race_does_nothing_twice_and_ends_the_same() -> None:
    whole = shown(*raced(Memory(), Made()))
    memory, made = Memory(), Made()
    for most in range(1, 100):
        memory.most = most
        try:
            result = raced(memory, made)
        except KeyboardInterrupt:
            continue
        break
    assert most > 10
    assert max(made.epochs.values()) == 1
    assert shown(*result) == whole


def test_a_study_in_a_file_gives_the_same_race(tmp_path: Any) -> None:
    whole = shown(*raced(Memory(), Made()))
    memory, path = Memory(7), tmp_path / "study.db"
    with pytest.raises(KeyboardInterrupt):
        raced(memory, Made(), study=path)
    memory.most = None
    assert shown(*raced(memory, Made(), study=path)) == whole


def test_settings_are_good_ones_first_and_drawn_later() -> None:
    result, _, _ = raced(Memory(), Made(), Schedule.of(300, 3))
    plans = [racer.plan for racer in result]
    first = [one.settings for one in plans[: Schedule.of(300, 3).generation]]
    assert {one.temperature for one in first} == {2.0}
    assert {one.learning_rate for one in first} == {SPACE.first(1)[0]["learning_rate"]}
    later = [one.settings for one in plans[-6:]]
    assert len({one.temperature for one in later}) > 1
    assert len({one.seed for one in plans}) == len(plans)


def racer(name: str, macs: int, outputs: Any, judge: Any) -> Racer:
    settings = SPACE.settings(SPACE.first(1)[0], "kept")
    plan = Plan(name, "kept", "original", None, "kept", None, settings, seed=0)
    result = RungResult(None, outputs, judge.score(outputs), None, {}, 0.0, cost(macs))
    return Racer(plan, 1, result)


def test_a_small_network_has_to_be_clearly_ahead_of_all_large_ones() -> None:
    def found(small: int, large: int) -> set[str]:
        made = {
            "small": (50, small),
            "least": (10, small),
            "large": (90, large),
            "largest": (100, large - 5),
        }
        racers = [racer(n, macs, right(JUDGE, hits), JUDGE) for n, (macs, hits) in made.items()]
        return small_unproven(racers, "macs", JUDGE)

    # Right for one row more of 200, for thirty more, and for fewer.
    assert found(151, 150) == {"small", "least"}
    assert found(180, 150) == set()
    assert found(120, 150) == {"small", "least"}
    assert small_unproven([], "macs", JUDGE) == set()


def test_of_numbers_the_small_network_has_to_have_clearly_the_lower_error() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=ROWS)
    judge = judge_of_number(truth)

    def outputs(spread: float) -> Any:
        return ((truth + spread * rng.normal(size=ROWS)).reshape(-1, 1),)

    for spread, expected in ((0.1, set()), (1.0, {"small"})):
        racers = [
            racer("small", 50, outputs(spread), judge),
            racer("large", 100, outputs(0.5), judge),
        ]
        assert small_unproven(racers, "macs", judge) == expected


def test_what_adds_to_the_ensemble_goes_on() -> None:
    def value(racers: Any) -> list[float]:
        return [float(racer.plan.family == "uniform") for racer in racers]

    result, _, _ = raced(Memory(), Made(), value=value)
    assert max(result, key=lambda one: one.epoch).plan.family == "uniform"
    whole = [one.plan.family for one in result if one.epoch == SCHEDULE.full]
    assert whole == ["uniform"]


def test_what_the_ensemble_lacks_goes_first_in_the_next_generation() -> None:
    asked = []

    def more(racers: Any) -> list[Entry]:
        asked.append(len(racers))
        return [Entry("uniform", "original", None)] * 2

    result, _, _ = raced(Memory(), Made(), more=more)
    size = SCHEDULE.generation
    assert [one.plan.family for one in result][size : size + 2] == ["uniform"] * 2
    assert asked == [size]


@pytest.mark.parametrize("error", [WorkError("no memory"), BudgetError("too slow")])
def test_a_candidate_that_fails_is_alone(error: Exception) -> None:
    memory, made = Memory(), Made(fails={"kept": error})
    result, _, driver = raced(memory, made)
    assert reasons(driver) == dict.fromkeys(("01-kept", "04-kept", "07-kept"), str(error))
    assert {racer.plan.family for racer in result} == {"fresh", "uniform"}
    # It counts as tried, also in the next session.
    _, _, again = raced(memory, Made(fails={"kept": AssertionError("tried again")}))
    assert reasons(again) == reasons(driver)
    assert sum(driver.spent.values()) <= EFFORT


def test_what_the_disk_refuses_drops_out_and_a_full_disk_ends_the_race() -> None:
    memory, full = Memory(), DiskError("no room")
    result, _, driver = raced(memory, Made(fails={"fresh": full}))
    assert set(reasons(driver).values()) == {"no room"}
    assert {racer.plan.family for racer in result} == {"kept", "uniform"}
    # The next session tries it again.
    assert not any(isinstance(one, TaskFailure) for one in memory.results.values())
    assert not raced(memory, Made())[2].failures
    with pytest.raises(DiskError):
        raced(memory := Memory(), Made(fails=dict.fromkeys(FAMILIES, full)))
    assert not memory.results


def test_a_race_without_a_candidate_names_the_reason() -> None:
    with pytest.raises(WorkError, match="No candidate could be trained: no memory"):
        raced(Memory(), Made(fails=dict.fromkeys(FAMILIES, WorkError("no memory"))))
    with pytest.raises(WorkError, match="there are no entries"):
        raced(Memory(), Made(), entries=[])


def test_where_all_are_over_the_budget_the_next_entries_have_a_turn() -> None:
    slow = BudgetError("too slow")
    made = Made(fails={"kept": slow})
    entries = [*ENTRIES[:1] * (SCHEDULE.rungs[0].places + 1), ENTRIES[2]]
    memory = Memory()
    result, _, driver = raced(memory, made, entries=entries)
    assert [racer.plan.family for racer in result] == ["uniform"]
    assert result[0].epoch == SCHEDULE.full
    assert sum(driver.spent.values()) <= EFFORT
    again = raced(memory, Made(fails={"kept": AssertionError("tried again")}), entries=entries)
    assert [racer.plan.name for racer in again[0]] == [racer.plan.name for racer in result]
    with pytest.raises(WorkError, match="No candidate could be trained: too slow"):
        raced(Memory(), Made(fails={"kept": slow}), entries=entries[:-1])


def test_the_rivals_have_one_beginning() -> None:
    made = Made()
    _, rivals, _ = raced(Memory(), made)
    short, long = rivals
    assert (short.plan.name, short.epoch) == ("rival-short", SCHEDULE.full)
    assert (long.plan.name, long.epoch) == ("rival", SCHEDULE.rival)
    parts = [t for t in made.done if t.plan.family == "rival"]
    common = SCHEDULE.full - branch(SCHEDULE.full)
    ends = [(t.plan.name, t.begin, t.end, t.total) for t in parts]
    assert ends == [
        ("rival", 0, common, SCHEDULE.rival),
        ("rival-short", common, SCHEDULE.full, SCHEDULE.full),
        ("rival", common, SCHEDULE.rival, SCHEDULE.rival),
    ]
    assert all(t.plan.weights == "fresh" for t in parts)


@pytest.mark.parametrize(
    ("budget", "fusions", "expected"),
    [
        (Budget(macs=0.25), ("average",), 1),
        (Budget(macs=0.5, params=0.9), ("average",), 2),
        (Budget(macs=1.0), ("average",), 3),
        (Budget(macs=1.0), ("soup",), 1),
        (Budget(macs=0.15, count="mean"), ("cascade",), 2),
    ],
)
def test_several_finalists_where_an_ensemble_may_keep_the_budget(
    budget: Budget, fusions: tuple[str, ...], expected: int
) -> None:
    assert finalists(budget, cost(), fusions) == expected


def test_the_winner_is_repeated_with_other_seeds() -> None:
    made, memory = Made(), Memory()
    result, _, driver = raced(memory, made)
    winner = max(result, key=lambda one: one.epoch)
    before = sum(driver.spent.values())
    again = race_repeats(winner, 3, driver, seed=3)
    assert [one.plan.name for one in again] == ["repeat-2", "repeat-3"]
    assert len({one.plan.seed for one in (winner, *again)}) == 3
    assert {one.plan.settings for one in again} == {winner.plan.settings}
    assert sum(driver.spent.values()) == before + 2 * winner.epoch


@pytest.mark.parametrize("rivals", [True, False])
@pytest.mark.parametrize("finalists", [1, 3])
@pytest.mark.parametrize("families", [1, 3, 6])
def test_every_effort_has_a_schedule(families: int, finalists: int, rivals: bool) -> None:
    for effort in range(1, 400, 7):
        schedule = Schedule.of(effort, families, finalists, rivals)
        assert effort >= schedule.effort > 0.9 * effort - 3
        # Most epochs of the candidates are those of whole trainings.
        last = schedule.rungs[-1]
        assert last.places * last.epochs >= 0.6 * schedule.search
        ends = [rung.epochs for rung in schedule.rungs]
        places = [rung.places for rung in schedule.rungs]
        assert ends == sorted(set(ends))
        assert places == sorted(places, reverse=True)


def test_a_long_race_keeps_three_families_to_the_third_rung() -> None:
    assert len(SCHEDULE.rungs) == 4
    assert SCHEDULE.rungs[2].places == 3
    with pytest.raises(InputError, match="effort=0: give a whole number from 1"):
        Schedule.of(0)


def test_rows_are_mixed_first_only_where_that_is_good_and_may_vary() -> None:
    def first(space: Space) -> Any:
        return replace(space, explained=0.8, mixes=True).first(1)[0].get("mixup")

    assert first(space_of(None)) == 0.2
    assert space_of(None).first(1)[0]["mixup"] == 0.0
    assert first(space_of({"mixup": [0.0, 0.4]})) == 0.0
    assert first(space_of({"mixup": 0.0})) is None
    assert first(space_of(None, obstacles={"mixup": "needs arrays"})) is None


def test_labels_weigh_more_the_more_of_them_a_model_that_has_learned_its_rows_knows() -> None:
    def alpha(space: Space, explained: float | None, mixes: bool = False) -> Any:
        return replace(space, explained=explained, mixes=mixes).first(1)[0].get("alpha")

    usual = space_of(None)
    explained = (None, -0.2, 0.3, 0.7, 0.99)
    assert [alpha(usual, one) for one in explained] == [0.5, 0.5, 0.5, 0.7, 0.9]
    assert alpha(space_of({"alpha": 0.3}), 0.99) is None
    # Images have the teacher or mixed rows against overfitting.
    assert alpha(usual, 0.99, mixes=True) == 0.9
    for settings in ({"mixup": 0.0}, {"mixup": [0.0, 0.4]}):
        assert alpha(space_of(settings), 0.99, mixes=True) == 0.5


@pytest.mark.parametrize("trial", [1, 3, 8])
@pytest.mark.parametrize("effort", [8, 20, 36, 120, 400])
def test_the_first_rung_is_a_trial_where_the_effort_has_room_for_it(
    effort: int, trial: int
) -> None:
    schedule = Schedule.of(effort, 3, rivals=False, trial=trial)
    assert effort >= schedule.effort > 0.9 * effort - 3
    first = schedule.rungs[0]
    if effort >= 30 * trial:
        assert first.epochs >= trial
    if len(schedule.rungs) > 1:
        assert 2 * first.epochs <= schedule.full
    # What is long is long in steps.
    assert schedule.rungs[-1].places == 1 or effort >= 90 * trial


def test_a_trial_is_a_hundred_steps() -> None:
    steps = (None, 1, 10, 99, 100, 101, 5_000)
    assert [trial_epochs(one) for one in steps] == [1, 100, 10, 2, 1, 1, 1]


def test_settings_in_plain_python() -> None:
    given = {"learning_rate": (1e-4, 1e-2), "batch_size": [32, 64], "temperature": 3.0}
    space = space_of(given, 16)
    assert {"learning_rate", "batch_size"} <= set(space.ranges)
    settings = space.settings(space.first(1)[0], "fresh")
    assert (settings.temperature, settings.batch_size) == (3.0, 32)
    # A rate that was given is taken as it is.
    assert settings.learning_rate == space.settings(space.first(1)[0], "kept").learning_rate
    usual = SPACE.first(1)[0]
    kept, fresh = (SPACE.settings(usual, weights) for weights in ("kept", "fresh"))
    assert fresh.learning_rate == pytest.approx(5 * kept.learning_rate)
    everything = dict.fromkeys(SPACE.ranges) | {"optimizer": "sgd"}
    fixed = {name: usual[name] for name in usual if name in everything} | {"optimizer": "sgd"}
    sgd = space_of({"optimizer": "sgd"}, 16).settings(fixed, "kept")
    assert sgd.learning_rate == pytest.approx(30 * kept.learning_rate)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rat": 0.1}, "no 'learning_rat': did you mean 'learning_rate'"),
        ({"zzz": 0.1}, "no 'zzz': there is learning_rate"),
        ({"temperature": (1, 2, 3)}, r"give a range as \(low, high\)"),
        ({"temperature": (2, 1)}, r"give a range as \(low, high\)"),
        ({"optimizer": ["adam", "adagrad"]}, "optimizer='adagrad'"),
        ({"alpha": []}, "give at least one choice"),
        ({"batch_size": (0, 8)}, "batch_size=0"),
        ({"mixup": [0.0, 0.4]}, r"settings\['mixup'\] needs arrays: set it to 0 or leave it out"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        space_of(settings, 32, {"mixup": "needs arrays"})
