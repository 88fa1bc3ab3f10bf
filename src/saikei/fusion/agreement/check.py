"""Refusing members that mean something else by the same shapes, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from saikei.batches import Array
from saikei.data import gathered
from saikei.errors import FusionError
from saikei.fusion.agreement.order import Order, in_order, other_order
from saikei.fusion.agreement.preparation import Preparation, other_preparation
from saikei.fusion.agreement.skill import KNOWS, skills, tempered_skill
from saikei.fusion.members import Members, inputs_of
from saikei.graph import build
from saikei.scoring.counted import Labels
from saikei.scoring.labelled import Labelled
from saikei.scoring.observed import counted_labels
from saikei.scoring.score import per_sample
from saikei.scoring.task import Task, labels_of

# In skill, behind the best member: 1 is all that can be known.
BEHIND = 0.2
# Of what the best member knows, in the right order.
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

    Both are told from held-out data, and only where it leaves no doubt. Members that are all
    wrong in the same way agree.

    Args:
        members: with equal inputs and outputs.
        tasks: what each output learns.
        labels: of each output, with what counts of them.
        outputs: for each member one array for each output.
        data: `(x, y)` arrays or a dataset; it is read only where one member is worse by far than
            another.

    Raises:
        FusionError: naming the member that differs, and the mend.
    """
    truths = [labels_of(*one) for one in zip(tasks, outputs[0], labels, strict=True)]
    for place, (task, truth) in enumerate(zip(tasks, truths, strict=True)):
        _check_order(members, task, truth, [said[place] for said in outputs], place)
    _check_preparation(members, tasks, truths, outputs, data)


def _check_order(
    members: Members,
    task: Task,
    truth: Labels,
    outputs: Sequence[Array],
    place: int,
) -> None:
    orders = [other_order(task, truth, said) for said in outputs]
    if not any(orders):
        return
    best = max(tempered_skill(task, truth, said) for said in outputs)
    for number, (member, said, order) in enumerate(
        zip(members.models, outputs, orders, strict=True), start=1
    ):
        if order is None:
            continue
        ordered = in_order(task, said, order.places)
        if tempered_skill(task, truth, ordered) >= max(KNOWS, SHARE * best):
            who = f"Member {number} ('{member.name}')"
            raise FusionError(_misordered(who, member, place, task, truth, said, order))


def _check_preparation(
    members: Members,
    tasks: Sequence[Task],
    labels: Sequence[Labels],
    outputs: Sequence[Sequence[Array]],
    data: Any,
) -> None:
    skill = [float(skills(Labelled.of(tasks, labels), said).mean()) for said in outputs]
    best = int(np.argmax(skill))
    behind = [place for place, one in enumerate(skill) if skill[best] - one >= BEHIND]
    whole = gathered(data) if behind else None
    # A dataset may come in another order now, so that its labels are read again.
    known = tuple(labels) if isinstance(data, (tuple, list)) or whole is None else None
    for place in behind:
        assert whole is not None
        member = members.models[place]
        graph, read = members.graphs[place], members.outputs[place]
        own = inputs_of(graph, whole.x)
        told = counted_labels(member, tasks, whole, read) if known is None else known
        found = other_preparation(build(graph), tasks, own, told, skill[best])
        if found is not None:
            raise FusionError(
                f"Member {place + 1} ('{member.name}') was trained on inputs that were prepared "
                f"otherwise than these, which suit member {best + 1}: once they are "
                f"{found.way.done}, {_gain(found)}. Put that before it, in a model of its own: "
                f"keras.Model(x, model({found.way.mend}))."
            )


def _misordered(
    who: str,
    member: keras.Model,
    place: int,
    task: Task,
    truth: Labels,
    said: Array,
    order: Order,
) -> str:
    named = {"regression": "targets", "multilabel": "labels"}.get(task.kind, "classes")
    output = f"model.outputs[{place}]"
    # A list of one input would be another structure than the one input.
    inputs = "model.inputs[0]" if len(member.inputs) == 1 else "model.input"
    listed = _listed(order.places)
    mend = f"keras.ops.take({output}, {listed}, axis=-1)"
    if task.kind == "binary":
        mend = f"keras.layers.Rescaling(-1{'' if task.from_logits else ', offset=1'})({output})"
    how = "it fits far better"
    if task.kind != "regression":
        now, then = (
            float(per_sample(task, truth, one).mean())
            for one in (said, in_order(task, said, order.places))
        )
        how = f"it is right in {then:.0%} of the rows instead of {now:.0%}"
    return (
        f"{who} gives its {named} in another order than the labels: in the order {listed} {how}. "
        f"Bring them into the order of the labels: keras.Model({inputs}, {mend})."
    )


def _listed(places: Sequence[int]) -> str:
    shown = ", ".join(str(place) for place in places[:_SHOWN])
    return f"[{shown}, …]" if len(places) > _SHOWN else f"[{shown}]"


def _gain(found: Preparation) -> str:
    loss = "its loss is {1:.3g} instead of {0:.3g}".format(*found.losses)
    if found.right is None:
        return loss
    return loss + " and {1:.0%} of the rows are right instead of {0:.0%}".format(*found.right)
