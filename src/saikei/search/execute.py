"""Make a candidate from its plan: cut, score, train, score, profile, store.

`run_plan` takes values and a context and leaves its result in the run folder, so that another
executor could run it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras

from saikei.budget import Budget, Costs
from saikei.channels import channel_groups
from saikei.codec import to_jsonable
from saikei.costs import profile
from saikei.distilling import distill
from saikei.edits import PruneChannels, Recipe
from saikei.errors import BudgetError, PinnedWarning, TrainingWarning, WorkError
from saikei.graph import copy_model, fresh_model
from saikei.runs.candidate import Candidate, Cost, LayerChange, Training
from saikei.runs.front import goodness
from saikei.scoring import Score
from saikei.scoring.labelled import Labelled
from saikei.search.folder import RunFolder
from saikei.search.gauge import Gauge
from saikei.search.plan import CandidatePlan
from saikei.training import fit

# If training does not improve the weights, it is repeated with the rate divided by `SLOWER`.
SLOWER = 10
TRIES = 3


@dataclass(frozen=True)
class RunContext:
    """Models, data and budget that every candidate is made from and judged by.

    Args:
        originals: The given models by name.
        whole: Costs that shares in the budget refer to.
        teacher: The model that students are distilled from.
        teacher_name: Its name in records.
        train: Data to train on.
        validation: `(x, y)` arrays to choose by.
        calibration: Training data or samples of it, `(x, y)`: channels are chosen by it, and the
            remaining weights refitted to it.
        judge: Scores outputs on the validation data.
        budget: The budget as given.
        folder: Where candidates are stored.
        gauge: How costs are measured.
    """

    originals: Mapping[str, keras.Model] = field(repr=False)
    whole: Cost
    teacher: keras.Model = field(repr=False)
    teacher_name: str
    train: Any = field(repr=False)
    validation: Any = field(repr=False)
    calibration: Any = field(repr=False)
    judge: Labelled = field(repr=False)
    budget: Budget
    folder: RunFolder
    gauge: Gauge

    def fits(self, costs: Costs) -> bool:
        """Whether a model keeps the budget."""
        return self.budget.fits(costs, self.whole)


def run_plan(
    plan: CandidatePlan, context: RunContext, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> Candidate:
    """Make, train and store one candidate.

    Args:
        plan: The candidate to make.
        context: Models and data to make it from.
        callbacks: Keras callbacks for the training.

    Returns:
        The record of the candidate, which is then in the folder.

    Raises:
        BudgetError: If the cut cannot reach the plan's budget, or misses the run's.
        EditError: If the cut would change nothing.
        WorkError: If the training diverges.
    """
    parent = context.originals[plan.parent]
    recipe = recipe_for(plan, context)
    if plan.kind == "fresh":
        # Only the structure counts.
        model = fresh_model(cut(recipe, parent), plan.seed)
    else:
        model = cut(recipe, parent, context.calibration)
    model = copy_model(model, plan.name.replace("-", "_"))
    cost = _cost(plan, model, context)
    before = context.judge.score(context.judge.predict(model))
    training = _train_carefully(model, plan, context, callbacks, before)
    outputs = context.judge.predict(model)
    candidate = Candidate(
        name=plan.name,
        kind=plan.kind,
        parent=plan.parent,
        plan=plan.to_dict(),
        recipe=to_jsonable(recipe.to_dict()),
        members=(),
        weights=(),
        fits=True,
        cost=cost,
        before=before,
        validation=context.judge.score(outputs),
        training=training,
        layers=layer_changes(parent, model),
    )
    context.folder.save(candidate, model, outputs)
    return candidate


def recipe_for(plan: CandidatePlan, context: RunContext) -> Recipe:
    """The edits of a plan.

    A cut that depends on measured times or on data may differ each time. So the recipe names the
    channels, and rivals use the same recipe.
    """
    if plan.like is not None:
        recipe = context.folder.candidate(plan.like).recipe
        assert recipe is not None, f"{plan.like} is an original or an average"
        return Recipe.from_dict(recipe)
    edit = PruneChannels.from_dict(plan.edit)
    with _without_pin_warnings():
        return Recipe([edit.plan(context.originals[plan.parent], context.calibration)])


def cut(recipe: Recipe, parent: keras.Model, data: Any = None) -> keras.Model:
    """Apply a recipe without warnings about pinned layers."""
    with _without_pin_warnings():
        return recipe(parent, data)


@contextmanager
def _without_pin_warnings() -> Iterator[None]:
    """Suppress warnings about pinned layers, which the report lists once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PinnedWarning)
        yield


def _cost(plan: CandidatePlan, model: keras.Model, context: RunContext) -> Cost:
    """Costs of the model, measured once for each structure, so that rivals cost the same.

    Raises:
        BudgetError: If a latency limit that was kept while cutting is exceeded now.
    """
    if plan.like is not None:
        return context.folder.candidate(plan.like).cost
    cost = context.gauge.cost(model)
    if not context.fits(cost):
        raise BudgetError(
            f"The cut model took {cost.latency:.3g} ms per batch when it was timed again, over "
            f"the budget '{context.budget}': times vary too much here, so raise it or limit MACs."
        )
    return cost


def layer_changes(parent: keras.Model, model: keras.Model) -> tuple[LayerChange, ...]:
    """Number of output channels of each layer, in the parent and in the model cut from it."""
    kinds = {layer.name: layer.kind for layer in profile(parent, latency=False).layers}
    after = {
        name: len(channels)
        for group in channel_groups(model)
        for name, channels in group.blocks.items()
    }
    return tuple(
        LayerChange(name, kinds.get(name, ""), len(channels), after[name], group.pinned)
        for group in channel_groups(parent)
        for name, channels in group.blocks.items()
        if name in after
    )


def _train_carefully(
    model: keras.Model,
    plan: CandidatePlan,
    context: RunContext,
    callbacks: Sequence[keras.callbacks.Callback],
    before: Score,
) -> Training:
    """Train, but keep carried-over weights that training does not improve.

    If the score after training is not better than before, lower learning rates are tried; if none
    helps, the weights stay as they were cut, and the scores before and after are equal.

    Raises:
        WorkError: If the training diverges at every learning rate.
    """
    if plan.kind == "fresh":
        return _train(model, plan, plan.learning_rate, context, callbacks)
    begin = model.get_weights()
    for times in range(TRIES):
        rate, last = plan.learning_rate / SLOWER**times, times == TRIES - 1
        try:
            training = _train(model, plan, rate, context, callbacks)
        except WorkError:
            if last:
                raise
        else:
            after = context.judge.score(context.judge.predict(model))
            if _rank(after) > _rank(before):
                break
        model.set_weights(begin)
    return training


def _rank(score: Score) -> tuple[float, float]:
    return goodness(score), -score.loss


def _train(
    model: keras.Model,
    plan: CandidatePlan,
    rate: float,
    context: RunContext,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Training:
    started = time.perf_counter()
    task_losses = [task.loss for task in context.judge.tasks]
    shared: dict[str, Any] = {
        "epochs": plan.epochs,
        "learning_rate": rate,
        "loss": task_losses[0] if len(task_losses) == 1 else task_losses,
        "seed": plan.seed,
        "progress": False,
        "callbacks": list(callbacks),
    }
    if plan.batch_size is not None:
        shared["batch_size"] = plan.batch_size
    distilled = plan.kind != "labels"
    with warnings.catch_warnings():
        # The report shows if no epoch was better.
        warnings.simplefilter("ignore", TrainingWarning)
        if distilled:
            shared |= {"temperature": plan.temperature, "alpha": plan.alpha}
            history = distill(model, context.teacher, context.train, context.validation, **shared)
        else:
            history = fit(model, context.train, context.validation, **shared)
    curves = {k: tuple(float(v) for v in values) for k, values in history.history.items()}
    return Training(
        teacher=context.teacher_name if distilled else None,
        epochs=len(history.epoch),
        learning_rate=rate,
        temperature=plan.temperature if distilled else None,
        alpha=plan.alpha if distilled else 1.0,
        seconds=time.perf_counter() - started,
        curves=curves,
    )
