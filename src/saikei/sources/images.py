"""A folder of images with a sub-folder for each class, read by Keras in the size of the model."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saikei.data import Arrays
from saikei.errors import DataError, in_one_line
from saikei.npz import Archive
from saikei.sources.classes import check_classes, shortened

if TYPE_CHECKING:
    import keras

# What `keras.utils.image_dataset_from_directory` reads.
_READ = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
_OTHER = (".avif", ".heic", ".tif", ".tiff", ".webp")
# What TensorFlow writes before the reason of an error.
_PLACE = re.compile(
    r"\{\{.*?\}\}|Error in user-defined function.*?transformation|with iterator: \S+"
)
_COLOURS = {1: "grayscale", 3: "rgb", 4: "rgba"}
_PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_LAYOUT = (
    "give a folder with a sub-folder for each class, or with train/, val/ and test/ that hold these"
)
# float32 numbers of all images of a part, 8 GiB.
_MOST = 1 << 31


def read_images(folder: Path, model: keras.Model, divide_by: float | None, labels: bool) -> Archive:
    """Read all images of a folder into arrays.

    Args:
        folder: Holds a sub-folder for each class; or `train`, `val` and `test`, which hold these.
        model: Its input gives height, width and the number of colours.
        divide_by: What the values, 0 to 255, are divided by; `None` leaves them.
        labels: Whether images without sub-folders, which have no labels, are refused.

    Raises:
        DataError: If the model takes no images, a class has none, or an image is damaged.
    """
    size = _image_size(model)
    if divide_by is not None and not divide_by > 0:
        raise DataError(f"--divide-by {divide_by} is no number above 0: give 255 for 0 to 1.")
    if divide_by is None and not _scales(model):
        warnings.warn(
            "The images are given as numbers from 0 to 255, and the model has no Rescaling or "
            "Normalization layer: if it was trained on 0 to 1, add --divide-by 255.",
            stacklevel=2,
        )
    found = {path.name: path for path in _folders(folder)}
    parts = {_PARTS[name]: path for name, path in found.items() if name.lower() in _PARTS}
    if not parts:
        classes = _classes(folder, model, labels)
        train = _part(folder, classes, size, divide_by)
        return Archive(folder, train=train, classes=classes, only=True)
    if len(parts) < len(found):
        other = sorted(set(found) - {path.name for path in parts.values()})
        raise DataError(
            f"'{folder}' holds parts and other folders ({shortened(other)}): {_LAYOUT}."
        )
    named = {part: _classes(path, model, labels) for part, path in parts.items()}
    first = next(iter(named))
    for part, classes in named.items():
        if classes != named[first]:
            differ = sorted(set(classes) ^ set(named[first]))
            raise DataError(
                f"'{parts[part]}' and '{parts[first]}' hold other classes: {shortened(differ)} "
                "is in one of them only; give each part the same sub-folders."
            )
    read: dict[str, Any] = {
        part: _part(path, named[part], size, divide_by) for part, path in parts.items()
    }
    return Archive(folder, classes=named[first], **read)


def _image_size(model: keras.Model) -> tuple[int, int, int]:
    """Height, width and colours of the images that a model takes."""
    inputs = getattr(model, "inputs", None) or []
    shape = tuple(inputs[0].shape[1:]) if len(inputs) == 1 else ()
    if len(shape) != 3 or shape[2] not in _COLOURS:
        raise DataError(
            f"Model '{model.name}' does not take one image of 1, 3 or 4 colours (height, width, "
            "colours), and the data is a folder: give an .npz, a table or module:function."
        )
    if None in shape:
        raise DataError(
            f"Model '{model.name}' takes images of any size, and the data is a folder: give "
            "module:function, which returns a dataset of the size that you want."
        )
    return shape


def _scales(model: Any) -> bool:
    """Whether a model, or one within it, has a layer that scales its inputs."""
    return any(
        type(layer).__name__ in ("Rescaling", "Normalization", "BatchNormalization")
        or (hasattr(layer, "layers") and _scales(layer))
        for layer in model.layers[:8]
    )


def _folders(folder: Path) -> list[Path]:
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in visible if path.is_dir())


def _classes(folder: Path, model: keras.Model, labels: bool) -> tuple[str, ...]:
    """Names of the sub-folders, after a look at what is in them; none for unlabelled images."""
    folders = _folders(folder)
    if not folders:
        if labels or not _images(folder):
            what = "images without sub-folders" if _images(folder) else "no images"
            raise DataError(f"'{folder}' holds {what}: {_LAYOUT}.")
        return ()
    for path in folders:
        if not _images(path):
            others = sorted({p.suffix.lower() for p in path.rglob("*")} & set(_OTHER))
            reason = f"only {', '.join(others)} files, which are not read" if others else "no image"
            raise DataError(
                f"The folder of class '{path.name}' holds {reason}: put images ({', '.join(_READ)})"
                f" into '{path}', or remove it."
            )
    names = tuple(path.name for path in folders)
    check_classes(model, names, f"'{folder}'")
    return names


def _images(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix.lower() in _READ]


def _part(
    folder: Path, classes: tuple[str, ...], size: tuple[int, int, int], divide_by: float | None
) -> Arrays:
    """The images of a folder `(n, height, width, colours)`, and the numbers of their classes."""
    import keras

    # "dog/._a.jpg" and the like are no images.
    try:
        dataset = keras.utils.image_dataset_from_directory(
            str(folder),
            labels="inferred" if classes else None,
            label_mode="int" if classes else None,
            class_names=list(classes) or None,
            color_mode=_COLOURS[size[2]],
            batch_size=None,
            image_size=size[:2],
            shuffle=False,
            data_format="channels_last",
            verbose=False,
        )
    except ImportError as error:
        raise DataError(
            "Folders of images are read with TensorFlow, which is not installed: pip install "
            "'saikei[tensorflow]', or give an .npz."
        ) from error
    paths = dataset.file_paths
    if len(paths) * size[0] * size[1] * size[2] > _MOST:
        raise DataError(
            f"'{folder}' holds {len(paths):,} images, more than fit into 8 GiB at {size[0]}×"
            f"{size[1]}: give module:function, which returns a dataset."
        )
    x = np.empty((len(paths), *size), np.float32)
    y = np.zeros(len(paths), np.int64)
    _fill(dataset, paths, x, y if classes else None)
    if divide_by is not None:
        x /= np.float32(divide_by)
    return x, (y if classes else None)


def _fill(dataset: Any, paths: list[str], x: NDArray[Any], y: NDArray[Any] | None) -> None:
    done = 0
    try:
        for element in dataset:
            if y is not None:
                image, label = element
                y[done] = int(label)
            else:
                image = element
            x[done] = np.asarray(image)
            done += 1
    # What is in a file decides what its decoder raises.
    except Exception as error:
        reason = _PLACE.sub("", in_one_line(error, 1000)).partition(" [Op:")[0].strip()[:120]
        raise DataError(
            f"'{paths[done]}' is no image that can be read ({reason}): remove or replace it."
        ) from error
