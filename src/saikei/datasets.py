"""Data sets for demos, tests and benchmarks: real images that need no or little download."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saikei.data import Arrays, Splits, hold_out
from saikei.errors import DataError

# Where Debian's package dataset-fashion-mnist puts its four files.
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def digits(seed: int = 0, size: int = 8) -> Splits:
    """The 1,797 handwritten digits that scikit-learn ships, 60 / 20 / 20 % by class.

    Args:
        seed: The seed of the split.
        size: Height and width of the images in pixels, at least 8. Every pixel of the original
            8 × 8 is repeated as often as fits, and a margin of zeros fills the rest.

    Returns:
        Images `(n, size, size, 1)`, float32 from 0 to 1, and class numbers `(n,)`.

    Raises:
        DataError: When `size` is below 8.
    """
    from sklearn.datasets import load_digits

    if size < 8:
        raise DataError(f"size={size}: the digits have 8 × 8 pixels, so give 8 or more.")
    bunch = load_digits()
    x = _enlarged((bunch.images[..., None] / 16).astype("float32"), size)
    rest, test = hold_out((x, bunch.target), 0.2, seed=seed)
    train, validation = hold_out(rest, 0.25, seed=seed)
    return Splits(train, validation, test)


def _enlarged(images: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    repeats, margin = divmod(size, images.shape[1])
    before = margin // 2
    around = (before, margin - before)
    large = images.repeat(repeats, axis=1).repeat(repeats, axis=2)
    return np.pad(large, ((0, 0), around, around, (0, 0)))


def fashion_mnist(validation: int = 10_000, folder: Path = FASHION_MNIST) -> Splits:
    """The 70,000 pictures of clothes of Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017).

    Debian's package `dataset-fashion-mnist` is used where it is installed, otherwise Keras's
    download.

    Args:
        validation: How many of the 60,000 training samples to hold out, from the end.
        folder: The folder of the four files, if they are installed.

    Returns:
        Images `(n, 28, 28, 1)`, float32 from 0 to 1, and class numbers `(n,)`.

    Raises:
        DataError: When the data is neither installed nor to be downloaded, or is damaged.
    """
    (x, y), test = _installed(folder) if folder.is_dir() else _downloaded()
    if not 0 < validation < len(x):
        raise DataError(f"validation={validation}: hold out between 1 and {len(x) - 1} samples.")
    x, y, test = _scaled(x), y.astype("int64"), (_scaled(test[0]), test[1].astype("int64"))
    return Splits((x[:-validation], y[:-validation]), (x[-validation:], y[-validation:]), test)


def _scaled(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return images[..., None].astype(np.float32) / np.float32(255)


def _downloaded() -> tuple[Arrays, Arrays]:
    import keras

    try:
        train, test = keras.datasets.fashion_mnist.load_data()
    # Keras raises a bare Exception when a download fails.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"Fashion-MNIST is neither installed nor to be downloaded ({reason}): go online, or "
            "apt-get install dataset-fashion-mnist."
        ) from error
    return train, test


def _installed(folder: Path) -> tuple[Arrays, Arrays]:
    return _part(folder, "train"), _part(folder, "t10k")


def _part(folder: Path, name: str) -> Arrays:
    x = _idx(folder / f"{name}-images-idx3-ubyte.gz")
    y = _idx(folder / f"{name}-labels-idx1-ubyte.gz")
    if len(x) != len(y):
        raise DataError(
            f"'{folder}' holds {len(x)} pictures and {len(y)} labels in its {name} files: "
            "apt-get install --reinstall dataset-fashion-mnist."
        )
    return x, y


_BYTES = b"\0\0\x08"


def _idx(path: Path) -> NDArray[Any]:
    """An array of bytes in the IDX format: two zeros, type 8, rank, big-endian sizes, data."""
    try:
        content = gzip.decompress(path.read_bytes())
        if content[:3] != _BYTES:
            raise ValueError("it holds no bytes in the IDX format")
        rank = content[3]
        shape = np.frombuffer(content, ">u4", count=rank, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise DataError(
            f"'{path}' cannot be read ({error}): apt-get install --reinstall dataset-fashion-mnist."
        ) from error
