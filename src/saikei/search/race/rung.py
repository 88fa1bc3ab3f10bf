"""`run_rung`: make a candidate from its plan and train it from one rung to the next."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from saikei.budget import Budget
from saikei.distilling import StoredTeacher, train_part
from saikei.edits import Recipe
from saikei.errors import BudgetError, PinnedWarning, WorkError
from saikei.graph import copy_model, fresh_model
from saikei.runs.candidate import Cost
from saikei.scoring.labelled import Labelled
from saikei.search.gauge import Gauge
from saikei.search.race.plan import Plan, RungResult, RungTask
from saikei.training.advance import Curves, DivergenceError
from saikei.training.parts import TrainingState

# A training that does not improve the weights is started again with the rate divided by this.
SLOWER = 10
RESTARTS = 2


@dataclass(frozen=True)
class Shared:
    """What every candidate is made from and judged by; it is picklable.

    Args:
        originals: The given models by name.
        teachers: Stored predictions, or models, by name.
        train: Data to train on.
        validation: `(x, y)` arrays to choose by.
        calibration: Samples of the training data, `(x, y)`, that weights are refitted to.
        judge: Scores outputs on the validation data.
        budget: The budget as given.
        whole: Costs that shares in the budget refer to.
        gauge: How costs are measured.
    """

    originals: Mapping[str, keras.Model] = field(repr=False)
    teachers: Mapping[str, StoredTeacher | keras.Model] = field(repr=False)
    train: Any = field(repr=False)
    validation: Any = field(repr=False)
    calibration: Any = field(repr=False)
    judge: Labelled = field(repr=False)
    budget: Budget
    whole: Cost
    gauge: Gauge


def run_rung(shared: Shared, task: RungTask) -> RungResult:
    """Make, train and score one candidate from one rung to the next.

    A pure function of its arguments, so that any executor can run it.

    Args:
        shared: Models and data; not changed.
        task: The part of the training.

    Raises:
        BudgetError: If the model does not keep the budget.
        EditError: If the recipe cannot be applied.
        WorkError: If the training diverges at every learning rate.
    """
    started = time.perf_counter()
    model = untrained(shared, task.plan)
    cost = shared.gauge.cost(model) if task.cost is None else task.cost
    if not shared.budget.fits(cost, shared.whole):
        raise BudgetError(
            f"Candidate '{task.plan.name}' does not keep the budget '{shared.budget}': its costs "
            f"are {cost}. Raise the budget."
        )
    judge = shared.judge
    before = judge.score(judge.predict(model)) if task.state is None else None
    state, curves = _train(shared, task, model)
    outputs = judge.predict(model)
    return RungResult(
        state=state,
        outputs=outputs,
        score=judge.score(outputs),
        before=before,
        curves=curves,
        seconds=time.perf_counter() - started,
        cost=cost,
    )


def untrained(shared: Shared, plan: Plan) -> keras.Model:
    """The model of a plan before it is trained.

    Args:
        shared: Models and data.
        plan: The candidate.

    Raises:
        EditError: If the recipe cannot be applied.
    """
    model = shared.originals[plan.parent]
    if plan.recipe is not None:
        # Of fresh weights only the structure counts.
        data = None if plan.weights == "fresh" else shared.calibration
        with warnings.catch_warnings():
            # The report lists them once.
            warnings.simplefilter("ignore", PinnedWarning)
            model = Recipe.from_dict(plan.recipe)(model, data)
    if plan.weights == "fresh":
        model = fresh_model(model, plan.seed)
    return copy_model(model, plan.name.replace("-", "_"))


def trained(shared: Shared, plan: Plan, state: TrainingState) -> keras.Model:
    """The model of a plan with the best weights of a state.

    Args:
        shared: Models and data.
        plan: The candidate.
        state: Where its training is.
    """
    model = untrained(shared, plan)
    model.set_weights(state.best_weights)
    return model


def _train(shared: Shared, task: RungTask, model: keras.Model) -> tuple[TrainingState, Curves]:
    """Train a part; where that does not help, the next part has a lower rate.

    Weights that the training has not improved yet are trained again from the beginning at a lower
    rate. If nothing helps they stay as they were: the best weights include those before training.

    Raises:
        WorkError: If the training diverges at every learning rate.
    """
    plan, state = task.plan, task.state
    if state is not None and _in_vain(state):
        state = state.again(state.learning_rate / SLOWER, state.epoch)
    losses = [one.loss for one in shared.judge.tasks]
    try:
        return train_part(
            model,
            None if plan.teacher is None else shared.teachers[plan.teacher],
            shared.train,
            shared.validation,
            plan.settings,
            state=state,
            until=task.end,
            total=task.total,
            seed=plan.seed,
            loss=losses[0] if len(losses) == 1 else losses,
        )
    except DivergenceError as error:
        if error.state is None or error.state.restarts >= RESTARTS:
            # Without the state, which would travel with the error.
            raise WorkError(str(error)) from None
        return error.state.again(error.state.learning_rate / SLOWER, task.end), {}


def _in_vain(state: TrainingState) -> bool:
    """Whether a training has not improved the first weights, and a lower rate is left to try."""
    return state.best_epoch == 0 and state.epoch > state.began and state.restarts < RESTARTS
