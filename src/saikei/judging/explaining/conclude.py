"""From a team to its explanation: who is worth what, and who can go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saikei.batches import Array
from saikei.judging.explaining.coalitions import JoinedTeam, MeanTeam, Team
from saikei.judging.explaining.comparison import view_of
from saikei.judging.explaining.explanation import Explanation, MemberPart
from saikei.judging.explaining.games import Metric, game_of
from saikei.judging.explaining.removable import losses_without, removable
from saikei.judging.explaining.shapley import shapley
from saikei.scoring.counted import Labels
from saikei.scoring.labelled import Labelled
from saikei.scoring.task import Task


def conclude(
    tasks: tuple[Task, ...],
    labels: tuple[Labels, ...],
    team: Team,
    names: Sequence[str],
    metric: Metric,
    orders: int,
    seed: int,
) -> Explanation:
    """Explain a team.

    Args:
        tasks: what each output learns.
        labels: of each output.
        team: of the members.
        names: of the members.
        metric: what is gained and lost.
        orders: how many to draw, of more members than have exact values.
        seed: of the orders.

    Raises:
        FusionError: when the metric is unknown, or there is none like it of the tasks.
        DataError: when predictions do not fit the labels.
    """
    game = game_of(tasks, labels, team, metric)
    count = game.members
    shared = shapley(game, orders, seed)
    without = losses_without(game, [(i,) for i in range(count)])
    gone = removable(game)
    fused = team.outputs(np.ones(count, dtype=np.bool_))
    weights = _weights(team)
    parts = tuple(
        MemberPart(
            name=str(names[i]),
            alone=Labelled.of(tasks, labels).score(team.said.outputs[i]),
            shapley=float(shared.values[i]),
            error=float(shared.errors[i]),
            sampling_error=float(shared.sampling_errors[i]),
            without=without[i],
            weight=None if weights is None else float(weights[i]),
            can_go=i in gone.members,
        )
        for i in range(count)
    )
    views = tuple(
        view_of(task, y, [member[place] for member in team.said.outputs], fused[place])
        for place, (task, y) in enumerate(zip(tasks, labels, strict=True))
    )
    return Explanation(
        metric=_metric_name(tasks, metric),
        members=parts,
        fused=Labelled.of(tasks, labels).score(fused),
        everybody=shared.everybody,
        nobody=shared.nobody,
        removable=gone,
        outputs=views,
        absence=team.absence,
        orders=shared.orders,
    )


def _weights(team: Team) -> Array | None:
    if isinstance(team, MeanTeam):
        return np.array(team.weights)
    if isinstance(team, JoinedTeam):
        each = [_weights(part) for _, part in team.parts]
        known = [one for one in each if one is not None]
        return np.mean(known, axis=0) if len(known) == len(each) else None
    return None


def _metric_name(tasks: Sequence[Task], metric: Metric) -> str:
    if metric == "accuracy":
        return "error rate"
    if len(tasks) > 1:
        return "loss"
    return "squared error" if tasks[0].kind == "regression" else "log-loss"
