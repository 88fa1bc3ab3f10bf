"""Samples that are images, and maps over them, as PNG files in `data:` addresses."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Larger images are shown at every other pixel, and so on.
_LARGEST = 96
# Arrays without an axis for colours are images if both of their sides have so many numbers.
_LEAST = 8
_FOR, _AGAINST = np.array([239.0, 68.0, 68.0]), np.array([59.0, 130.0, 246.0])

Array = NDArray[Any]


def as_image(x: Any, row: int) -> Array | None:
    """A sample as `(height, width, 1 or 3)`; `None` if the samples are no images.

    Args:
        x: The inputs of a model, one sample a row.
        row: The number of the sample.
    """
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "biuf":
        return None
    if x.ndim == 4 and x.shape[-1] in (1, 3):
        return np.asarray(x[row])
    if x.ndim == 3 and min(x.shape[1:]) >= _LEAST:
        return np.asarray(x[row][..., None])
    return None


def picture(pixels: Array) -> str:
    """An image, from its darkest to its brightest value.

    Args:
        pixels: `(height, width, 1)` or `(height, width, 3)`.
    """
    return _png(np.rint(255 * _scaled(_small(pixels))).astype(np.uint8))


def overlay(pixels: Array, weights: Array, power: float = 0.5) -> str:
    """An image in grey under a map in colours: red where it is above 0, blue where it is below.

    Args:
        pixels: `(height, width, 1)` or `(height, width, 3)`.
        weights: `(height, width)`; the colours are strongest at its largest absolute value.
        power: The power of the values that is drawn; below 1, small values are seen too.
    """
    grey = 255 * _scaled(_small(pixels)).mean(axis=-1, keepdims=True)
    small = _small(np.asarray(weights, dtype=np.float64)[..., None])
    strength = (np.abs(small) / max(float(np.abs(small).max()), np.finfo(float).tiny)) ** power
    colour = np.where(small >= 0, _FOR, _AGAINST)
    mixed = (1 - 0.85 * strength) * grey + 0.85 * strength * colour
    return _png(np.rint(mixed).astype(np.uint8))


def _small(pixels: Array) -> Array:
    step = max(1, -(-max(pixels.shape[:2]) // _LARGEST))
    return np.asarray(pixels[::step, ::step], dtype=np.float64)


def _scaled(pixels: Array) -> Array:
    low, high = float(pixels.min()), float(pixels.max())
    return (pixels - low) / (high - low or 1.0)


def _png(pixels: Array) -> str:
    height, width, colours = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if colours == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
