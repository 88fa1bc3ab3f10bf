"""Layers that bring the output of one member into the shape of the next one's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from saikei.codec import ToDict
from saikei.errors import FusionError
from saikei.graph import TensorSpec

_CONVOLUTIONS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}


@dataclass(frozen=True)
class Adapter(ToDict):
    """The layers between two members of a chain.

    Args:
        before: The number of the member behind the adapter, from 1.
        given: The shape of the output of the member before it, batch axis first.
        taken: The shape of the input of the member behind it.
        layers: The kinds of its layers, in order; empty where the shapes fit.
    """

    before: int
    given: tuple[int | None, ...]
    taken: tuple[int | None, ...]
    layers: tuple[str, ...]

    def __str__(self) -> str:
        layers = " → ".join(self.layers) or "nothing"
        return f"before member {self.before}: {self.given} to {self.taken} by {layers}"


def adapter_layers(given: TensorSpec, taken: TensorSpec, before: int) -> list[keras.Layer]:
    """New layers from one shape to another; none where the shapes fit already.

    Vectors, and sequences, images and volumes with the channels last, go through a Dense layer
    or a 1×1 convolution where the channels differ, and images through a Resizing where their
    size does. Tensors of different rank are connected by a Flatten, a Dense layer of the size of
    the input that is needed, and a Reshape.

    Args:
        given: The output of the member before.
        taken: The input of the member behind.
        before: The number of the member behind, from 1, for names and messages.

    Raises:
        FusionError: When no such layers connect the shapes.
    """
    if not keras.backend.is_float_dtype(taken.dtype):
        raise FusionError(
            f"Member {before} takes {taken.dtype} (tokens or the like), which no member before "
            "it gives: put it first, or start it behind its embedding."
        )
    if _fits(given.shape, taken.shape):
        return []
    prefix = f"adapter_{before}"
    if len(given.shape) == len(taken.shape):
        found = _same_rank(given.shape, taken.shape, prefix)
    else:
        found = _through_a_vector(given.shape, taken.shape, prefix)
    if found is None:
        raise FusionError(
            f"No adapter leads from {given.shape}, the output of member {before - 1}, to "
            f"{taken.shape}, the input of member {before}: put layers between them that do, for "
            "example a Reshape, and give their model as a member."
        )
    return found


def _fits(given: Sequence[int | None], taken: Sequence[int | None]) -> bool:
    return len(given) == len(taken) and all(
        needed in (None, have) for have, needed in zip(given[1:], taken[1:], strict=True)
    )


def _same_rank(
    given: tuple[int | None, ...], taken: tuple[int | None, ...], prefix: str
) -> list[keras.Layer] | None:
    layers: list[keras.Layer] = []
    if not _fits(given[:-1], taken[:-1]):
        size = taken[1:-1]
        if len(given) != 4 or None in size:
            return _through_a_vector(given, taken, prefix)
        layers.append(
            keras.layers.Resizing(*size, data_format="channels_last", name=f"{prefix}_resizing")
        )
    if not _fits(given[-1:] * 2, taken[-1:] * 2):
        if taken[-1] is None or given[-1] is None:
            return None
        layers.append(_mixing(len(given) - 2, taken[-1], f"{prefix}_channels"))
    return layers


def _mixing(spatial: int, channels: int, name: str) -> keras.Layer:
    """A linear map of the channels at each position."""
    if spatial in _CONVOLUTIONS:
        return _CONVOLUTIONS[spatial](channels, 1, data_format="channels_last", name=name)
    return keras.layers.Dense(channels, name=name)


def _through_a_vector(
    given: tuple[int | None, ...], taken: tuple[int | None, ...], prefix: str
) -> list[keras.Layer] | None:
    sizes = [size for size in taken[1:] if size is not None]
    if None in given[1:] or len(sizes) != len(taken) - 1 or not sizes:
        return None
    layers: list[keras.Layer] = []
    if len(given) > 2:
        layers.append(keras.layers.Flatten(name=f"{prefix}_flatten"))
    layers.append(keras.layers.Dense(int(np.prod(sizes)), name=f"{prefix}_dense"))
    if len(taken) > 2:
        layers.append(keras.layers.Reshape(tuple(sizes), name=f"{prefix}_reshape"))
    return layers
