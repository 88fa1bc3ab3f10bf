"""Weights whose numbers have to be computed: of layers that are quantised, or have LoRA.

`model.quantize` packs kernels into whole numbers with scales, which cannot be cut or compared
like plain weights. A graph keeps such a layer whole, under a kind of its own (`"Dense[int8]"`),
beside what it would be in floating point.

LoRA freezes a layer's kernel and trains two factors whose product is added to it. The layer
computes with the sum, so the sum is what a graph holds: one plain weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from saikei.graph import internals
from saikei.tensors import numpy_dtype, to_numpy

Shape = tuple[int, ...]
Array = np.ndarray[Any, np.dtype[Any]]

_POLICIES = ("QuantizedDTypePolicy", "QuantizedFloat8DTypePolicy", "Int4DTypePolicy")


@dataclass(frozen=True)
class FloatWeight:
    """A quantised weight in floating point, computed when it is read.

    Args:
        shape: Shape of the kernel or table.
        dtype: Dtype of the layer's variables.
        compute: Function that computes the numbers.
    """

    shape: Shape
    dtype: str
    compute: Callable[[], Array] = field(compare=False, repr=False)

    def numpy(self) -> np.ndarray:
        """The numbers, in the dtype that the layer had before."""
        return np.asarray(self.compute()).astype(numpy_dtype(self.dtype))


@dataclass(frozen=True)
class FloatTwin:
    """A quantised layer in floating point.

    Args:
        weights: For each of its weights, in the order of a layer that is not quantised, the
            variable and the object with its numbers (the variable itself where it is not packed).
        config: Config of the layer.
    """

    weights: tuple[tuple[Any, Any], ...]
    config: Mapping[str, Any] | None


def float_twin(layer: Any, config: Mapping[str, Any] | None) -> FloatTwin | None:
    """The floating-point twin of a layer with quantised parts; `None` where they are not known."""
    weights = _in_order(layer)
    if weights is None:
        return None
    # One weight may be held by several parts.
    once = {id(variable): (variable, numbers) for variable, numbers in weights}
    return FloatTwin(tuple(once.values()), _in_floats(config))


def _in_order(layer: Any) -> list[tuple[Any, Any]] | None:
    """The weights of a layer and of those in it, in the order in which Keras lists them."""
    if internals.quantisation_of(layer) is None:
        found: list[tuple[Any, Any]] = [(v, v) for _, v in internals.held_weights(layer)]
    else:
        tables = _tables(layer)
        if tables is None:
            return None
        bias = getattr(layer, "bias", None)
        found = [*tables, *([] if bias is None else [(bias, bias)])]
    for _, part in internals.held_layers(layer):
        more = _in_order(part)
        if more is None:
            return None
        found += more
    return found


def _in_floats(config: Any) -> Any:
    """A config with the policies that its quantised ones were made from."""
    if isinstance(config, dict):
        if config.get("class_name") in _POLICIES:
            source = config["config"].get("source_name") or "float32"
            return keras.dtype_policies.serialize(keras.dtype_policies.get(source))
        return {
            key: None if key == "quantization_config" else _in_floats(value)
            for key, value in config.items()
        }
    return [_in_floats(value) for value in config] if isinstance(config, list) else config


def _tables(part: Any) -> list[tuple[Any, Any]] | None:
    """The kernel or tables of a quantised layer, each as its variable and its numbers."""
    mode = internals.quantisation_of(part)
    dtype = str(part.variable_dtype)
    if isinstance(part, keras.layers.Embedding) and mode in ("int8", "int4"):
        table = FloatWeight((part.input_dim, part.output_dim), dtype, lambda: _table(part))
        tables: list[tuple[Any, Any]] = [(part._embeddings, table)]
        if getattr(part, "reverse_embeddings", None) is not None:
            shape = (part.output_dim, part.input_dim)
            reverse = FloatWeight(shape, dtype, lambda: _reverse_table(part))
            tables.append((part.reverse_embeddings, reverse))
        return tables
    if not isinstance(part, (keras.layers.Dense, keras.layers.EinsumDense)):
        return None
    if mode == "float8":
        return [(part._kernel, part._kernel)]
    if mode not in ("int8", "int4"):
        return None
    return [(part._kernel, FloatWeight(_shape(part), dtype, lambda: _kernel(part)))]


def _shape(part: Any) -> Shape:
    """The shape of a kernel before it was packed."""
    stored = tuple(int(size) for size in part._kernel.shape)
    if internals.quantisation_of(part) == "int8":
        return stored
    if isinstance(part, keras.layers.Dense):
        return (stored[0], int(part.units))
    return tuple(int(size) for size in part.original_kernel_shape)


def _kernel(part: Any) -> Array:
    if internals.quantisation_of(part) == "int8":
        scale = part.kernel_scale
        if isinstance(part, keras.layers.EinsumDense):
            scale = part._adjust_scale_for_dequant(scale)
        kernel = _numbers(part._kernel) / _numbers(scale)
    else:
        columns = _numbers(part.kernel_scale).shape[-1]
        packed = _unpacked(part._kernel, columns, axis=-1)
        kernel = _scaled(part, "kernel", packed).reshape(_shape(part))
    return _with_lora(part, "lora_kernel", kernel)


def _table(part: Any) -> Array:
    if internals.quantisation_of(part) == "int8":
        table = _numbers(part._embeddings) / _numbers(part.embeddings_scale)[:, None]
    else:
        packed = _unpacked(part._embeddings, part.output_dim, axis=-1)
        table = _scaled(part, "embeddings", packed.T, turned=True).T
    return _with_lora(part, "lora_embeddings", table)


def _reverse_table(part: Any) -> Array:
    if internals.quantisation_of(part) == "int8":
        scale = _numbers(part.reverse_embeddings_scale)
        return np.asarray(_numbers(part.reverse_embeddings) / scale)
    packed = _unpacked(part.reverse_embeddings, part.output_dim, axis=0)
    return _scaled(part, "reverse_embeddings", packed)


def _scaled(part: Any, name: str, packed: Array, turned: bool = False) -> Array:
    """Whole numbers with one scale for each column, or for each group of rows and column."""
    scale = _numbers(getattr(part, f"{name}_scale"))
    if getattr(part, "_int4_block_size", None) in (None, -1):
        return np.asarray(packed / scale)
    zero = _numbers(getattr(part, f"{name}_zero"))
    if turned:
        scale, zero = scale.T, zero.T
    groups = _numbers(part.g_idx).astype(int)
    return np.asarray((packed - zero[groups]) * scale[groups])


def _unpacked(variable: Any, length: int, axis: int) -> Array:
    return _numbers(keras.quantizers.unpack_int4(variable.value, length, axis=axis))


def _with_lora(part: Any, name: str, array: Array) -> Array:
    if not getattr(part, "lora_enabled", False):
        return array
    first, second = (_numbers(getattr(part, f"{name}_{which}")) for which in "ab")
    return np.asarray(array + (part.lora_alpha / part.lora_rank) * (first @ second))


def _numbers(tensor: Any) -> Array:
    return to_numpy(tensor.value if isinstance(tensor, keras.Variable) else tensor).astype(
        np.float64
    )


_FACTORS = (
    ("_kernel", "lora_kernel_a", "lora_kernel_b"),
    ("_embeddings", "lora_embeddings_a", "lora_embeddings_b"),
)


@dataclass(frozen=True)
class MergedWeight:
    """A kernel or table plus the product of its low-rank factors, computed when it is read.

    Args:
        base: The frozen variable.
        first: The factor whose rows are the base's.
        second: The factor whose columns are the base's.
        scale: Factor of their product.
    """

    base: Any
    first: Any
    second: Any
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the base."""
        return tuple(self.base.shape)

    @property
    def dtype(self) -> str:
        """The dtype of the base."""
        return str(self.base.dtype)

    def numpy(self) -> np.ndarray:
        """The sum, in the base's dtype."""
        base = internals.numbers(self.base)
        first, second = (internals.numbers(v).astype(np.float64) for v in (self.first, self.second))
        total = base.astype(np.float64) + self.scale * (first @ second)
        return np.asarray(total.astype(base.dtype))


def merged_weights(layer: Any) -> Iterator[tuple[Any, MergedWeight]]:
    """The layer, and those in it, with LoRA, each with its merged weight.

    Layers that are quantised too are left out: their kernel is packed.
    """
    for part in internals.flattened_layers(layer):
        if not getattr(part, "lora_enabled", False) or internals.quantisation_of(part):
            continue
        for base, first, second in _FACTORS:
            if hasattr(part, first):
                factors = getattr(part, first), getattr(part, second)
                alpha = getattr(part, "lora_alpha", None) or part.lora_rank
                yield part, MergedWeight(getattr(part, base), *factors, alpha / part.lora_rank)


def without_rank(config: Any) -> Any:
    """A config, and those within it, that enable no LoRA."""
    if isinstance(config, dict):
        return {
            key: None if key in ("lora_rank", "lora_alpha") else without_rank(value)
            for key, value in config.items()
        }
    return [without_rank(value) for value in config] if isinstance(config, list) else config
