"""A team as one Keras model, with its exact cost, and as a teacher."""

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
from saikei.search.compose.soups import merged
from saikei.search.compose.team import Team
from saikei.training.digests import digest_data
from saikei.training.provenance import record_rows


@dataclass(frozen=True, eq=False)
class Built:
    """A team that was built.

    Args:
        model: The model, which is not compiled.
        cost: Its exact cost, in which layers that members share count once.
    """

    model: keras.Model = field(repr=False)
    cost: Cost


def build(
    team: Team,
    load: Callable[[str], keras.Model],
    measure: Callable[[keras.Model], Cost],
    budget: Budget,
    whole: Cost,
    x: Any = None,
) -> Built:
    """Build a team's model and count its exact cost.

    Args:
        team: The team.
        load: Loads a member by its name.
        measure: Counts the cost of a model.
        budget: The budget as given.
        whole: The cost that the budget's shares refer to.
        x: The inputs of validation: a soup measures the statistics of BatchNormalization on them,
            and a model that was fitted to them counts as trained on them.

    Raises:
        BudgetError: When the exact cost is above a limit.
    """
    model = fused(team, load, x)
    cost = measure(model)
    if not budget.fits(cost, whole):
        over = [
            f"{name} {budget.cost(cost, name):,.4g} of at most {limit:,.4g}"
            for name, limit in budget.limits(whole).items()
            if budget.cost(cost, name) > limit
        ]
        raise BudgetError(
            f"The {team.method} of {', '.join(team.members)} costs more than the budget once it is "
            f"built ({'; '.join(over)}): take another team."
        )
    return Built(model, cost)


def fused(team: Team, load: Callable[[str], keras.Model], x: Any = None) -> keras.Model:
    """The model of a team, whose members are copied and not changed.

    Members with different inputs become one model that takes a dictionary of all of them.

    Args:
        team: The team.
        load: Loads a member by its name.
        x: As for `build`.
    """
    models = [load(name) for name in team.members]
    if team.fusion is None:
        return models[0]
    if not isinstance(team.fusion, OutputFusion):
        return merged(models, x)
    members = Members.of(models)
    if team.multimodal:
        members = by_name(members)
    members.check_alike()
    model = team.fusion.build(members, team.head)
    if x is not None and team.complexity > 1:
        record_rows(model, digest_data((x,)), type(team.fusion).__name__)
    return model


def teacher(
    team: Team, load: Callable[[str], keras.Model], data: Any, x: Any = None
) -> StoredTeacher:
    """A team's predictions of the training rows, from which one network of the budget can learn.

    Each member runs once on each row, and of a cascade only where the earlier ones are not
    confident.

    Args:
        team: The team.
        load: Loads a member by its name.
        data: Training data, `(x, y)` arrays or a dataset, which is read once.
        x: The inputs of validation, as for `build`.

    Raises:
        DataError: When the data does not fit the members.
    """
    return StoredTeacher.of(fused(team, load, x), data)
