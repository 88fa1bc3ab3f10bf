"""Ways in which inputs are commonly prepared for a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import Array

_IMAGENET = "keras.applications.imagenet_utils.preprocess_input"


@dataclass(frozen=True, eq=False)
class Way:
    """A way to prepare inputs.

    Args:
        done: what is done to them, in words.
        mend: code that does it in a graph, to the symbolic tensor `x`.
        change: the same for arrays.
    """

    done: str
    mend: str
    change: Callable[[Array], Array]


def changed(way: Way, x: Any) -> Any:
    """Inputs prepared in a way; whole numbers, such as tokens, stay as they are."""
    return tree.map_structure(lambda one: way.change(one) if can_change(one) else one, x)


def can_change(array: Array) -> bool:
    """Whether an input holds numbers of a scale, and no tokens or text."""
    return array.ndim > 1 and array.dtype.kind == "f"


def _is_coloured(array: Array) -> bool:
    return array.ndim == 4 and array.shape[-1] == 3


def ways(x: Any) -> Iterator[Way]:
    """What inputs of these kinds may want done to them."""
    inputs = [one for one in tree.flatten(x) if can_change(one)]
    if not inputs:
        return
    low, high = min(one.min() for one in inputs), max(one.max() for one in inputs)
    yield from (way for least, most, way in _RANGES if least <= low and high <= most)
    yield Way(
        "brought to mean 0 and variance 1",
        "keras.layers.Normalization(mean=…, variance=…)(x) with those of its training data",
        _standardised,
    )
    if all(_is_coloured(one) for one in inputs):
        yield Way("read as BGR", "keras.ops.flip(x, axis=-1)", lambda one: one[..., ::-1])
        for mode in ("caffe", "torch"):
            yield _as_imagenet(mode)


def _rescaled(done: str, scale: float, offset: float, written: str) -> Way:
    return Way(
        done,
        f"keras.layers.Rescaling({written})(x)",
        lambda one: np.asarray(one * scale + offset, dtype=one.dtype),
    )


def _standardised(array: Array) -> Array:
    rest = tuple(range(array.ndim - 1))
    spread = array.std(axis=rest)
    scaled = (array - array.mean(axis=rest)) / np.where(spread > 0, spread, 1.0)
    return np.asarray(scaled, dtype=array.dtype)


def _as_imagenet(mode: str) -> Way:
    prepare = keras.applications.imagenet_utils.preprocess_input
    return Way(
        f"prepared as for ImageNet in {mode.capitalize()}",
        f"{_IMAGENET}(x, mode='{mode}')",
        lambda one: np.asarray(prepare(one.copy(), data_format="channels_last", mode=mode)),
    )


# Of pixels, by the range that they have.
_RANGES = (
    (0, 255, _rescaled("divided by 255", 1 / 255, 0.0, "1 / 255")),
    (0, 255, _rescaled("brought from 0…255 to -1…1", 1 / 127.5, -1.0, "1 / 127.5, offset=-1")),
    (0, 1, _rescaled("multiplied by 255", 255.0, 0.0, "255")),
    (0, 1, _rescaled("brought from 0…1 to -1…1", 2.0, -1.0, "2, offset=-1")),
    (-1, 1, _rescaled("brought from -1…1 to 0…1", 0.5, 0.5, "0.5, offset=0.5")),
    (-1, 1, _rescaled("brought from -1…1 to 0…255", 127.5, 127.5, "127.5, offset=127.5")),
)
