"""`run_rung`: make a candidate from its plan and train it from one rung to the next."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from saikei.budget import Budget
from saikei.distilling import StoredTeacher, train_part
from saikei.edits import Recipe
from saikei.errors import BudgetError, PinnedWarning, WorkError
from saikei.graph import Graph, build, fresh_model, read
from saikei.graph.internals import flattened_layers
from saikei.runs.candidate import Cost
from saikei.scoring.labelled import Labelled, Outputs
from saikei.scoring.score import Score
from saikei.search.gauge import Gauge
from saikei.search.race.plan import Plan, RungResult, RungTask
from saikei.search.race.schedule import TRIAL_STEPS, trial_epochs
from saikei.search.race.settings import FRESH_TO_CARRIED, raised
from saikei.training.advance import Curves, DivergenceError
from saikei.training.parts import TrainingState
from saikei.training.sparsity import sparse_kernels

# A learning rate for weights as bad as a constant output, as a multiple of that for undamaged ones.
# On MNIST-1D at 15 % of the MACs, with 20 epochs after a cut to 72 % accuracy, rates of 6e-4, 2e-3
# and 5e-3 reach 96.1, 97.4 and 97.9 %.
MOST_RAISED = 7.0
# A training that does not improve the weights is started again with the rate divided by this.
SLOWER = 10
RESTARTS = 2
# Trials until that is known of a model with BatchNormalization, whose moving statistics are far
# behind its weights after one at a high rate.
SETTLED = 2
# A whole training of at least so many steps goes on from the short ones at the rate of fresh
# weights, where the data is what the parent was trained on. See docs/decisions.md.
LONG = 1200
# The parent's loss on training data, as a share of that on validation, up to which it is taken to
# have learned from this data: the two are about the same where it has not.
_LEARNED = 0.75
# The share up to which it knows this data far better than other data.
_OVERFITTED = 0.6
# Weights whose rate was raised by less than this are hardly damaged, and keep it.
_DAMAGED = 1.5


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
        losses: Loss on validation of each given model, by name, to see how much a cut has damaged
            the weights; learning rates are not raised for parents that are missing here.
        training_losses: Loss of each given model on training data, by name; where it is far below
            that on validation, the model has learned from this data, and whole trainings have the
            learning rate of fresh weights.
        steps: Steps of an epoch; `None` where the data does not know.
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
    losses: Mapping[str, float] = field(default_factory=dict)
    training_losses: Mapping[str, float] = field(default_factory=dict)
    steps: int | None = None


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
    judge = shared.judge
    before: Score | None = None
    if _cuts_again(task.plan) and task.begin == 0:
        model, state, curves = _in_steps(shared, task)
        cost = _checked_cost(shared, task, model)
    else:
        model = untrained(shared, task.plan, refit=task.state is None)
        cost = _checked_cost(shared, task, model)
        planned = task.plan.settings.learning_rate
        if task.state is None:
            untouched = judge.predict(model)
            before = judge.score(untouched)
            task = _with_raised_rate(shared, task, untouched)
        task = _with_rate_of_fresh(shared, task, model, planned)
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


def _checked_cost(shared: Shared, task: RungTask, model: keras.Model) -> Cost:
    cost = shared.gauge.cost(model) if task.cost is None else task.cost
    if not shared.budget.fits(cost, shared.whole):
        excess = shared.budget.excess(cost, shared.whole)
        raise BudgetError(
            f"Candidate '{task.plan.name}' does not keep the budget: {excess}. Raise the budget."
        )
    return cost


def untrained(shared: Shared, plan: Plan, refit: bool = True) -> keras.Model:
    """The model of a plan before it is trained; in steps, only its structure.

    Args:
        shared: Models and data.
        plan: The candidate.
        refit: Whether kept weights are refitted to data. Where others are loaded next, only the
            structure counts.

    Raises:
        EditError: If the recipe cannot be applied.
    """
    refit = refit and plan.weights == "kept" and plan.via is None
    data = shared.calibration if refit else None
    parent = shared.originals[plan.parent]
    if plan.via is None:
        graph = read(parent) if plan.recipe is None else _edited(parent, plan.recipe, data)
    else:
        graph = _edited(parent, plan.via, data)
        if plan.step is not None:
            graph = _edited(graph, plan.step, data)
    if plan.weights == "fresh":
        return fresh_model(graph, plan.seed, _name_of(plan))
    return build(graph, _name_of(plan))


def _edited(model: keras.Model | Graph, recipe: Mapping[str, Any], data: Any) -> Graph:
    edit = Recipe.from_dict(recipe)
    with warnings.catch_warnings():
        # The report lists them once.
        warnings.simplefilter("ignore", PinnedWarning)
        return edit.apply(model, data) if isinstance(model, Graph) else edit.graphs(model, data)[1]


def _name_of(plan: Plan) -> str:
    return plan.name.replace("-", "_")


def _with_raised_rate(shared: Shared, task: RungTask, outputs: Outputs) -> RungTask:
    """The task with a learning rate for weights that are as damaged as these predictions show.

    Args:
        shared: Models and data.
        task: The first part of a training.
        outputs: The predictions before it, on validation.
    """
    plan = task.plan
    known = plan.parent in shared.losses
    if not (plan.raises_rate and plan.weights == "kept" and known):
        return task
    factor = 1 + (MOST_RAISED - 1) * math.sqrt(_damage(shared, plan.parent, outputs))
    settings = replace(plan.settings, learning_rate=raised(plan.settings, factor))
    return replace(task, plan=replace(plan, settings=settings))


def _with_rate_of_fresh(
    shared: Shared, task: RungTask, model: keras.Model, planned: float | None
) -> RungTask:
    """The last part of a long training, at the rate of fresh weights where that pays.

    It begins with the best weights so far, which stay the best ones if it does not improve them.

    Args:
        shared: Models and data.
        task: Any part of a training.
        model: What is trained.
        planned: The rate before it was raised for the damage.
    """
    plan, state = task.plan, task.state
    long = task.end == task.total and task.total * (shared.steps or TRIAL_STEPS) >= LONG
    if not (long and plan.raises_rate and plan.weights == "kept" and _learned(shared, plan.parent)):
        return task
    present = plan.settings.learning_rate if state is None else state.learning_rate
    rate = raised(plan.settings, math.inf if _normalized(model) else FRESH_TO_CARRIED)
    if planned is None or present is None or rate is None:
        return task
    # Weights that nothing was cut of are good already: only a high rate takes them further.
    damaged = plan.recipe is None or present >= _DAMAGED * planned
    if not damaged or present >= rate:
        return task
    if state is None:
        settings = replace(plan.settings, learning_rate=rate)
        return replace(task, plan=replace(plan, settings=settings))
    if state.restarts or _in_vain(shared, state, model):
        # Even the present rate is too high.
        return task
    restarted = replace(state.again(rate, state.epoch), restarts=state.restarts)
    return replace(task, state=restarted)


def _learned(shared: Shared, parent: str) -> bool:
    return has_learned(shared.training_losses.get(parent), shared.losses.get(parent, 0.0))


def has_learned(training: float | None, held_out: float) -> bool:
    """Whether a given model has learned from this training data rather than from other data.

    Args:
        training: Its loss on rows of the training data; `None` if it is unknown.
        held_out: Its loss on validation.
    """
    return training is not None and training < _LEARNED * held_out


def overfits(training: float | None, held_out: float) -> bool:
    """Whether a given model knows this training data far better than other data.

    Args:
        training: Its loss on rows of the training data; `None` if it is unknown.
        held_out: Its loss on validation.
    """
    return training is not None and training < _OVERFITTED * held_out


def _damage(shared: Shared, parent: str, outputs: Outputs) -> float:
    """How much was lost, from 0 (as good as the parent) to 1 (as bad as a constant)."""
    judge, least = shared.judge, shared.losses[parent]
    most = judge.loss(judge.prior(outputs))
    share = (judge.loss(outputs) - least) / max(most - least, 1e-12)
    return min(max(share, 0.0), 1.0) if math.isfinite(share) else 1.0


def _cuts_again(plan: Plan) -> bool:
    """Whether a larger structure is trained before the rest is cut."""
    return plan.via is not None and plan.weights == "kept"


def _in_steps(shared: Shared, task: RungTask) -> tuple[keras.Model, TrainingState, Curves]:
    """Train the structure halfway in the first rung, then cut the rest of it.

    Raises:
        WorkError: If the training diverges at every learning rate.
    """
    plan = task.plan
    assert plan.via is not None
    assert plan.step is not None
    graph = _edited(shared.originals[plan.parent], plan.via, shared.calibration)
    halfway = build(graph, _name_of(plan))
    first = _with_raised_rate(shared, task, shared.judge.predict(halfway))
    state, curves = _train(shared, first, halfway)
    halfway.set_weights(state.best_weights)
    model = build(_edited(halfway, plan.step, shared.calibration), _name_of(plan))
    then = _with_raised_rate(shared, task, shared.judge.predict(model))
    weights = tuple(model.get_weights())
    cut = replace(
        state,
        weights=weights,
        optimizer=(),
        best_weights=weights,
        best_loss=math.inf,
        best_epoch=task.end,
        learning_rate=then.plan.settings.learning_rate or state.learning_rate,
        began=task.end,
        held=sparse_kernels(model),
    )
    return model, cut, curves


def trained(shared: Shared, plan: Plan, state: TrainingState) -> keras.Model:
    """The model of a plan with the best weights of a state.

    Args:
        shared: Models and data.
        plan: The candidate.
        state: Where its training is.
    """
    model = untrained(shared, plan, refit=False)
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
    if state is not None and state.restarts < RESTARTS and _in_vain(shared, state, model):
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


def _in_vain(shared: Shared, state: TrainingState, model: keras.Model) -> bool:
    """Whether a training has not improved the first weights, and was long enough to do so."""
    trials = (state.epoch - state.began) / trial_epochs(shared.steps)
    return state.best_epoch == 0 and trials >= (SETTLED if _normalized(model) else 1)


def _normalized(model: keras.Model) -> bool:
    kind = keras.layers.BatchNormalization
    return any(isinstance(layer, kind) for layer in flattened_layers(model))
