"""`cut_in_steps`: a deep cut as several smaller ones, with distillation after each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Literal

import keras

from saikei.arguments import checked
from saikei.budget import Budget
from saikei.channels import map_channels
from saikei.costs import Counts, count_costs
from saikei.distilling import distill
from saikei.edits import Edit
from saikei.errors import InputError
from saikei.hub import task_data
from saikei.limits import EPOCHS, check_whole


@checked
def cut_in_steps(
    model: keras.Model,
    edit: Edit,
    train: Any,
    validation: Any = None,
    *,
    steps: int = 3,
    epochs: int = 10,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    verbose: Literal[0, 1, 2, "auto"] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> keras.Model:
    """Cut a model to a small budget in several steps, and distil it from the original after each.

    What a deep cut would lose at once, a model can learn again between smaller ones. Each step
    leaves the same share of what the step before it left: a tenth of the MACs in three steps is
    46 %, 22 % and 10 %.

    Args:
        model: A built model, or a task of KerasHub; it is the teacher, and is not changed.
        edit: The cut, with a `Budget`: `PruneChannels(Budget(macs=0.1))`,
            `RemoveLayers(Budget(params=0.25))`. Its limits are counted, not measured: no latency.
        train: As in `distill`; the edit is given it too.
        validation: As in `distill`.
        steps: How many cuts there are.
        epochs: Passes over the data of all steps together, at least one for each; the last step
            has those that are left over.
        batch_size: As in `distill`.
        seed: As in `distill`.
        progress: As in `distill`.
        verbose: As in `distill`.
        callbacks: As in `distill`; they are given to the training of each step.

    Returns:
        The cut and distilled model.

    Raises:
        InputError: When the edit has no budget or one that limits the latency, or there are fewer
            epochs than steps.
        EditError: When a budget cannot be reached.

    Example:
        >>> from saikei import PruneChannels
        >>> edit = PruneChannels(Budget(macs=0.1), scope="uniform")
        >>> small = cut_in_steps(task, edit, texts, steps=3, epochs=9)  # doctest: +SKIP
    """
    check_whole("cut_in_steps: steps", steps, kind=InputError)
    check_whole("cut_in_steps: epochs", epochs, steps, EPOCHS, InputError)
    name, budget = _budget(edit)
    calibration = task_data(model, train)
    whole = _counts(edit, model, calibration)
    current = model
    for step in range(1, steps + 1):
        limits = _limits(budget, whole, step / steps)
        if not limits.fits(_counts(edit, current, calibration), whole):
            smaller = replace(edit, **{name: limits})  # type: ignore[type-var]
            current = smaller(current, calibration)
        elif current is model:
            # A step before may have left less than it was to leave; the first one changes nothing.
            raise InputError(f"The model keeps the budget '{budget}' as it is: give a lower one.")
        distill(
            current,
            model,
            train,
            validation,
            epochs=epochs // steps + (epochs % steps if step == steps else 0),
            batch_size=batch_size,
            seed=seed,
            progress=progress,
            verbose=verbose,
            callbacks=callbacks,
        )
    return current


def _budget(edit: Edit) -> tuple[str, Budget]:
    """The name of the edit's argument that is a budget, and the budget."""
    edit_name = type(edit).__name__
    for field in fields(edit):  # type: ignore[arg-type]
        value = getattr(edit, field.name)
        if isinstance(value, Budget):
            if value.latency is not None:
                raise InputError(
                    f"The budget of {edit_name} limits the latency, which is never the same twice: "
                    "limit MACs or parameters where a cut is made in steps."
                )
            return field.name, value
    raise InputError(
        f"{edit_name} has no budget that steps could lead to: give one, such as "
        "PruneChannels(Budget(macs=0.1))."
    )


def _counts(edit: Edit, model: keras.Model, data: Any) -> Counts:
    return count_costs(map_channels(edit.read(model, data)))


def _limits(budget: Budget, whole: Counts, done: float) -> Budget:
    """The budget after a share of the steps; absolute, so that it does not depend on the model."""
    limits: dict[str, int] = {}
    for name, limit in budget.limits(whole).items():
        cost = budget.cost(whole, name)
        limits[name] = max(1, int(round(cost * (limit / cost) ** done, 6)))
    return replace(budget, **limits)  # type: ignore[arg-type]
