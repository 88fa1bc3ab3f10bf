"""From a cut graph to a KerasHub class: a smaller config, the same numbers, and a proof."""

from __future__ import annotations

from typing import Any, Protocol

import keras
import numpy as np
from keras import tree

from saikei.errors import EditError, in_one_line
from saikei.graph import Graph, Operation, read
from saikei.graph.samples import random_inputs
from saikei.graph.values import outputs_once
from saikei.hub.scaling import absorb_scale
from saikei.hub.widths import one_block, smaller_config, weighted
from saikei.tensors import to_floats

# How far outputs may be apart, as a share of the largest: order of summation, and no more.
_TOLERANCE = 1e-4
# Each class checks its arguments in its own way.
_REFUSED = (ValueError, TypeError, ZeroDivisionError)


class Classes(Protocol):
    """What makes a model of the same classes with another config; see `Family`."""

    @property
    def backbone(self) -> Any:
        """The backbone of the original."""
        ...

    def backbone_with(self, config: dict[str, Any]) -> Any:
        """A new backbone with fresh weights."""
        ...

    def with_config(self, config: dict[str, Any]) -> Any:
        """A new model with fresh weights."""
        ...


def rebuilt(name: str, classes: Classes, before: Graph, after: Graph) -> keras.Model:
    """A model of the original's class with the weights of a cut graph.

    It is compared with the cut graph on made-up inputs before it is returned.

    Args:
        name: The name of the class, for messages.
        classes: What makes a model of that class.
        before: The graph of the original.
        after: The cut graph.

    Raises:
        EditError: When the class cannot express the graph.
    """
    try:
        config = smaller_config(classes.backbone.get_config(), before, after)
    except EditError as error:
        raise EditError(f"{name} cannot express this cut, as {error}.") from error
    order = {operation.name: number for number, operation in enumerate(weighted(before))}
    source = sorted(weighted(after), key=lambda operation: order.get(operation.name, len(order)))
    _check_one_block(name, classes, config, before, source)
    # Before there is a second copy of the weights.
    inputs = _made_up_inputs(after)
    expected = outputs_once(after, inputs)
    try:
        made = classes.with_config(config)
    except _REFUSED as error:
        raise EditError(
            f"{name} cannot be made with {_changes(classes, config)}: {in_one_line(error)}."
        ) from error
    graph = read(made)
    _load(name, classes, config, weighted(graph), source)
    absorb_scale(after, graph)
    _check_outputs(name, after, expected, tree.flatten(made(inputs, training=False)))
    return made


def _changes(classes: Classes, config: dict[str, Any]) -> str:
    old = classes.backbone.get_config()
    changed = [f"{key}={value!r}" for key, value in config.items() if old.get(key) != value]
    return ", ".join(changed) or "its own config"


def _check_one_block(
    name: str, classes: Classes, config: dict[str, Any], before: Graph, source: list[Operation]
) -> None:
    """Refuse a cut whose shapes the class does not have, before all of its blocks are made.

    Where the class cannot be made with one block, the whole model shows what it has.
    """
    block = _of_one_block(classes, config)
    known = {_signature(one) for one in source}
    for index, (new, old) in enumerate(zip(block, source, strict=False)):
        if any(map(_is_table, new.weights)) or _signature(new) in known:
            continue
        # A layer may be as large as there are blocks: then one block does not show its size.
        whole = {_signature(one) for one in weighted(before)}
        original = _of_one_block(classes, classes.backbone.get_config())
        if index < len(original) and _signature(original[index]) in whole:
            raise EditError(_other_shapes(name, classes, config, old, new))


def _of_one_block(classes: Classes, config: dict[str, Any]) -> list[Operation]:
    """The layers with weights of a backbone with one block; none if it cannot be made."""
    small = one_block(config)
    if small is None:
        return []
    try:
        return weighted(read(classes.backbone_with(small)))
    # The class may need more than one block; then the whole model is made and compared.
    except _REFUSED:
        return []


def _signature(operation: Operation) -> tuple[str, tuple[Any, ...]]:
    return operation.kind, tuple(_shapes(operation))


def _shapes(operation: Operation) -> list[tuple[str, tuple[int, ...]]]:
    return [(key, tuple(weight.shape)) for key, weight in operation.weights.items()]


def _other_shapes(
    name: str, classes: Classes, config: dict[str, Any], old: Operation, new: Operation
) -> str:
    return (
        f"{name} cannot express this cut: layer '{old.name}' has weights "
        f"{_shown(old)}, and with {_changes(classes, config)} it would have "
        f"{_shown(new)}. PruneChannels(scope='uniform') keeps whole heads and equal "
        "widths; with layers=(…) it can cut feed-forward parts alone."
    )


def _load(
    name: str,
    classes: Classes,
    config: dict[str, Any],
    into: list[Operation],
    source: list[Operation],
) -> None:
    """Give the new model's variables the numbers of the cut graph, layer by layer in order."""
    for new, old in zip(into, source, strict=False):
        if new.kind != old.kind or _shapes(new) != _shapes(old):
            raise EditError(_other_shapes(name, classes, config, old, new))
        for key, weight in new.weights.items():
            weight.source.assign(old.weights[key].numpy())
    if len(into) != len(source):
        raise EditError(
            f"{name} cannot express this cut: it has {len(into)} layers with weights where the cut "
            f"model has {len(source)}. Remove whole blocks with RemoveLayers(kinds=('block',))."
        )


def _is_table(weight: str) -> bool:
    return weight.rpartition("/")[2] == "embeddings"


def _shown(operation: Operation) -> str:
    return ", ".join(f"{key} {weight.shape}" for key, weight in operation.weights.items())


def _made_up_inputs(graph: Graph) -> Any:
    tables = [w for op in graph.operations.values() for k, w in op.weights.items() if _is_table(k)]
    below = min((table.shape[0] for table in tables), default=None)
    return random_inputs(graph, 2, np.random.default_rng(0), below=below)


def _check_outputs(name: str, graph: Graph, expected: list[Any], found: list[Any]) -> None:
    pairs = [(to_floats(a), to_floats(b)) for a, b in zip(expected, found, strict=True)]
    error = max(float(np.abs(a - b).max() / (np.abs(a).max() or 1.0)) for a, b in pairs)
    if not error <= max(_TOLERANCE, 8 * graph.rounding()):
        raise EditError(
            f"{name} computes something else with the same weights (outputs differ by {error:.1e} "
            "of the largest): something in it depends on the numbers of its config, such as blocks "
            "that alternate. Cut its feed-forward parts and heads, or remove blocks in pairs."
        )
