"""An ensemble as one Keras model, with its exact cost, and as a teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras

from saikei.budget import Budget
from saikei.distilling.stored_teacher import StoredTeacher
from saikei.errors import BudgetError
from saikei.fusion.base import OutputFusion
from saikei.fusion.members import Members
from saikei.fusion.multimodal.inputs import by_name
from saikei.runs.candidate import Cost
from saikei.search.compose.ensemble import Ensemble
from saikei.search.compose.soups import merged
from saikei.training.digests import digest_data
from saikei.training.provenance import record_rows


@dataclass(frozen=True, eq=False)
class Built:
    """An ensemble that was built.

    Args:
        model: The model, which is not compiled.
        cost: Its exact cost, in which layers that members share count once.
    """

    model: keras.Model = field(repr=False)
    cost: Cost


def build(
    ensemble: Ensemble,
    load: Callable[[str], keras.Model],
    measure: Callable[[keras.Model], Cost],
    budget: Budget,
    whole: Cost,
    x: Any = None,
) -> Built:
    """Build an ensemble's model and count its exact cost.

    Args:
        ensemble: The ensemble.
        load: Loads a member by its name.
        measure: Counts the cost of a model.
        budget: The budget as given.
        whole: The cost that the budget's shares refer to.
        x: The inputs of validation: a soup measures the statistics of BatchNormalization on them,
            and a model that was fitted to them counts as trained on them.

    Raises:
        BudgetError: When the exact cost is above a limit.
    """
    model = fused(ensemble, load, x)
    cost = measure(model)
    if not budget.fits(cost, whole):
        over = [
            f"{name} {budget.cost(cost, name):,.4g} of at most {limit:,.4g}"
            for name, limit in budget.limits(whole).items()
            if budget.cost(cost, name) > limit
        ]
        raise BudgetError(
            f"The {ensemble.method} of {', '.join(ensemble.members)} costs more than the budget "
            f"once it is built ({'; '.join(over)}): take another ensemble."
        )
    return Built(model, cost)


def fused(ensemble: Ensemble, load: Callable[[str], keras.Model], x: Any = None) -> keras.Model:
    """The model of an ensemble, whose members are copied and not changed.

    Members with different inputs become one model that takes a dictionary of all of them.

    Args:
        ensemble: The ensemble.
        load: Loads a member by its name.
        x: As for `build`.
    """
    models = [load(name) for name in ensemble.members]
    if ensemble.fusion is None:
        return models[0]
    if not isinstance(ensemble.fusion, OutputFusion):
        return merged(models, x)
    members = Members.of(models)
    if ensemble.multimodal:
        members = by_name(members)
    members.check_alike()
    model = ensemble.fusion.build(members, ensemble.head)
    if x is not None and ensemble.complexity > 1:
        record_rows(model, digest_data((x,)), type(ensemble.fusion).__name__)
    return model


def teacher(
    ensemble: Ensemble, load: Callable[[str], keras.Model], data: Any, x: Any = None
) -> StoredTeacher:
    """Predictions of the training rows, from which one network of the budget can learn.

    Each member runs once on each row, and of a cascade only where the earlier ones are not
    confident.

    Args:
        ensemble: The ensemble.
        load: Loads a member by its name.
        data: Training data, `(x, y)` arrays or a dataset, which is read once.
        x: The inputs of validation, as for `build`.

    Raises:
        DataError: When the data does not fit the members.
    """
    return StoredTeacher.of(fused(ensemble, load, x), data)
