"""Operations over channels that leave silent ones out of their statistics, for the oracle.

A layer normalisation takes its mean over all channels, silent ones too, so cutting those changes
the others. Its twin takes the mean over the channels that are kept: what the cut model has to
compute, on tensors of the old shape and with the old weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops

from saikei.channels import BoolMask, ChannelMap
from saikei.graph import Graph, Operation
from saikei.graph.internals import detached_copy
from saikei.rules.base import axes_of

Masks = Sequence[Sequence[float] | None]


def with_twins(graph: Graph, channel_map: ChannelMap, keep: BoolMask) -> Graph:
    """The graph with a twin in the place of each call that its rule calls inexact.

    Args:
        graph: The graph of `channel_map`, perhaps with other numbers.
        channel_map: The channels of the graph.
        keep: For each channel, whether its values count.
    """
    operations, calls = dict(graph.operations), list(graph.calls)
    for index, flow in enumerate(channel_map.flows):
        if flow.inexact is None:
            continue
        call = graph.calls[index]
        operation = graph.operations[call.operation]
        ref = call.inputs()[0]
        labels = channel_map.flows[ref.call].outputs[ref.output]
        masks = [
            None if v is None else channel_map.kept(v, keep).astype("float32").tolist()
            for v in labels
        ]
        # A shared layer without weights may drop other channels in each of its calls.
        name = operation.name if operation.weights else f"{operation.name}__{index}"
        operations[name] = _twin(operation, masks, name)
        calls[index] = replace(call, operation=name)
    used = {call.operation for call in calls}
    kept = {name: operation for name, operation in operations.items() if name in used}
    return replace(graph, operations=kept, calls=tuple(calls))


def _twin(operation: Operation, masks: Masks, name: str) -> Operation:
    config: dict[str, Any] = {"masks": masks, "name": name}
    if operation.kind in KINDS:
        settings = dict(operation.config or {})
        config |= {"kind": operation.kind, "settings": settings}
        config["shapes"] = {key: weight.shape for key, weight in operation.weights.items()}
        config["passes_mask"] = _passes_mask(operation.source)
        if "dtype" in settings:
            config["dtype"] = settings["dtype"]
        source: Any = KeptStatistics(**config)
    else:
        # Only what it reduces: its output has the other axes, silent channels and all.
        reduced = axes_of((operation.config or {}).get("axis"), len(masks))
        config["masks"] = [mask if axis in reduced else None for axis, mask in enumerate(masks)]
        config["operation"] = detached_copy(operation.source)
        source = OfKept(**config)
    return replace(operation, name=name, config=config, source=source)


def _passes_mask(operation: Any) -> bool:
    """Whether the mask of an input goes on to the output; with Keras's own operations it ends."""
    return bool(getattr(operation, "supports_masking", False))


_KINDS = "LayerNormalization RMSNormalization GroupNormalization ops.LayerNorm ops.RMSNorm"
KINDS = frozenset(_KINDS.split())


class KeptStatistics(keras.layers.Layer):
    """A normalisation whose statistics are of the kept indices alone; the others give 0.

    Args:
        kind: The kind of the operation.
        settings: The config of the operation.
        masks: For each axis of the input, 1 for each index that counts, 0 for the others.
        shapes: The shapes of its weights, by name.
        passes_mask: Whether Keras's mask of the input's steps goes on to the output.
    """

    def __init__(
        self,
        kind: str,
        settings: Any,
        masks: Masks,
        shapes: dict[str, Any],
        passes_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.kind, self.settings, self.masks, self.shapes = kind, settings, masks, shapes
        self.passes_mask, self.supports_masking = passes_mask, True

    def build(self, *_: Any) -> None:
        """Make weights of the operation's names and shapes."""
        for name, shape in self.shapes.items():
            setattr(self, name, self.add_weight(name=name, shape=shape, autocast=False))

    def call(self, x: Any, gamma: Any = None, beta: Any = None, scale: Any = None) -> Any:
        """Normalise; operations have their weights as arguments."""
        rank = len(x.shape)
        given = {"gamma": gamma, "beta": beta, "scale": scale}
        weights = {k: v if v is not None else getattr(self, k, None) for k, v in given.items()}
        axes = self._axes(rank)
        spread = list(range(1, rank)) if self.kind == "GroupNormalization" else axes
        y = self._normalised(ops.cast(x, "float32"), spread)
        factor = weights["gamma"] if weights["scale"] is None else weights["scale"]
        if factor is not None:
            y = y * _on_axes(factor, axes, x.shape)
        if weights["beta"] is not None:
            y = y + _on_axes(weights["beta"], axes, x.shape)
        kept = ops.convert_to_tensor(self._mask(rank, range(rank)))
        return ops.cast(y * kept, x.dtype)

    def _axes(self, rank: int) -> list[int]:
        axis = self.settings.get("axis", -1)
        return [int(a) % rank for a in (axis if isinstance(axis, (list, tuple)) else [axis])]

    def _normalised(self, x: Any, axes: list[int]) -> Any:
        epsilon = self.settings.get("epsilon")
        epsilon = keras.config.epsilon() if epsilon is None else epsilon
        ones_and_zeros = self._mask(len(x.shape), axes)
        share = float(np.mean(ones_and_zeros))
        # As a tensor: torch does not multiply what it follows by an array of NumPy's.
        mask = ops.convert_to_tensor(ones_and_zeros)

        def mean(values: Any) -> Any:
            return ops.mean(values * mask, axis=axes, keepdims=True) / share

        if "RMS" in self.kind:
            return x * ops.rsqrt(mean(x * x) + epsilon)
        centred = x - mean(x)
        scaled = x if self.settings.get("rms_scaling") else centred
        return scaled * ops.rsqrt(mean(centred * centred) + epsilon)

    def _mask(self, rank: int, axes: Any) -> np.ndarray:
        """Ones and zeros over some axes, of size 1 on the others."""
        mask = np.ones((1,) * rank, "float32")
        for axis in axes:
            own = self.masks[axis]
            if own is not None:
                mask = mask * _on_axes(np.asarray(own, "float32"), [axis], (1,) * rank)
        return mask

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        """The shape of the input."""
        return input_shape

    def compute_mask(self, _: Any, previous_mask: Any = None) -> Any:
        """The mask, where the operation passes it on."""
        return previous_mask if self.passes_mask else None


def _on_axes(vector: Any, axes: list[int], like: Any) -> Any:
    """A weight as an array that broadcasts against a tensor."""
    shape = [1] * len(like)
    for axis, size in zip(axes, vector.shape, strict=True):
        shape[axis] = size
    reshaped = vector.reshape(shape) if isinstance(vector, np.ndarray) else None
    return ops.cast(ops.reshape(vector, shape), "float32") if reshaped is None else reshaped


class OfKept(keras.layers.Layer):
    """An operation without weights, applied to the kept indices of its first input.

    Args:
        operation: The operation that is kept.
        masks: For each axis of the first input, 1 for each index that is kept; `None` for one
            that it does not reduce.
    """

    def __init__(self, operation: Any, masks: Masks, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.operation, self.masks = operation, masks
        self.supports_masking = True

    def call(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """What the operation gives for the kept indices."""
        for axis, mask in enumerate(self.masks):
            if mask is not None:
                x = ops.take(x, np.flatnonzero(mask), axis=axis)
        return self.operation.call(x, *args, **kwargs)

    def compute_output_spec(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """The shape of the output, which does not depend on the axes that are reduced."""
        return self.operation.compute_output_spec(x, *args, **kwargs)

    def compute_mask(self, x: Any, previous_mask: Any = None) -> Any:
        """The mask, where the operation passes it on."""
        passes = _passes_mask(self.operation)
        return self.operation.compute_mask(x, previous_mask) if passes else None
