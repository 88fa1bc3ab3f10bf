"""Average pooling as a convolution that can be trained further."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from saikei.edits.replacing.poolings import Pooling
from saikei.graph import Operation, new_operation, new_weight

_DEPTHWISE = {1: keras.layers.DepthwiseConv1D, 2: keras.layers.DepthwiseConv2D}
_FULL = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}


def averaging_convolution(
    pooling: Pooling, channels: int, depthwise: bool, name: str, **settings: Any
) -> Operation:
    """A convolution that starts as the mean over a pooling's windows.

    It computes exactly the average pooling where the padding is `"valid"`. With `"same"` it
    differs at the border, where an average pooling does not count the padding.

    Args:
        pooling: A pooling over sliding windows.
        channels: How many there are.
        depthwise: One kernel for each channel; otherwise a full kernel whose diagonal is set.
        name: The name of the operation.
        settings: `dtype` and `trainable` of the layer.

    Raises:
        ValueError: When there is no such layer.
    """
    shared = {
        "strides": pooling.strides,
        "padding": pooling.padding,
        "data_format": pooling.data_format,
        "use_bias": False,
        "name": name,
        **settings,
    }
    share = 1.0 / float(np.prod(pooling.size))
    trainable = settings.get("trainable", True)
    if not depthwise:
        diagonal = np.eye(channels, dtype=np.float32) * np.float32(share)
        kernel = np.broadcast_to(diagonal, (*pooling.size, channels, channels)).copy()
        layer = _FULL[pooling.rank](channels, pooling.size, **shared)
        return new_operation(name, layer, {"kernel": new_weight(kernel, trainable)})
    if pooling.rank not in _DEPTHWISE:
        raise ValueError("Keras has no depthwise convolution over 3 axes; use 'conv'")
    if len(set(pooling.strides)) > 1:
        raise ValueError(
            f"a depthwise convolution needs equal strides and it has {pooling.strides}; use 'conv'"
        )
    kernel = np.full((*pooling.size, channels, 1), share, np.float32)
    layer = _DEPTHWISE[pooling.rank](pooling.size, **shared)
    return new_operation(name, layer, {"kernel": new_weight(kernel, trainable)})
