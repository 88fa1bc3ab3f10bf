"""A language model one token at a time: its graph with keys and values of earlier tokens kept.

Which axes of a tensor are positions is found by running the graph on sequences of a length that
nothing else in it has. Calls that depend on the tokens are repeated for the last position alone.
Where one position meets all the others, in the scores of attention and in the sum over values, the
tensor of all positions is kept, and the row of the last one is written into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops, tree

from saikei.errors import ModelError
from saikei.graph import Call, Graph, TensorRef
from saikei.tensors import to_floats, to_numpy

# One of these is the length of the sequences that axes are found with.
_LENGTHS = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43)
_ROWS = 2
# These look at the shape of what they are given, and at nothing else.
_OF_SHAPE = {"ops.OnesLike", "ops.ZerosLike"}
# Attention in one operation, of a query, keys and values.
_ATTENTION = "ops.DotProductAttention"
# Logits one by one may differ from those of a whole sequence by so much of the largest.
_TOLERANCE = 1e-3

Values = dict[TensorRef, Any]


@dataclass(frozen=True)
class Steps:
    """How a graph is computed for one position.

    Args:
        graph: The graph of the language model, of tokens and, perhaps, a padding mask.
        tokens: The input of the tokens.
        positions: For each tensor, its axes of positions; those of scores are the one of the
            position that asks and the one of those that it looks at.
        live: The calls that depend on the values of tokens, in order.
        keys: For each of these calls, the inputs of which all positions are needed.
        kept: The tensors whose positions are kept, in the order of the cache.
    """

    graph: Graph
    tokens: TensorRef
    positions: Mapping[TensorRef, tuple[int, ...]]
    live: tuple[int, ...]
    keys: Mapping[int, frozenset[TensorRef]]
    kept: tuple[TensorRef, ...]

    def whole(self, tokens: Any) -> Values:
        """Every tensor of whole sequences, `(batch, length)`, in which no token is padding."""
        values: Values = {}
        given = {
            ref: tokens if ref == self.tokens else ops.ones_like(tokens)
            for ref in self.graph.input_refs()
        }
        for index, call in enumerate(self.graph.calls):
            if self.graph.operations[call.operation].kind == "InputLayer":
                ref = TensorRef(index, 0)
                dtype = self.graph.spec(ref).dtype
                made = ops.cast(given[ref], "int32" if ref == self.tokens else dtype)
            else:
                made = _called(self.graph, call, values.__getitem__)
            for number, tensor in enumerate(tree.flatten(made)):
                values[TensorRef(index, number)] = tensor
        return values

    def cache(self, values: Values) -> tuple[Any, ...]:
        """The kept tensors of whole sequences."""
        return tuple(values[ref] for ref in self.kept)

    def step(
        self, token: Any, position: Any, cache: tuple[Any, ...], fixed: Values
    ) -> tuple[Any, tuple[Any, ...]]:
        """The logits after one more token.

        Args:
            token: The tokens at the position, `(batch, 1)`.
            position: The position, a number.
            cache: The kept tensors.
            fixed: The tensors of a whole sequence, of which those are used that do not depend on
                tokens.

        Returns:
            Logits, `(batch, tokens)`, and the kept tensors with this position.
        """
        here: Values = {self.tokens: token}
        kept = dict(zip(self.kept, cache, strict=True))

        def keep(ref: TensorRef) -> None:
            if ref in kept:
                at = [0] * len(kept[ref].shape)
                at[self.positions[ref][0]] = position
                kept[ref] = ops.slice_update(kept[ref], at, ops.cast(here[ref], kept[ref].dtype))

        keep(self.tokens)
        for index in self.live:

            def value(ref: TensorRef, index: int = index) -> Any:
                if ref in self.keys[index]:
                    return kept[ref]
                if ref in here:
                    return here[ref]
                return self._row(fixed[ref], ref, TensorRef(index, 0), position)

            made = _called(self.graph, self.graph.calls[index], value)
            for number, tensor in enumerate(tree.flatten(made)):
                here[TensorRef(index, number)] = tensor
                keep(TensorRef(index, number))
        logits = here[self.graph.output_refs()[0]]
        return ops.squeeze(logits, axis=1), tuple(kept[ref] for ref in self.kept)

    def _row(self, tensor: Any, ref: TensorRef, made: TensorRef, position: Any) -> Any:
        """The part of a tensor that does not depend on tokens that belongs to a position."""
        axes = self.positions[ref]
        asks = self.positions[made]
        if not axes:
            return tensor
        if len(axes) == 1 and len(asks) == 2:
            # Of scores, the last axis is that of all positions.
            rank = len(self.graph.spec(made).shape)
            if axes[0] - len(tensor.shape) == asks[1] - rank:
                return tensor
        return ops.take(tensor, ops.reshape(position, (1,)), axis=axes[0])


def find_steps(graph: Graph, tokens: TensorRef) -> Steps:
    """How a language model is computed token by token, compared with whole sequences.

    Args:
        graph: A graph with one output, the logits at each position, `(batch, length, tokens)`.
        tokens: The input of the tokens.

    Raises:
        ModelError: When the logits of a position do not come from it and earlier ones in a way that
            is found here.
    """
    length = _length(graph)
    blank = Steps(graph, tokens, {}, (), {}, ())
    count = graph.spec(graph.output_refs()[0]).shape[-1] or 2
    generator = np.random.default_rng(0)
    sample = generator.integers(0, count, (_ROWS, length)).astype("int32")
    values = blank.whole(ops.convert_to_tensor(sample))
    positions = {
        ref: tuple(axis for axis, size in enumerate(tensor.shape) if size == length)
        for ref, tensor in values.items()
    }
    live = _live(graph, tokens)
    keys = {index: _keys(graph, index, live, positions, values) for index in sorted(live)}
    kept = tuple(dict.fromkeys(ref for index in sorted(live) for ref in sorted_refs(keys[index])))
    found = Steps(graph, tokens, positions, tuple(sorted(live)), keys, kept)
    _check(found, sample, to_floats(values[graph.output_refs()[0]]))
    return found


def sorted_refs(refs: frozenset[TensorRef]) -> list[TensorRef]:
    """Tensors in the order in which they are made."""
    return sorted(refs, key=lambda ref: (ref.call, ref.output))


def _length(graph: Graph) -> int:
    sizes = {size for call in graph.calls for spec in call.outputs for size in spec.shape}
    for operation in graph.operations.values():
        sizes |= {size for weight in operation.weights.values() for size in weight.shape}
    return next(length for length in _LENGTHS if length not in sizes)


def _live(graph: Graph, tokens: TensorRef) -> set[int]:
    """The calls from tokens to logits."""
    depends = {tokens.call}
    for index, call in enumerate(graph.calls):
        kind = graph.operations[call.operation].kind
        if kind not in _OF_SHAPE and any(ref.call in depends for ref in call.inputs()):
            depends.add(index)
    needed, pending = set[int](), [ref.call for ref in graph.output_refs()]
    while pending:
        index = pending.pop()
        if index in depends and index not in needed and index != tokens.call:
            needed.add(index)
            pending += [ref.call for ref in graph.calls[index].inputs()]
    return needed


def _keys(
    graph: Graph,
    index: int,
    live: set[int],
    positions: Mapping[TensorRef, tuple[int, ...]],
    values: Values,
) -> frozenset[TensorRef]:
    """The inputs of a call of which it needs all positions."""
    call = graph.calls[index]
    given = [ref for ref in dict.fromkeys(call.inputs()) if ref.call in live]
    single = [ref for ref in given if len(positions[ref]) == 1]
    made = positions[TensorRef(index, 0)]
    if graph.operations[call.operation].kind == _ATTENTION:
        return frozenset(single) - {call.inputs()[0]}
    if len(single) < len(given):
        # Scores, and values that are summed with them.
        return frozenset(single if len(made) == 1 else ())
    if len(made) != 2 or len(single) != 2:
        return frozenset()
    for asks, looked_at in (single, single[::-1]):
        row = ops.take(values[asks], np.array([0]), axis=positions[asks][0])
        tried = _called(graph, call, {**values, asks: row}.__getitem__)
        if tree.flatten(tried)[0].shape[made[0]] == 1:
            return frozenset({looked_at})
    return frozenset()


def _called(graph: Graph, call: Call, value: Callable[[TensorRef], Any]) -> Any:
    args, kwargs = tree.map_structure(
        lambda leaf: value(leaf) if isinstance(leaf, TensorRef) else leaf,
        (call.args, dict(call.kwargs)),
    )
    return graph.operations[call.operation].source(*args, **kwargs)


def _check(steps: Steps, sample: np.ndarray, wanted: np.ndarray) -> None:
    """Compare the last two logits, one by one, with those of the whole sequence."""
    length = sample.shape[1]
    other = sample.copy()
    other[:, -2:] = sample[:, :2]
    cache = steps.cache(steps.whole(ops.convert_to_tensor(other)))
    fixed = steps.whole(ops.zeros((1, length), "int32"))
    for position in (length - 2, length - 1):
        token = ops.convert_to_tensor(sample[:, position : position + 1])
        try:
            logits, cache = steps.step(token, ops.convert_to_tensor(position), cache, fixed)
            apart = np.abs(to_numpy(logits) - wanted[:, position]).max() / np.abs(wanted).max()
        # What cannot be computed for one position fails in its own way.
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise _refusal(steps.graph) from error
        if not apart <= _TOLERANCE:
            raise _refusal(steps.graph)


def _refusal(graph: Graph) -> ModelError:
    return ModelError(
        f"Model '{graph.name}' cannot be computed token by token: its logits depend on later "
        "tokens, or on positions in a way that is not known. Only causal language models generate."
    )
