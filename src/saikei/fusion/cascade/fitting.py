"""The exits of a cascade, fitted to its members' predictions of held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np

from saikei.batches import Array
from saikei.codec import ToDict
from saikei.errors import DataError, FusionError
from saikei.fusion.cascade.certify import certified
from saikei.fusion.cascade.policies import Goal, Policy, front
from saikei.fusion.cascade.stage_table import StageTable, stage_confidences, stages_of
from saikei.fusion.evidence import Evidence, MemberOutputs
from saikei.models import Exits
from saikei.models.cascade import select
from saikei.scoring.labels import Labels
from saikei.scoring.score import per_sample


@dataclass(frozen=True)
class CascadeFit(ToDict):
    """When rows leave a cascade, and how accurate and costly it is on held-out rows.

    Args:
        exits: The thresholds, and how confidence is measured.
        shares: For each member the share of rows that it sees.
        accuracy: The accuracy of the cascade.
        last_accuracy: The accuracy of the last member alone.
        costs: The cost of each member on one row: MACs, or the numbers that were given.
        mean_cost: The mean cost of the cascade on one row, in the same unit.
        rows: The number of held-out rows that all this was measured on.
        certainty: The probability with which the goal is kept on new rows; `None` where thresholds
            were given, or chosen and measured on the same rows, which is optimistic.
    """

    exits: Exits
    shares: tuple[float, ...]
    accuracy: float
    last_accuracy: float
    costs: tuple[float, ...]
    mean_cost: float
    rows: int
    certainty: float | None


@dataclass(frozen=True)
class ExitHead:
    """A fitted cascade over stored predictions: each row gets the output of the stage it leaves at.

    Args:
        exits: Thresholds, and how confidence is measured.
        fitted: What was measured on held-out rows; `None` without any.
    """

    exits: Exits
    fitted: CascadeFit | None

    def predict(self, predictions: MemberOutputs) -> tuple[Array, ...]:
        """The cascade's output, one array `(n, …)`, from the members' predictions."""
        outputs, stages = [member[0] for member in predictions.outputs], self.stages(predictions)
        exits = self.exits
        upto = np.stack([exits.output(outputs[:count]) for count in range(1, len(outputs) + 1)])
        return (np.asarray(upto[stages, np.arange(len(stages))]),)

    def stages(self, predictions: MemberOutputs) -> Array:
        """The stage at which each row leaves, int `(n,)`, from 0."""
        exits = self.exits
        confidences = stage_confidences(exits, [member[0] for member in predictions.outputs])
        return stages_of(confidences, exits.thresholds)

    def connect(self, predictions: MemberOutputs, name: str) -> tuple[Any, ...]:  # noqa: ARG002 - no new weights
        """The output in a graph, in which all members run."""
        return (select(self.exits, [member[0] for member in predictions.outputs]),)

    @property
    def summary(self) -> str:
        """Empty: the thresholds are in the model."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """The fitted exits, JSON-ready."""
        return {"exits": self.exits.to_dict()} if self.fitted is None else self.fitted.to_dict()


def make_stage_table(exits: Exits, evidence: Evidence, costs: Sequence[float]) -> StageTable:
    """Tabulate what each stage predicts of held-out rows, and what it costs."""
    (task,), (labels,) = evidence.tasks, evidence.labels
    outputs = [member[0] for member in evidence.predictions.outputs]
    kept = np.flatnonzero(labels.counted)
    outputs, labels = [one[kept] for one in outputs], labels[kept]
    counts, plain = labels.rows(), Labels(labels.values)
    upto = [exits.output(outputs[:count]) for count in range(1, len(outputs) + 1)]
    right = np.stack([per_sample(task, plain, output) > 0.5 for output in upto], axis=1)
    spent = np.fromiter(accumulate(costs), dtype=np.float64) / costs[-1]
    last_right = per_sample(task, plain, outputs[-1]) > 0.5
    return StageTable(
        stage_confidences(exits, outputs), right, last_right, spent, counts / counts.max()
    )


def measure_exits(
    exits: Exits, table: StageTable, costs: tuple[float, ...], certainty: float | None
) -> CascadeFit:
    """Measure shares, accuracy and cost of exits on rows.

    Args:
        exits: The exits, with their thresholds.
        table: The rows to measure on.
        costs: The cost of each member alone.
        certainty: The certainty with which the exits were chosen; `None` without one.
    """
    stages = table.stages(exits.thresholds)
    return CascadeFit(
        exits=exits,
        shares=tuple(table.mean(stages >= stage) for stage in range(len(costs))),
        accuracy=table.mean(table.rights(exits.thresholds)),
        last_accuracy=table.mean(table.last_right),
        costs=costs,
        mean_cost=table.mean(table.spent(exits.thresholds)) * costs[-1],
        rows=len(table),
        certainty=certainty,
    )


def fit_exits(
    exits: Exits,
    table: StageTable,
    goal: Goal,
    costs: tuple[float, ...],
    certainty: float | None,
    seed: int,
) -> CascadeFit:
    """Choose thresholds that keep a goal, and measure them.

    Args:
        exits: How confidence is measured; its thresholds are replaced.
        table: All held-out rows.
        goal: The goal to keep.
        costs: The cost of each member alone.
        certainty: The probability with which the goal is to be kept on new rows; `None` to keep it
            on these, without a guarantee for new rows.
        seed: Seed of the split into halves.

    Raises:
        FusionError: When no thresholds keep the goal.
        DataError: When there are too few rows to split.
    """
    if certainty is None:
        path, checked = goal.path(front(table)), table
        chosen = goal.met(path, table)
    else:
        if len(table) < 2:
            raise DataError("One row cannot be split into halves: give more, or certainty=None.")
        order = np.random.default_rng(seed).permutation(len(table))
        proposed, checked = table.take(order[::2]), table.take(order[1::2])
        path = goal.path(front(proposed))
        chosen = certified(path, goal, proposed, checked, certainty)
    if chosen is None:
        _check_saving(goal, costs)
        best = max(path, key=lambda policy: policy.accuracy)
        raise FusionError(
            f"No thresholds keep {goal} {_how_sure(certainty)}; on {len(table):,} rows the most "
            f"accurate ones reach {best.accuracy:.4f}, and the last member alone "
            f"{table.mean(table.last_right):.4f}: {_fix(goal, path, table, certainty)}."
        )
    found = measure_exits(replace(exits, thresholds=chosen.thresholds), checked, costs, certainty)
    if found.mean_cost >= costs[-1] and found.accuracy <= found.last_accuracy:
        _check_saving(goal, costs)
        raise FusionError(
            f"To keep {goal} {_how_sure(certainty)}, so many rows need all members that the "
            f"cascade costs {found.mean_cost / costs[-1]:.2f} of the last member alone, and is no "
            "better: use that, aim lower, or give a better first member."
        )
    return found


def _check_saving(goal: Goal, costs: tuple[float, ...]) -> None:
    """Refuse members of which no cascade could save cost.

    Raises:
        FusionError: When the first member, which runs on every row, costs what the last does.
    """
    if goal.kind != "cost" and costs[0] >= costs[-1]:
        raise FusionError(
            f"The first member costs as much as the last one ({costs[0]:,.0f} and {costs[-1]:,.0f})"
            " and runs on every row, so a cascade of them saves nothing: put a cheaper member "
            "first, or use Average."
        )


def _fix(goal: Goal, path: list[Policy], table: StageTable, certainty: float | None) -> str:
    """The advice of the error message where no thresholds keep a goal."""
    # A row that goes to the last member keeps a share of its accuracy, whatever the rows.
    reached = goal.kind == "share" and goal.bound < 1
    reached = reached or any(goal.margins(one, table).mean() >= 0 for one in path)
    if certainty is not None and reached:
        return "give more held-out rows, aim lower, or lower certainty"
    return "allow more, or give a smaller first member" if goal.kind == "cost" else "aim lower"


def _how_sure(certainty: float | None) -> str:
    return "on these rows" if certainty is None else f"with a certainty of {certainty:g}"
