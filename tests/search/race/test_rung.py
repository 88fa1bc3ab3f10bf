"""`run_rung` makes, trains and scores a candidate: a pure function that goes through pickle."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import saikei as sk
from saikei.distilling import StoredTeacher
from saikei.edits import PruneChannels, Recipe
from saikei.errors import BudgetError, WorkError
from saikei.executors import Inline, executor_for
from saikei.scoring.observed import held_out
from saikei.search.gauge import Gauge
from saikei.search.race import (
    Driver,
    Entry,
    Plan,
    Rung,
    RungTask,
    Schedule,
    Shared,
    has_learned,
    overfits,
    race,
    race_rivals,
    run_rung,
    space_of,
    trained,
)
from saikei.search.race.rung import RESTARTS, _in_vain, untrained
from saikei.training.parts import TrainingSettings, TrainingState
from tests.search.race.test_race import Memory, by_score
from tests.search.small import data

SETTINGS = TrainingSettings(learning_rate=3e-3, batch_size=32)
HALF = Recipe([PruneChannels(keep=0.5, importance="magnitude")])


def network(*outputs: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    flat = [layers.Flatten(), layers.Dense(24, activation="relu", name="hidden")]
    return keras.Sequential([keras.Input((8, 8, 1)), *flat, *outputs], name="network")


def shared_of(model: keras.Model, train: Any, validation: Any, keep: float = 1.0) -> Shared:
    gauge = Gauge(latency=False)
    return Shared(
        originals={"original": model},
        teachers={"teacher": StoredTeacher.of(model, train)},
        train=train,
        validation=validation,
        calibration=train,
        judge=held_out(model, validation, None),
        budget=sk.Budget(macs=keep),
        whole=gauge.cost(model),
        gauge=gauge,
    )


@pytest.fixture(scope="module")
def classes() -> Shared:
    model, splits = network(layers.Dense(10, activation="softmax")), data()
    sk.fit(model, splits.train, epochs=4, batch_size=16, learning_rate=3e-3, progress=False)
    return shared_of(model, splits.train, splits.validation)


@pytest.fixture(scope="module")
def numbers() -> Shared:
    model, splits = network(layers.Dense(1)), data()
    parts = [(x, y.astype("float32")) for x, y in (splits.train, splits.validation)]
    return shared_of(model, *parts)


def plan(**changes: Any) -> Plan:
    recipe = HALF.to_dict()
    made = Plan("01-half", "knapsack", "original", recipe, "kept", "teacher", SETTINGS, 3)
    return replace(made, **changes)


def bytes_of(arrays: Any) -> list[bytes]:
    return [np.asarray(array).tobytes() for array in arrays]


@pytest.mark.long
def test_rungs_in_any_process_give_what_one_training_gives(classes: Shared) -> None:
    whole = run_rung(classes, RungTask(plan(), 0, 3, 5))
    far = pickle.loads(pickle.dumps(classes))
    first = pickle.loads(pickle.dumps(run_rung(far, RungTask(plan(), 0, 1, 5))))
    then = run_rung(far, RungTask(plan(), 1, 3, 5, first.state, first.cost))
    assert whole.state is not None
    assert then.state is not None
    assert bytes_of(then.state.weights) == bytes_of(whole.state.weights)
    assert bytes_of(then.state.optimizer) == bytes_of(whole.state.optimizer)
    assert bytes_of(then.outputs) == bytes_of(whole.outputs)
    assert (then.score, then.cost, then.before) == (whole.score, whole.cost, None)
    assert whole.before == first.before
    assert whole.before is not None
    assert whole.score.loss < whole.before.loss
    assert whole.cost.macs < classes.whole.macs
    model = trained(classes, plan(), whole.state)
    assert bytes_of(classes.judge.predict(model)) == bytes_of(whole.outputs)


@pytest.mark.long
def test_two_workers_give_the_bits_of_this_process(classes: Shared) -> None:
    fresh = plan(weights="fresh", teacher=None)
    tasks = [RungTask(one, 0, 1, 5) for one in (plan(), fresh)]
    here, there = (
        executor.run(run_rung, classes, tasks, lambda *_: None)
        for executor in (Inline(), executor_for(workers=2))
    )
    for ours, theirs in zip(here, there, strict=True):
        assert bytes_of(theirs.outputs) == bytes_of(ours.outputs)
        assert bytes_of(theirs.state.weights) == bytes_of(ours.state.weights)
        assert (theirs.score, theirs.cost) == (ours.score, ours.cost)


def test_weights_that_training_does_not_improve_stay_and_the_rate_is_lowered(
    classes: Shared,
) -> None:
    # At this rate the network forgets in the first epoch what it knows.
    hot = plan(recipe=None, settings=replace(SETTINGS, optimizer="sgd", learning_rate=5.0))
    first = run_rung(classes, RungTask(hot, 0, 1, 3))
    assert first.state is not None
    assert first.state.best_epoch == 0
    assert first.score == first.before
    then = run_rung(classes, RungTask(hot, 1, 2, 3, first.state, first.cost))
    assert then.state is not None
    assert (then.state.epoch, then.state.began, then.state.restarts) == (2, 1, 1)
    assert then.state.learning_rate == 0.5
    assert then.score.loss <= first.score.loss


def test_a_training_that_diverges_begins_again_lower_and_ends_alone(numbers: Shared) -> None:
    state = None
    # Targets so large that the bias alone soon has a loss beyond all numbers.
    x, y = numbers.train
    far = replace(numbers, train=(x, 1e15 * y))
    wild = replace(SETTINGS, optimizer="sgd", learning_rate=10.0)
    candidate = plan(teacher=None, settings=wild)
    for epoch in range(2):
        task = RungTask(candidate, epoch, epoch + 1, 9, state)
        result = run_rung(far, task)
        state = result.state
        assert state is not None
        assert state.epoch == epoch + 1
        assert np.isfinite(result.outputs[0]).all()
        assert state.restarts in ((1,), (1, 2))[epoch]
        assert state.learning_rate == pytest.approx(10.0 / 10**state.restarts)
    hopeless = replace(state, learning_rate=1e6, restarts=RESTARTS)
    with pytest.raises(WorkError, match="is no longer a number in epoch 3"):
        run_rung(far, RungTask(candidate, 2, 3, 9, hopeless))


@pytest.mark.long
def test_fresh_weights_have_the_structure_and_a_seed_of_their_own(classes: Shared) -> None:
    fresh, other = (plan(weights="fresh", teacher=None, seed=seed) for seed in (3, 4))
    kept, first, again, second = (
        run_rung(classes, RungTask(one, 0, 1, 1)) for one in (plan(), fresh, fresh, other)
    )
    assert first.cost == kept.cost
    assert first.before is not None
    assert first.before.value < 0.3
    assert bytes_of(first.outputs) == bytes_of(again.outputs)
    assert bytes_of(first.outputs) != bytes_of(second.outputs)


@pytest.mark.long
def test_a_deep_cut_goes_through_a_larger_structure(classes: Shared) -> None:
    less = Recipe([PruneChannels(keep=0.7, importance="magnitude")])
    rest = Recipe([PruneChannels(keep=0.5, importance="magnitude")])
    both = Recipe([*less.edits, *rest.edits])
    steps = plan(recipe=both.to_dict(), via=less.to_dict(), step=rest.to_dict(), raises_rate=True)
    shared = replace(classes, losses={"original": 0.0}, budget=sk.Budget(macs=0.5))
    first = run_rung(shared, RungTask(steps, 0, 2, 4))
    assert first.state is not None
    # What is there after the first rung is the small structure, of which nothing is trained yet.
    assert (first.state.epoch, first.state.began, first.state.optimizer) == (2, 2, ())
    assert [w.shape for w in first.state.weights] == [
        w.shape for w in untrained(shared, plan(recipe=both.to_dict())).get_weights()
    ]
    assert first.state.learning_rate > SETTINGS.learning_rate
    then = run_rung(shared, RungTask(steps, 2, 4, 4, first.state, first.cost))
    assert then.state is not None
    assert then.score.loss < first.score.loss
    assert bytes_of(shared.judge.predict(trained(shared, steps, then.state))) == bytes_of(
        then.outputs
    )


@pytest.mark.long
def test_the_more_a_cut_has_damaged_the_higher_is_the_rate(classes: Shared) -> None:
    known = {"original": classes.judge.loss(classes.judge.predict(classes.originals["original"]))}
    shared = replace(classes, losses=known)

    def rate(keep: float, **changes: Any) -> float:
        recipe = Recipe([PruneChannels(keep=keep, importance="magnitude")]).to_dict()
        one = plan(recipe=recipe, raises_rate=True, **changes)
        state = run_rung(shared, RungTask(one, 0, 1, 1)).state
        assert state is not None
        return state.learning_rate

    given = SETTINGS.learning_rate
    assert given is not None
    assert given <= rate(0.9) < rate(0.3) <= 7 * given
    assert rate(0.3, weights="fresh") == pytest.approx(given)


@pytest.mark.long
def test_a_long_training_has_the_rate_of_fresh_weights_where_the_parent_learned_from_the_data(
    classes: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {"original": classes.judge.loss(classes.judge.predict(classes.originals["original"]))}
    monkeypatch.setattr("saikei.search.race.rung.LONG", 4 * 100)
    learned = replace(classes, losses=losses, training_losses={"original": 0.0})
    other = replace(classes, losses=losses, training_losses=losses)
    settings = replace(SETTINGS, learning_rate=1e-3)
    one = plan(raises_rate=True, settings=settings)
    first = run_rung(learned, RungTask(one, 0, 1, 4)).state
    assert first is not None

    def rate(shared: Shared, end: int, **changes: Any) -> float:
        task = RungTask(replace(one, **changes), 1, end, 4, first)
        state = run_rung(shared, task).state
        assert state is not None
        assert state.best_loss <= first.best_loss
        return state.learning_rate

    assert rate(learned, 4) == pytest.approx(5e-3)
    before = [rate(learned, 2), rate(other, 4), rate(learned, 4, raises_rate=False)]
    assert before == [first.learning_rate] * 3
    # Four epochs of few steps are not long.
    assert rate(replace(learned, steps=99), 4) == first.learning_rate
    # What was not cut is not damaged either, and leaves its weights only at such a rate.
    whole = plan(raises_rate=True, settings=settings, recipe=None)
    loose = replace(learned, budget=sk.Budget(macs=1.0))
    further = run_rung(loose, RungTask(whole, 0, 4, 4)).state
    assert further is not None
    assert (further.learning_rate, further.began) == (pytest.approx(5e-3), 0)


def test_a_candidate_over_the_budget_is_refused(classes: Shared) -> None:
    tight = replace(classes, budget=sk.Budget(macs=0.1))
    with pytest.raises(
        BudgetError, match=r"'01-half' does not keep the budget: macs is [\d,]+, and [\d,]+ are"
    ):
        run_rung(tight, RungTask(plan(), 0, 1, 1))


@pytest.mark.long
def test_a_small_race_is_run_and_the_winner_learns(classes: Shared) -> None:
    memory, schedule = Memory(), Schedule((Rung(1, 3), Rung(3, 1)), generation=2, rival=5)
    driver = Driver(classes, Inline(), memory.load, memory.store)
    entries = [Entry("knapsack", "original", HALF.to_dict(), "kept", "teacher")]
    space = space_of({"batch_size": 32}, 32)
    racers = race(entries, schedule, space, driver, by_score, seed=1)
    assert driver.failures == {}
    winner = max(racers, key=lambda one: one.epoch)
    short, long = race_rivals(winner, schedule, space, driver, seed=1)
    assert winner.result.before is not None
    assert winner.result.score.loss < winner.result.before.loss
    assert (short.epoch, long.epoch) == (winner.epoch, schedule.rival)
    assert short.result.cost == winner.result.cost
    assert sum(driver.spent.values()) == schedule.effort


@pytest.mark.parametrize(
    ("training", "expected"),
    [(None, (False, False)), (0.5, (True, True)), (0.7, (True, False)), (1.1, (False, False))],
)
def test_what_a_given_model_has_learned_shows_in_its_losses(
    training: float | None, expected: tuple[bool, bool]
) -> None:
    assert (has_learned(training, 1.0), overfits(training, 1.0)) == expected


def test_a_trial_is_not_in_vain_where_moving_statistics_are_behind(classes: Shared) -> None:
    plain, normalized = network(), network(layers.BatchNormalization())
    for trial in (1, 10):
        shared = replace(classes, steps=100 // trial)
        state = TrainingState(trial, (), (), (), 0.5, 0, 5e-3)
        assert _in_vain(shared, state, plain)
        assert not _in_vain(shared, replace(state, epoch=trial - 1), plain)
        assert not _in_vain(shared, state, normalized)
        assert _in_vain(shared, replace(state, epoch=2 * trial), normalized)
        assert not _in_vain(shared, replace(state, epoch=2 * trial, best_epoch=1), normalized)
