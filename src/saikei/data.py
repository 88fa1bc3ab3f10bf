"""Data that users hand in: gathered from a dataset, checked and split.

Keras is imported where it is needed, so that wrong data is refused at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saikei.batches import ArrayData, as_arrays, sample_count
from saikei.checks import check_inputs, check_values, input_count
from saikei.dataset_batches import dataset_batches, join_batches, to_arrays
from saikei.errors import DataError

if TYPE_CHECKING:
    import keras

# Inputs and labels; either may be nested as the model nests its inputs and outputs.
Arrays: TypeAlias = tuple[Any, Any]


@dataclass(frozen=True)
class Splits:
    """The parts of a data set, each `(x, y)` with one sample a row.

    Args:
        train: The part to train on.
        validation: The part to choose by; `None` where it has to be held out.
        test: The part to score once, at the end; `None` where there is none.
    """

    train: Arrays
    validation: Arrays | None = None
    test: Arrays | None = None


def arrays(data: Any, name: str = "given", *, labels: bool = True, inputs: int = 1) -> Arrays:
    """Gather anything that `keras.Model.fit` takes into arrays, in one pass.

    Args:
        data: `(x, y)`, a `tf.data.Dataset`, a `keras.utils.PyDataset` or a torch `DataLoader`;
            without labels also `x`, `(x,)` or `(x, None)`, or a dataset of inputs.
        name: The name of the argument, for messages.
        labels: Whether there have to be some.
        inputs: How many inputs the model takes; a list of as many arrays is its inputs.

    Returns:
        `(x, y)`, nested as they came; `y` is `None` where there are no labels.

    Raises:
        DataError: When there are no labels and they are needed, there are sample weights, there
            are numbers where arrays should be, or the dataset is empty, endless or of an unknown
            kind.
    """
    whole = gathered(data, name, labels=labels, inputs=inputs)
    if whole.weights is not None:
        raise DataError(
            f"The {name} data holds sample weights: give (x, y); sample weights are not used."
        )
    return whole.x, whole.y


def gathered(
    data: Any, name: str = "given", *, labels: bool = True, inputs: int = 1, as_is: bool = True
) -> ArrayData:
    """Any data as arrays, with its sample weights.

    Args:
        data: What `arrays` takes, also with sample weights.
        name: The name of the argument, for messages.
        labels: Whether there have to be some.
        inputs: How many inputs the model takes; a list of as many arrays is its inputs.
        as_is: Whether float64 stays, rather than becoming the type that Keras computes in.

    Raises:
        DataError: When it is empty, endless, without labels that are needed, or its parts do not
            fit together.
    """
    found = as_arrays(data, name, labels=labels, inputs=inputs, as_is=as_is)
    if found is not None:
        return found
    once = hasattr(data, "__next__")
    batches = dataset_batches(data, name, labels=labels, inputs=inputs, some=once)
    joined = join_batches([to_arrays(batch, name) for batch in batches], name)
    made = as_arrays(joined.parts, name, labels=labels, inputs=inputs, as_is=as_is)
    assert made is not None
    return made


def check_data(model: keras.Model, data: Any, name: str = "train") -> None:
    """Refuse data that a model cannot be trained on or scored by.

    Whether the labels fit the outputs depends on the loss, and is for
    `saikei.scoring.infer_task` to check.

    Args:
        model: A built model.
        data: What `arrays` takes.
        name: The name of the data, for messages.

    Raises:
        DataError: When it is empty, holds NaN or infinite numbers, has other shapes than the
            model's inputs, or another number of labels than of samples.
    """
    from keras import tree

    x, y = arrays(data, name, inputs=input_count(model))
    check_inputs(model, x, name)
    for array in tree.flatten(y):
        check_values(array, f"labels of the {name} data")


def hold_out(
    data: Any, share: float = 0.2, seed: int = 0, stratify: bool = True
) -> tuple[Any, Any]:
    """Split a random part off.

    Args:
        data: What `arrays` takes, also with sample weights.
        share: The part of the samples that is held out, between 0 and 1.
        seed: The seed of the choice.
        stratify: Hold out the same share of each class; the only sample of its class stays in
            the rest. Labels are classes when they are one whole number or one one-hot row a
            sample, and neither part is too small to have all of them; other labels are split
            at random.

    Returns:
        The rest and the part held out, both in the order in which they came.

    Raises:
        DataError: When the share leaves one of the two empty, or the arrays have different
            lengths.
    """
    from sklearn.model_selection import train_test_split

    whole = gathered(data).parts
    count = sample_count(whole, "given")
    held = round(share * count) if 0 < share < 1 else 0
    if not 0 < held < count:
        raise DataError(f"A share of {share} cannot be held out of {count} samples: give more.")
    rows, classes = np.arange(count), _classes(whole[1]) if stratify else None
    if classes is not None:
        rows, classes = _strata(classes, held)
    # scikit-learn takes seeds of 32 bits.
    _, chosen = train_test_split(rows, test_size=held, random_state=seed % 2**32, stratify=classes)
    mask = np.isin(np.arange(count), chosen)
    return _rows(whole, ~mask), _rows(whole, mask)


def _classes(y: Any) -> NDArray[Any] | None:
    """The class of each sample; `None` where labels are no classes."""
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "biuf":
        return None
    labels = y
    if y.ndim == 2 and y.shape[1] > 1:
        one_hot = np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()
        if not one_hot:
            return None
        labels = y.argmax(axis=1)
    if labels.size != len(labels) or (labels != np.round(labels)).any():
        return None
    return labels.reshape(-1)


def _strata(classes: NDArray[Any], held: int) -> tuple[NDArray[np.int64], NDArray[Any] | None]:
    """The rows to hold out from, and their classes; all and `None` where strata are too small."""
    _, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[inverse] > 1)
    if len(counts) > held or int((counts > 1).sum()) > len(rows) - held:
        return np.arange(len(classes)), None
    return rows, classes[rows]


def _rows(data: Any, mask: NDArray[np.bool_]) -> Any:
    from keras import tree

    return tree.map_structure(lambda array: array[mask], data)
