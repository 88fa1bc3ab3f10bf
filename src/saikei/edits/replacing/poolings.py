"""Pooling as a value, from a layer or operation, and as a Keras layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import keras

from saikei.edits.replacing.selection import calls_of
from saikei.graph import Graph, Operation

Reduction = Literal["max", "average"]
Form = Literal["window", "adaptive", "global"]
Sizes = tuple[int, ...]

_REDUCTIONS: Mapping[str, Reduction] = {
    "Max": "max",
    "Average": "average",
    "ops.Max": "max",
    "ops.Amax": "max",
    "ops.Mean": "average",
}


@dataclass(frozen=True)
class Pooling:
    """What a pooling does.

    Args:
        reduction: The largest value or the mean.
        form: Whether it pools over sliding windows, over as many windows as give an output size, or
            over everything.
        rank: How many spatial axes there are.
        data_format: `"channels_last"` or `"channels_first"`.
        size: The size of the window, or of an adaptive pooling's output; empty where it is global.
        strides: The steps between windows.
        padding: `"valid"` or `"same"`, of a window.
        keepdims: Whether a global pooling keeps spatial axes of size 1.
    """

    reduction: Reduction
    form: Form
    rank: int
    data_format: str
    size: Sizes = ()
    strides: Sizes = ()
    padding: str = "valid"
    keepdims: bool = False

    def __str__(self) -> str:
        """The name in messages, such as `"global average"`."""
        return self.reduction if self.form == "window" else f"{self.form} {self.reduction}"

    def layer(self, input_size: tuple[int | None, ...], **settings: Any) -> Any:
        """The pooling as a Keras layer that is not built.

        Args:
            input_size: Sizes of the spatial axes that it pools.
            settings: `name`, `dtype` and `trainable` of the layer.

        Raises:
            ValueError: When the installed Keras has no such layer and no other can be used.
        """
        shared = {"data_format": self.data_format, **settings}
        name = f"{self.reduction.capitalize()}Pooling{self.rank}D"
        if self.form == "global":
            return getattr(keras.layers, f"Global{name}")(keepdims=self.keepdims, **shared)
        if self.form == "window":
            return getattr(keras.layers, name)(
                self.size, self.strides, padding=self.padding, **shared
            )
        adaptive = getattr(keras.layers, f"Adaptive{name}", None)
        if adaptive is None:
            return self.as_window(input_size).layer(input_size, **settings)
        return adaptive(self.size, **shared)

    def as_window(self, input_size: tuple[int | None, ...]) -> Pooling:
        """An adaptive or global pooling as windows of one size.

        It is the same where the output size divides the input size. Where it does not, the
        windows are as large as the largest of the adaptive pooling, so they overlap more.

        Raises:
            ValueError: When a size is not known, or too small.
        """
        if self.form == "window":
            return self
        sizes = [size for size in input_size if size is not None]
        if len(sizes) < self.rank:
            raise ValueError(f"its input size {input_size} is not known beforehand")
        wanted = self.size or (1,) * self.rank
        if any(out > size for out, size in zip(wanted, sizes, strict=True)):
            raise ValueError(f"its output size {wanted} is above its input size {input_size}")
        steps = [size // out for out, size in zip(wanted, sizes, strict=True)]
        # One window does not slide, so any stride will do; equal ones fit most layers.
        step = max((s for out, s in zip(wanted, steps, strict=True) if out > 1), default=1)
        strides = tuple(s if out > 1 else step for out, s in zip(wanted, steps, strict=True))
        windows = tuple(
            size - (out - 1) * s for out, size, s in zip(wanted, sizes, strides, strict=True)
        )
        return Pooling(
            self.reduction, "window", self.rank, self.data_format, windows, strides, "valid"
        )


def pooling_of(graph: Graph, operation: Operation) -> Pooling | None:
    """What an operation pools; `None` if it does not."""
    kind, config = operation.kind, operation.config or {}
    if kind in ("ops.Max", "ops.Amax", "ops.Mean"):
        return _global_reduction(graph, operation)
    if kind in ("ops.MaxPool", "ops.AveragePool", "ops.AdaptiveMaxPool", "ops.AdaptiveAveragePool"):
        rank = len(calls_of(graph, operation.name)[0].outputs[0].shape) - 2
        plain = kind.removeprefix("ops.").removesuffix("Pool")
    elif kind.endswith(("Pooling1D", "Pooling2D", "Pooling3D")):
        rank, plain = int(kind[-2]), kind[: -len("Pooling1D")]
    else:
        return None
    form: Form = "window"
    if plain.startswith("Global"):
        form, plain = "global", plain.removeprefix("Global")
    elif plain.startswith("Adaptive"):
        form, plain = "adaptive", plain.removeprefix("Adaptive")
    if plain not in _REDUCTIONS:
        return None
    size = config.get("output_size" if form == "adaptive" else "pool_size")
    sizes = () if form == "global" else as_sizes(size, rank)
    strides = config.get("strides")
    return Pooling(
        reduction=_REDUCTIONS[plain],
        form=form,
        rank=rank,
        data_format=str(config["data_format"]),
        size=sizes,
        strides=(sizes if strides is None else as_sizes(strides, rank)) if form == "window" else (),
        padding=str(config.get("padding", "valid")),
        keepdims=bool(config.get("keepdims", False)),
    )


def _global_reduction(graph: Graph, operation: Operation) -> Pooling | None:
    """A mean or maximum over all spatial axes is a global pooling; over others it is none."""
    config = operation.config or {}
    call = calls_of(graph, operation.name)[0]
    rank = len(graph.spec(call.inputs()[0]).shape)
    axis = config.get("axis")
    if axis is None or not 3 <= rank <= 5 or config.get("initial") is not None:
        return None
    axes = {a % rank for a in (axis if isinstance(axis, (list, tuple)) else (axis,))}
    formats = {"channels_last": range(1, rank - 1), "channels_first": range(2, rank)}
    for data_format, spatial in formats.items():
        if axes == set(spatial):
            reduction = _REDUCTIONS[operation.kind]
            keepdims = bool(config.get("keepdims"))
            return Pooling(reduction, "global", rank - 2, data_format, keepdims=keepdims)
    return None


def as_sizes(size: Any, rank: int) -> Sizes:
    """A size as one number for each spatial axis."""
    if isinstance(size, int):
        return (size,) * rank
    return tuple(int(s) for s in size)


def spatial(shape: tuple[int | None, ...], data_format: str) -> tuple[int | None, ...]:
    """The spatial axes of a shape that has its batch axis."""
    return shape[1:-1] if data_format == "channels_last" else shape[2:]


def channels(shape: tuple[int | None, ...], data_format: str) -> int | None:
    """The number of channels of a shape."""
    return shape[-1] if data_format == "channels_last" else shape[1]
