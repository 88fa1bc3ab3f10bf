"""The config of a backbone after a cut, from the shapes of its weights before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from saikei.errors import EditError
from saikei.graph import Graph, Operation

# The words of KerasHub's configs. Encoders and decoders may have their own, with a prefix.
_LAYERS = ("num_layers", "num_hidden_layers")
HIDDEN = ("hidden_dim", "hidden_size")
_VOCABULARY = ("vocabulary_size", "vocab_size")
INNER = ("intermediate_dim", "mlp_dim", "intermediate_size")
HEADS = ("num_query_heads", "num_heads", "num_attention_heads")
_KEY_HEADS = ("num_key_value_heads",)
_HEAD_SIZE = ("head_dim", "head_size")
_FEW_TOKENS = 16


@dataclass(frozen=True)
class Axis:
    """An axis of a weight that is left, before and after a cut.

    Args:
        operation: The name of the layer.
        before: Its size in the original.
        after: Its size now.
    """

    operation: str
    before: int
    after: int


def weighted(graph: Graph) -> list[Operation]:
    """The operations with weights, in the order in which they are first called."""
    named = dict.fromkeys(call.operation for call in graph.calls)
    return [graph.operations[name] for name in named if graph.operations[name].weights]


def smaller_config(config: Mapping[str, Any], before: Graph, after: Graph) -> dict[str, Any]:
    """The config that a backbone would need to be as small as a cut graph.

    Args:
        config: The config of the original backbone.
        before: The graph of the original.
        after: The cut graph, whose layers have the names that they had.

    Returns:
        The config; that the class really gives these shapes is for the caller to check.

    Raises:
        EditError: When two blocks would need different numbers for one entry.
    """
    left = {operation.name for operation in weighted(after)}
    changed = dict(config)
    old = [operation for operation in weighted(before) if operation.name in left]
    pairs = [(operation, after.operations[operation.name]) for operation in old]
    for names, axes in (
        (HIDDEN, list(_embedding(pairs, 1))),
        (_VOCABULARY, list(_embedding(pairs, 0))),
        (_HEAD_SIZE, list(_of_heads(pairs, 1))),
    ):
        _set(changed, names, axes, config)
    _set_heads(changed, list(_of_heads(pairs, 0)), config)
    _set(changed, INNER, _inner(pairs, config), config, scaled=True)
    _set_layers(changed, before, left, config)
    return changed


def one_block(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config of a backbone with one block and few tokens, of which shapes can be seen.

    Args:
        config: The config of a backbone.

    Returns:
        The config; `None` for a class that does not count its blocks.
    """
    name = next((name for name in _LAYERS if isinstance(config.get(name), int)), None)
    if name is None:
        return None
    words = {word: min(config[word], _FEW_TOKENS) for word in _VOCABULARY if word in config}
    each = {
        entry: value[:1]
        for entry, value in config.items()
        if "layer" in entry and isinstance(value, (list, tuple)) and len(value) == config[name]
    }
    return {**config, **words, **each, name: 1}


def _set(
    changed: dict[str, Any],
    names: tuple[str, ...],
    axes: list[Axis],
    config: Mapping[str, Any],
    scaled: bool = False,
) -> None:
    """Set the entry of one of these names to the size that all axes have now."""
    name = next((name for name in names if isinstance(config.get(name), int)), None)
    if name is None:
        return
    fitting = [axis for axis in axes if scaled or axis.before == config[name]]
    sizes = {round(config[name] * axis.after / axis.before) for axis in fitting}
    if len(sizes) > 1:
        _refuse(name, fitting)
    if sizes:
        changed[name] = sizes.pop()


def _refuse(name: str, axes: list[Axis]) -> None:
    low, high = (f(axes, key=lambda axis: axis.after) for f in (min, max))
    raise EditError(
        f"its blocks would need different values of '{name}' (layer '{low.operation}' has "
        f"{low.after} of {low.before}, '{high.operation}' {high.after} of {high.before}), and its "
        "class has one for all: cut with PruneChannels(scope='uniform')"
    )


def _embedding(pairs: list[tuple[Operation, Operation]], axis: int) -> Iterator[Axis]:
    """An axis of the first embedding table: tokens are 0, the width is 1."""
    for old, new in pairs:
        if "embeddings" in old.weights:
            sizes = (one.weights["embeddings"].shape[axis] for one in (old, new))
            yield Axis(old.name, *sizes)
            return
    if axis == 1:
        # Without tokens, the width is that of the first layer, which makes patches.
        for old, new in pairs[:1]:
            yield Axis(old.name, *(_last_size(one) for one in (old, new)))


def _last_size(operation: Operation) -> int:
    return next(iter(operation.weights.values())).shape[-1]


def _of_heads(pairs: list[tuple[Operation, Operation]], which: int) -> Iterator[Axis]:
    """The number (0) or the size (1) of the heads of every layer that makes some."""
    for old, new in pairs:
        for name, weight in old.weights.items():
            axes = _head_axes(old, name)
            if axes is not None and len(weight.shape) == 3:
                axis = axes[which]
                yield Axis(old.name, weight.shape[axis], new.weights[name].shape[axis])


def _head_axes(operation: Operation, weight: str) -> tuple[int, int] | None:
    """The axes of heads and of their size in a kernel whose output has both; `None` for others."""
    layer, _, last = weight.rpartition("/")
    if last != "kernel":
        return None
    if layer.endswith(("query_dense", "key_dense", "value_dense")):
        return 1, 2
    equation = (operation.config or {}).get("equation")
    if operation.kind != "EinsumDense" or not isinstance(equation, str):
        return None
    given, made = equation.replace(" ", "").split("->")
    read, kernel = given.split(",")
    fresh = [letter for letter in made if letter in kernel and letter not in read]
    return (kernel.index(fresh[0]), kernel.index(fresh[1])) if len(fresh) == 2 else None


def _set_heads(changed: dict[str, Any], axes: list[Axis], config: Mapping[str, Any]) -> None:
    """Layers that make as many heads as the config has for queries, and those for keys."""
    queries = next((name for name in HEADS if isinstance(config.get(name), int)), None)
    keys = next((name for name in _KEY_HEADS if isinstance(config.get(name), int)), None)
    if queries is None:
        return
    if keys is None or config[keys] == config[queries]:
        _set(changed, (queries,), axes, config)
        if keys is not None:
            changed[keys] = changed[queries]
        return
    _set(changed, (queries,), axes, config)
    _set(changed, (keys,), axes, config)


def _inner(pairs: list[tuple[Operation, Operation]], config: Mapping[str, Any]) -> list[Axis]:
    """The outputs of the layers that read the residual stream and make the feed-forward width.

    Gated parts have layers of half of what some configs give. Where the stream is as wide as they
    are, layers whose output follows its width are not among them, unless all do.
    """
    name = next((name for name in INNER if isinstance(config.get(name), int)), None)
    streams = list(_embedding(pairs, 1))
    if name is None or not streams:
        return []
    stream, found = streams[0], []
    for old, new in pairs:
        kernel = old.weights.get("kernel")
        if kernel is None or len(kernel.shape) != 2 or kernel.shape[0] != stream.before:
            continue
        axis = Axis(old.name, kernel.shape[1], new.weights["kernel"].shape[1])
        if axis.before in (config[name], config[name] / 2) and not _is_constant(old):
            found.append(axis)
    others = [axis for axis in found if axis.before != stream.before or axis.after != stream.after]
    return others or found


def _is_constant(operation: Operation) -> bool:
    """Whether it is a weight that is called on the constant 1; see `graph.retrace`."""
    equation = (operation.config or {}).get("equation")
    return isinstance(equation, str) and len(equation.split(",")[0]) == 1


def _set_layers(
    changed: dict[str, Any], before: Graph, left: set[str], config: Mapping[str, Any]
) -> None:
    """Count the blocks that are left, by layers of which each block has the same number."""
    name = next((name for name in _LAYERS if isinstance(config.get(name), int)), None)
    if name is None:
        return
    count = config[name]
    alike: dict[Any, list[str]] = {}
    for operation in weighted(before):
        shapes = tuple((key, weight.shape) for key, weight in operation.weights.items())
        alike.setdefault((operation.kind, shapes), []).append(operation.name)
    repeated = [names for names in alike.values() if len(names) % count == 0]
    if all(one in left for names in repeated for one in names):
        return
    kept: set[tuple[bool, ...]] = set()
    for names in repeated:
        each = len(names) // count
        parts = [names[start : start + each] for start in range(0, len(names), each)]
        # A block of which a part is missing differs from both.
        kept |= {tuple(f(one in left for one in part) for part in parts) for f in (any, all)}
    if len(kept) > 1 or not any(next(iter(kept))):
        raise EditError(
            f"parts of blocks are left out, and its class has whole ones ('{name}'): remove whole "
            "blocks with RemoveLayers(kinds=('block',))"
        )
    stay = kept.pop()
    changed[name] = sum(stay)
    for entry, value in config.items():
        if "layer" in entry and isinstance(value, (list, tuple)) and len(value) == count:
            changed[entry] = [one for one, stays in zip(value, stay, strict=True) if stays]
