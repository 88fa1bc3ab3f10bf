"""Refuse members whose outputs have another order or that expect other inputs, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from saikei.batches import Array
from saikei.data import gathered
from saikei.errors import FusionError
from saikei.fusion.agreement.order import Order, in_order, other_order
from saikei.fusion.agreement.preprocessing import BetterPreprocessing, better_preprocessing
from saikei.fusion.agreement.skill import SKILLED, skills, tempered_skill
from saikei.fusion.members import Members, inputs_of
from saikei.graph import build
from saikei.scoring.labelled import Labelled
from saikei.scoring.labels import Labels
from saikei.scoring.observed import counted_labels
from saikei.scoring.score import per_sample
from saikei.scoring.task import Task, labels_of

# How far a member's skill is below the best member's before its preprocessing is questioned.
BEHIND = 0.2
# The share of the best member's skill that a member has to have in the right order.
SHARE = 0.75
_SHOWN = 40


def check_agreement(
    members: Members,
    tasks: Sequence[Task],
    labels: Sequence[Labels],
    outputs: Sequence[Sequence[Array]],
    data: Any,
) -> None:
    """Check that members have their classes in one order, and were trained on inputs like these.

    Both are inferred from held-out data, and only where it leaves no doubt. Members that are all
    wrong alike pass.

    Args:
        members: Members with equal inputs and outputs.
        tasks: What each output learns.
        labels: The labels of each output, with how much each counts.
        outputs: For each member one array of predictions for each output.
        data: `(x, y)` arrays or a dataset; it is read only where one member is far worse than
            another.
    """
    truths = [labels_of(*one) for one in zip(tasks, outputs[0], labels, strict=True)]
    for index, (task, truth) in enumerate(zip(tasks, truths, strict=True)):
        _check_order(members, task, truth, [one[index] for one in outputs], index)
    _check_preprocessing(members, tasks, truths, outputs, data)


def _check_order(
    members: Members,
    task: Task,
    truth: Labels,
    outputs: Sequence[Array],
    index: int,
) -> None:
    orders = [other_order(task, truth, given) for given in outputs]
    if not any(orders):
        return
    best = max(tempered_skill(task, truth, given) for given in outputs)
    for number, (member, given, order) in enumerate(
        zip(members.models, outputs, orders, strict=True), start=1
    ):
        if order is None:
            continue
        ordered = in_order(task, given, order.columns)
        if tempered_skill(task, truth, ordered) >= max(SKILLED, SHARE * best):
            who = f"Member {number} ('{member.name}')"
            raise FusionError(_misordered(who, member, index, task, truth, given, order))


def _check_preprocessing(
    members: Members,
    tasks: Sequence[Task],
    labels: Sequence[Labels],
    outputs: Sequence[Sequence[Array]],
    data: Any,
) -> None:
    skill = [float(skills(Labelled.of(tasks, labels), given).mean()) for given in outputs]
    best = int(np.argmax(skill))
    behind = [index for index, one in enumerate(skill) if skill[best] - one >= BEHIND]
    whole = gathered(data) if behind else None
    # A dataset may come in another order now, so its labels are read again.
    known = tuple(labels) if isinstance(data, (tuple, list)) or whole is None else None
    for index in behind:
        assert whole is not None
        member = members.models[index]
        graph, read = members.graphs[index], members.outputs[index]
        own = inputs_of(graph, whole.x)
        given = counted_labels(member, tasks, whole, read) if known is None else known
        found = better_preprocessing(build(graph), tasks, own, given, skill[best])
        if found is not None:
            raise FusionError(
                f"Member {index + 1} ('{member.name}') expects other preprocessing than member "
                f"{best + 1}: with inputs {found.preprocessing.done}, {_gain(found)}. Put that "
                f"before it: keras.Model(x, model({found.preprocessing.code}))."
            )


def _misordered(
    who: str,
    member: keras.Model,
    index: int,
    task: Task,
    truth: Labels,
    given: Array,
    order: Order,
) -> str:
    named = {"regression": "targets", "multilabel": "labels"}.get(task.kind, "classes")
    output = f"model.outputs[{index}]"
    # A list of one input would be another structure than the one input.
    inputs = "model.inputs[0]" if len(member.inputs) == 1 else "model.input"
    listed = _listed(order.columns)
    fix = f"keras.ops.take({output}, {listed}, axis=-1)"
    if task.kind == "binary":
        fix = f"keras.layers.Rescaling(-1{'' if task.from_logits else ', offset=1'})({output})"
    how = "it fits far better"
    if task.kind != "regression":
        now, then = (
            float(per_sample(task, truth, one).mean())
            for one in (given, in_order(task, given, order.columns))
        )
        how = f"it is right in {then:.0%} of the rows instead of {now:.0%}"
    return (
        f"{who} gives its {named} in another order than the labels: in the order {listed} {how}. "
        f"Bring them into the order of the labels: keras.Model({inputs}, {fix})."
    )


def _listed(columns: Sequence[int]) -> str:
    shown = ", ".join(str(column) for column in columns[:_SHOWN])
    return f"[{shown}, …]" if len(columns) > _SHOWN else f"[{shown}]"


def _gain(found: BetterPreprocessing) -> str:
    loss = "its loss drops from {:.3g} to {:.3g}".format(*found.losses)
    if found.right is None:
        return loss
    return loss + " and {1:.0%} of the rows are right instead of {0:.0%}".format(*found.right)
