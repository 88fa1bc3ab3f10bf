"""From members and what they say of held-out rows to the exits of a cascade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any, Literal

import keras
import numpy as np

from saikei.channels import map_channels
from saikei.costs import count_costs, uncounted_layers
from saikei.edits.base import read_with_sizes
from saikei.errors import DataError, FusionError
from saikei.fusion.cascade.certify import certified
from saikei.fusion.cascade.policies import Goal, Policy, front
from saikei.fusion.cascade.stage_table import Trial, confidences
from saikei.fusion.evidence import Evidence
from saikei.models import Combine, Confidence, Exits
from saikei.scoring.counted import Labels
from saikei.scoring.outputs import Output, read_outputs
from saikei.scoring.score import per_sample
from saikei.scoring.task import Kind, Task


@dataclass(frozen=True)
class CascadeFit:
    """When rows leave a cascade, and what is known of it.

    Args:
        exits: thresholds, and how confidence is measured.
        shares: for each member the share of rows that it sees.
        accuracy: of the cascade.
        last_accuracy: of the last member alone.
        costs: of each member on one row: MACs, or the numbers that were given.
        mean_cost: of the cascade on one row.
        rows: number of held-out rows that all this was measured on.
        certainty: with which the goal is kept on rows to come; `None` where thresholds were
            given, or chosen by the same rows, which makes them look better than they are.
    """

    exits: Exits
    shares: tuple[float, ...]
    accuracy: float
    last_accuracy: float
    costs: tuple[float, ...]
    mean_cost: float
    rows: int
    certainty: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "exits": self.exits.to_dict()}


def open_exits(
    models: Sequence[keras.Model],
    tasks: Sequence[Task] | None,
    confidence: Confidence,
    combine: Combine,
) -> Exits:
    """Exits of these members through which every row leaves at once.

    Args:
        models: members that fit each other.
        tasks: of their outputs, where there are labels to tell them.
        confidence: how it is measured.
        combine: what a stage says.

    Raises:
        FusionError: when they are not classifiers with one output of one class for a row.
    """
    outputs = read_outputs(models[0]).each
    kind = _kind(outputs[0]) if tasks is None else tasks[0].kind
    shapes = [output.shape for output in outputs]
    decides = _decides(f"'{models[0].name}'", kind, shapes)
    logits = outputs[0].activation == "linear" if tasks is None else tasks[0].from_logits
    return Exits((0.0,) * (len(models) - 1), confidence, combine, decides, logits)


def exits_by(evidence: Evidence, confidence: Confidence, combine: Combine) -> Exits:
    """The same of members that are known by what they say.

    Args:
        evidence: labels, and what members say.
        confidence: how it is measured.
        combine: what a stage says.

    Raises:
        FusionError: likewise.
    """
    task, outputs = evidence.tasks[0], evidence.said.outputs
    shapes = [(None, *array.shape[1:]) for array in outputs[0]]
    decides = _decides("member 1", task.kind, shapes)
    return Exits((0.0,) * (len(outputs) - 1), confidence, combine, decides, task.from_logits)


def _decides(
    name: str, kind: Kind, shapes: Sequence[tuple[int | None, ...]]
) -> Literal["binary", "multiclass"]:
    if len(shapes) != 1:
        raise FusionError(
            f"A cascade needs members with one output, and {name} gives {len(shapes)}: give "
            "models of one of them."
        )
    (shape,) = shapes
    if kind not in ("binary", "multiclass") or len(shape) != 2:
        raise FusionError(
            f"A cascade needs members that say one class for a row, and {name} gives {kind} "
            f"outputs of shape {shape}, whose confidence is not defined: use Average."
        )
    if kind == "multiclass" and shape[1] == 1:
        raise FusionError(f"{name} knows one class alone: there is nothing to decide.")
    return kind


def _kind(output: Output) -> Kind:
    """What an output means, where there are no labels to tell it."""
    width = output.shape[-1]
    if output.activation == "softmax":
        return "multiclass"
    if output.activation == "sigmoid":
        return "binary" if width == 1 else "multilabel"
    return "regression" if width == 1 or output.activation != "linear" else "multiclass"


def make_trial(exits: Exits, evidence: Evidence, costs: Sequence[float]) -> Trial:
    """What each stage says of held-out rows, and costs.

    Args:
        exits: their thresholds are not looked at.
        evidence: of members with one output.
        costs: of each member alone.
    """
    (task,), (labels,) = evidence.tasks, evidence.labels
    outputs = [member[0] for member in evidence.said.outputs]
    kept = np.flatnonzero(labels.counted)
    outputs, labels = [one[kept] for one in outputs], labels[kept]
    counts, plain = labels.rows(), Labels(labels.values)
    upto = [exits.said(outputs[:count]) for count in range(1, len(outputs) + 1)]
    right = np.stack([per_sample(task, plain, said) > 0.5 for said in upto], axis=1)
    spent = np.fromiter(accumulate(costs), dtype=np.float64) / costs[-1]
    last_right = per_sample(task, plain, outputs[-1]) > 0.5
    return Trial(confidences(exits, outputs), right, last_right, spent, counts / counts.max())


def member_costs(
    models: Sequence[keras.Model], given: tuple[float, ...] | None, data: Any = None
) -> tuple[float, ...]:
    """What each member costs on one row: MACs where nothing else is given.

    Args:
        models: the members.
        given: what was given.
        data: of the size that MACs are counted at, where members take inputs of any size.

    Raises:
        FusionError: when costs are not one positive number for each member, or MACs cannot be
            counted.
    """
    if given is not None:
        check_costs(given, len(models))
        return given
    return tuple(_macs(model, data) for model in models)


def check_costs(given: tuple[float, ...], members: int) -> None:
    """Refuse costs that are not one positive number for each member.

    Raises:
        FusionError: with the numbers.
    """
    if len(given) != members or not all(cost > 0 for cost in given):
        raise FusionError(
            f"costs={given} for {members} members: give one positive number for each."
        )


def _macs(model: keras.Model, data: Any) -> float:
    channel_map = map_channels(read_with_sizes(model, data))
    unknown = uncounted_layers(channel_map)
    macs = count_costs(channel_map).macs
    if unknown or not macs:
        reason = f"those of {', '.join(unknown)} cannot be counted" if unknown else "it has none"
        raise FusionError(
            f"The MACs of '{model.name}' are not known ({reason}): give Cascade(costs=(…)), for "
            "example each member's milliseconds."
        )
    return float(macs)


def measured(
    exits: Exits, trial: Trial, costs: tuple[float, ...], certainty: float | None
) -> CascadeFit:
    """What exits do on rows.

    Args:
        exits: with their thresholds.
        trial: the rows.
        costs: of each member alone.
        certainty: of the goal.
    """
    stages = trial.stages(exits.thresholds)
    return CascadeFit(
        exits=exits,
        shares=tuple(trial.mean(stages >= stage) for stage in range(len(costs))),
        accuracy=trial.mean(trial.rights(exits.thresholds)),
        last_accuracy=trial.mean(trial.last_right),
        costs=costs,
        mean_cost=trial.mean(trial.spent(exits.thresholds)) * costs[-1],
        rows=len(trial),
        certainty=certainty,
    )


def fitted(
    exits: Exits,
    trial: Trial,
    goal: Goal,
    costs: tuple[float, ...],
    certainty: float | None,
    seed: int,
) -> CascadeFit:
    """Choose thresholds that keep a goal, and measure them.

    Args:
        exits: whose thresholds are to be chosen.
        trial: all held-out rows.
        goal: to keep.
        costs: of each member alone.
        certainty: with which the goal is to be kept on rows to come, or `None` to keep it on
            these.
        seed: of the split in halves.

    Raises:
        FusionError: when no thresholds keep it.
        DataError: when there are too few rows to split.
    """
    if certainty is None:
        path, checked = goal.path(front(trial)), trial
        chosen = goal.met(path, trial)
    else:
        if len(trial) < 2:
            raise DataError("One row cannot be split into halves: give more, or certainty=None.")
        order = np.random.default_rng(seed).permutation(len(trial))
        proposed, checked = trial.take(order[::2]), trial.take(order[1::2])
        path = goal.path(front(proposed))
        chosen = certified(path, goal, proposed, checked, certainty)
    if chosen is None:
        _check_saving(goal, costs)
        best = max(path, key=lambda policy: policy.accuracy)
        raise FusionError(
            f"No thresholds keep {goal} {_how_sure(certainty)}; on {len(trial):,} rows the most "
            f"accurate ones reach {best.accuracy:.4f}, and the last member alone "
            f"{trial.mean(trial.last_right):.4f}: {_fix(goal, path, trial, certainty)}."
        )
    found = measured(replace(exits, thresholds=chosen.thresholds), checked, costs, certainty)
    if found.mean_cost >= costs[-1] and found.accuracy <= found.last_accuracy:
        _check_saving(goal, costs)
        raise FusionError(
            f"To keep {goal} {_how_sure(certainty)}, so many rows need all members that the "
            f"cascade costs {found.mean_cost / costs[-1]:.2f} of the last member alone, and is no "
            "better: use that, aim lower, or give a better first member."
        )
    return found


def _check_saving(goal: Goal, costs: tuple[float, ...]) -> None:
    """Name the cost as the reason where no thresholds could save any.

    Raises:
        FusionError: when the first member, which runs on every row, costs what the last does.
    """
    if goal.kind != "cost" and costs[0] >= costs[-1]:
        raise FusionError(
            f"The first member costs as much as the last one ({costs[0]:,.0f} and {costs[-1]:,.0f})"
            " and runs on every row, so a cascade of them saves nothing: put a cheaper member "
            "first, or use Average."
        )


def _fix(goal: Goal, path: list[Policy], trial: Trial, certainty: float | None) -> str:
    """What helps where no thresholds keep a goal."""
    # A row that goes to the last member keeps a share of its accuracy, whatever the rows.
    reached = goal.kind == "share" and goal.bound < 1
    reached = reached or any(goal.margins(one, trial).mean() >= 0 for one in path)
    if certainty is not None and reached:
        return "give more held-out rows, aim lower, or lower certainty"
    return "allow more, or give a smaller first member" if goal.kind == "cost" else "aim lower"


def _how_sure(certainty: float | None) -> str:
    return "on these rows" if certainty is None else f"with a certainty of {certainty:g}"
