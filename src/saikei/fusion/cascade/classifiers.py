"""Whether members make a cascade of classifiers, and what each of them costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras

from saikei.channels import ChannelMap
from saikei.costs import count_costs, uncounted_layers
from saikei.edits.base import with_sizes
from saikei.errors import FusionError
from saikei.fusion.members import Members
from saikei.graph import Graph
from saikei.models import Combine, Confidence, Exits
from saikei.scoring.outputs import Output
from saikei.scoring.task import Kind, Task


def open_exits(
    members: Members,
    tasks: Sequence[Task] | None,
    confidence: Confidence,
    combine: Combine,
) -> Exits:
    """Exits for these members with all thresholds 0: every row leaves at the first.

    Args:
        members: Two or more, with equal inputs and outputs.
        tasks: The tasks of their outputs; `None` to infer the task from the activations.
        confidence: How confidence is measured.
        combine: How a stage combines the members' outputs.

    Raises:
        FusionError: When they are not classifiers with one output of one class for a row.
    """
    outputs = members.outputs[0].each
    kind = _kind(outputs[0]) if tasks is None else tasks[0].kind
    shapes = [output.shape for output in outputs]
    decides = _decides(f"'{members.names[0]}'", kind, shapes)
    logits = outputs[0].activation == "linear" if tasks is None else tasks[0].from_logits
    return Exits((0.0,) * (len(members) - 1), confidence, combine, decides, logits)


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
            f"A cascade needs members that predict one class for a row, and {name} gives {kind} "
            f"outputs of shape {shape}, whose confidence is not defined: use Average."
        )
    if kind == "multiclass" and shape[1] == 1:
        raise FusionError(f"{name} has one class alone: there is nothing to decide.")
    return kind


def _kind(output: Output) -> Kind:
    """The kind of an output, from its shape and activation."""
    width = output.shape[-1]
    if output.activation == "softmax":
        return "multiclass"
    if output.activation == "sigmoid":
        return "binary" if width == 1 else "multilabel"
    return "regression" if width == 1 or output.activation != "linear" else "multiclass"


def member_costs(
    members: Members, given: tuple[float, ...] | None, data: Any = None
) -> tuple[float, ...]:
    """The cost of each member on one row: MACs where no other costs are given.

    Args:
        members: The members to count for.
        given: The costs that were given; `None` to count MACs.
        data: Inputs of the size at which MACs are counted, for members that take any size.

    Raises:
        FusionError: When costs are not one positive number for each member, or MACs cannot be
            counted.
    """
    if given is not None:
        check_costs(given, len(members))
        return given
    if members.stored:
        raise FusionError("Stored predictions have no MACs: give Cascade(costs=(…)).")
    each = zip(members.models, members.graphs, strict=True)
    return tuple(_macs(model, graph, data) for model, graph in each)


def check_costs(given: tuple[float, ...], members: int) -> None:
    """Refuse costs that are not one positive number for each member."""
    if len(given) != members or not all(cost > 0 for cost in given):
        raise FusionError(
            f"costs={given} for {members} members: give one positive number for each."
        )


def _macs(model: keras.Model, graph: Graph, data: Any) -> float:
    channel_map = ChannelMap.of_whole(with_sizes(graph, model, data))
    unknown = uncounted_layers(channel_map)
    macs = count_costs(channel_map).macs
    if unknown or not macs:
        reason = f"those of {', '.join(unknown)} cannot be counted" if unknown else "it has none"
        raise FusionError(
            f"The MACs of '{model.name}' are not known ({reason}): give Cascade(costs=(…)), for "
            "example each member's milliseconds."
        )
    return float(macs)
