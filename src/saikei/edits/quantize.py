"""`Quantize`: the weights of dense layers and tables as 8-bit whole numbers, by Keras itself."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from keras import tree

from saikei.edits.base import PRECISION, Edit, Option
from saikei.errors import EditError, in_one_line
from saikei.graph import Graph, Operation, TensorRef
from saikei.graph.describe import described
from saikei.graph.instantiate import cheap_initialisers, instantiate, load_weights

KINDS = ("Dense", "EinsumDense", "Embedding")


@dataclass(frozen=True)
class Quantize(Edit):
    """Store the weights of dense layers and tables as int8, as `model.quantize("int8")` does.

    `Dense`, `EinsumDense` and `Embedding` layers get 8-bit kernels with a scale for each output,
    a quarter of the bytes of float32; they round their inputs to 8 bits too. Training leaves these
    kernels as they are, so this is the last edit of a model. `Dequantize` is the way back.

    Args:
        layers: Names of the layers to quantise; all of these kinds when empty.
        exclude: Names of layers that stay as they are.

    Raises:
        EditError: If no chosen layer is of such a kind.

    Example:
        >>> edit = Quantize(exclude=("classes",))
        >>> Quantize.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    method: ClassVar[str] = "quantize"
    stage: ClassVar[int] = PRECISION
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph with int8 layers; `data` is not used."""
        self.check_layers(graph)
        for name in self.layers:
            if not _can_be(graph.operations[name]):
                kind = graph.operations[name].kind
                raise EditError(
                    f"Quantize cannot quantise layer '{name}' ({kind}): name layers of kind "
                    f"{', '.join(KINDS)}, which are not quantised already."
                )
        chosen = [n for n, one in graph.operations.items() if _can_be(one) and self.selects(n)]
        if not chosen:
            raise EditError(
                f"Quantize would change nothing: model '{graph.name}' has no {' or '.join(KINDS)} "
                f"layer in floating point{' that is not excluded' if self.exclude else ''}."
            )
        return graph.with_operations({name: _in_int8(graph, name) for name in chosen})

    @classmethod
    def options(cls, graph: Graph, data: Any = None) -> tuple[Option, ...]:  # noqa: ARG003
        """For each layer that Keras can quantise, int8."""
        return tuple(
            Option(f"precision:{name}", cls.method, "int8", cls((name,)), (name,))
            for name, operation in graph.operations.items()
            if _can_be(operation)
        )


def _can_be(operation: Operation) -> bool:
    return operation.kind in KINDS and operation.spectral is None


def _in_int8(graph: Graph, name: str) -> Operation:
    operation = graph.operations[name]
    call = next(call for call in graph.calls if call.operation == name)
    layer = instantiate(operation)

    def symbolic(leaf: Any) -> Any:
        if not isinstance(leaf, TensorRef):
            return leaf
        spec = graph.spec(leaf)
        return keras.KerasTensor(spec.shape, dtype=spec.dtype)

    try:
        args, kwargs = tree.map_structure(symbolic, (call.args, dict(call.kwargs)))
        with cheap_initialisers(layer):
            layer(*args, **kwargs)
        load_weights(operation, layer)
        with _cheap_collection():
            layer.quantize("int8")
    except (ValueError, TypeError, NotImplementedError) as error:
        raise EditError(
            f"Quantize: Keras cannot quantise layer '{name}' ({operation.kind}): "
            f"{in_one_line(error)}. Exclude it."
        ) from error
    return described(name, layer)


@contextmanager
def _cheap_collection() -> Iterator[None]:
    """Keep Python's garbage collector from looking at objects that are there already.

    Keras collects garbage whenever it deletes a variable, which takes longer than all the rest.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
