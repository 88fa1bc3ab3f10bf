"""Which layers take a BatchNormalization's scale and shift: those before it, or those after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from saikei.edits.folding.affine import Affine, CannotFoldError, fold_ahead, fold_behind
from saikei.edits.folding.no_ops import is_no_op
from saikei.edits.folding.readers import OUTPUT
from saikei.graph import Graph, Operation, TensorRef
from saikei.rules.wrapping import JOINED, STEPS

Readers = Mapping[TensorRef, list[int]]


@dataclass(frozen=True)
class Route:
    """Where one BatchNormalization call's scale and shift go.

    Args:
        call: The position of the BatchNormalization's call in the graph.
        shares: For each call that takes some of it, what it takes.
        ahead: Whether these calls read it; otherwise they come before.
    """

    call: int
    shares: Mapping[int, Affine]
    ahead: bool

    def folded(self, graph: Graph) -> dict[str, Operation]:
        """The layers that take it, changed.

        Raises:
            CannotFoldError: When one of them cannot.
        """
        fold = fold_ahead if self.ahead else fold_behind
        return {
            graph.calls[index].operation: fold(
                graph.operations[graph.calls[index].operation].bare(), affine
            )
            for index, affine in self.shares.items()
        }


def route_back(graph: Graph, readers: Readers, call: int, affine: Affine) -> Route:
    """Lead a scale and shift back to the linear layers before, through what lets them pass.

    Raises:
        CannotFoldError: When they cannot be led back without changing what others read.
    """
    shares: dict[int, Affine] = {}
    pending = [(graph.calls[call].inputs()[0], affine)]
    while pending:
        ref, needed = pending.pop()
        maker = graph.calls[ref.call]
        if len(readers[ref]) != 1:
            raise CannotFoldError(f"what '{maker.operation}' gives is read elsewhere too")
        if graph.operations[maker.operation].weights or not maker.inputs():
            shares[ref.call] = needed
        else:
            pending.extend(_through(graph, ref.call, needed))
    return Route(call, shares, ahead=False)


def route_ahead(graph: Graph, readers: Readers, call: int, affine: Affine) -> Route:
    """Lead a scale and shift on to the layers that read it.

    Raises:
        CannotFoldError: When something else than a call reads it, namely whoever reads the
            model's outputs.
    """
    reading = readers[TensorRef(call, 0)]
    if OUTPUT in reading:
        raise CannotFoldError("it gives an output of the model")
    for index in reading:
        if len(graph.calls[index].inputs()) != 1:
            name = graph.calls[index].operation
            raise CannotFoldError(f"'{name}' reads other tensors too")
    return Route(call, dict.fromkeys(reading, affine), ahead=True)


def _through(graph: Graph, index: int, affine: Affine) -> list[tuple[TensorRef, Affine]]:
    """What the inputs of a call without weights need for its output to be scaled and shifted."""
    call = graph.calls[index]
    operation = graph.operations[call.operation]
    kind, refs = operation.kind, call.inputs()
    if kind in ("Add", "ops.Add"):
        return _through_add(graph, index, affine)
    if kind in ("Concatenate", "ops.Concatenate"):
        return _through_concatenate(graph, index, affine)
    if kind in (STEPS, JOINED):
        # The axis of the steps, after the batch axis, goes or comes back.
        lost = 1 if kind == STEPS else -1
        if affine.axis + lost < 1:
            raise CannotFoldError(f"'{call.operation}' joins the axis that it scales")
        return [(refs[0], affine.at(affine.axis + lost, affine.rank + lost))]
    if is_no_op(graph, index) or _commutes(operation, affine):
        rank = len(graph.spec(refs[0]).shape)
        # Global pooling leaves the channels last, wherever they were.
        first = (operation.config or {}).get("data_format") == "channels_first"
        lost = rank - affine.rank
        axis = affine.axis if lost == 0 else 1 if first else rank - 1
        return [(refs[0], affine.at(axis, rank))]
    raise CannotFoldError(f"'{call.operation}' ({kind}) comes before it")


def _commutes(operation: Operation, affine: Affine) -> bool:
    """Whether scaling and shifting channels may as well come before a layer without weights."""
    config: Mapping[str, Any] = operation.config or {}
    kind = operation.kind.rstrip("123D")
    if kind in ("MaxPooling", "GlobalMaxPooling"):
        return bool((affine.scale >= 0).all())
    if kind == "AveragePooling":
        return bool(config["padding"] == "valid")
    if kind == "UpSampling":
        return config.get("interpolation", "nearest") in ("nearest", "bilinear")
    if kind == "ZeroPadding":
        return not affine.shift.any()
    return kind in ("Cropping", "GlobalAveragePooling")


def _through_add(graph: Graph, index: int, affine: Affine) -> list[tuple[TensorRef, Affine]]:
    call = graph.calls[index]
    refs = call.inputs()
    shape = call.outputs[0].shape
    alike = all(graph.spec(ref).shape == shape for ref in refs)
    if not alike or len(refs) != _tensors(call.leaves()):
        raise CannotFoldError(f"'{call.operation}' broadcasts or adds a constant")
    # Equal parts, so that a layer that is called twice can take both.
    part = replace(affine, shift=affine.shift / len(refs))
    return [(ref, part) for ref in refs]


def _through_concatenate(
    graph: Graph, index: int, affine: Affine
) -> list[tuple[TensorRef, Affine]]:
    call = graph.calls[index]
    config = graph.operations[call.operation].config or {}
    axis = int(config.get("axis", -1)) % affine.rank
    refs = call.inputs()
    if axis != affine.axis:
        return [(ref, affine) for ref in refs]
    ends = np.cumsum([graph.spec(ref).shape[axis] for ref in refs])
    parts = zip(np.split(affine.scale, ends[:-1]), np.split(affine.shift, ends[:-1]), strict=True)
    return [
        (ref, replace(affine, scale=scale, shift=shift))
        for ref, (scale, shift) in zip(refs, parts, strict=True)
    ]


def _tensors(leaves: list[Any]) -> int:
    """How many arguments there are, constants too."""
    return sum(leaf is not None for leaf in leaves)


def agreeing(graph: Graph, routes: list[Route]) -> tuple[list[Route], dict[str, str]]:
    """The routes that can be taken together, and why the others cannot.

    A layer that is called several times has one set of weights, so all of its calls have to
    take the same; and weights that two layers share cannot change for one of them.

    Returns:
        The routes, and for each other BatchNormalization by name, the reason.
    """
    calls: dict[str, list[int]] = {}
    for index, call in enumerate(graph.calls):
        calls.setdefault(call.operation, []).append(index)
    tied = _tied(graph)
    refused: dict[str, str] = {}
    left = list(routes)
    while True:
        taken = {index: affine for route in left for index, affine in route.shares.items()}
        kept = []
        for route in left:
            reason = _disagreement(graph, route, taken, calls, tied)
            if reason is None:
                kept.append(route)
            else:
                refused[graph.calls[route.call].operation] = reason
        if len(kept) == len(left):
            return kept, refused
        left = kept


def _disagreement(
    graph: Graph,
    route: Route,
    taken: Mapping[int, Affine],
    calls: Mapping[str, list[int]],
    tied: set[str],
) -> str | None:
    for index, affine in route.shares.items():
        name = graph.calls[index].operation
        if name in tied:
            return f"'{name}' shares a weight with another layer"
        if not all(other in taken and taken[other].same(affine) for other in calls[name]):
            return f"'{name}' is called elsewhere too, and must stay as it is there"
    return None


def _tied(graph: Graph) -> set[str]:
    """Operations with a weight that another operation has too."""
    owners: dict[int, set[str]] = {}
    for name, operation in graph.operations.items():
        for weight in operation.weights.values():
            owners.setdefault(weight.key, set()).add(name)
    return set().union(*(names for names in owners.values() if len(names) > 1))
