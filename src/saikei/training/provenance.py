"""Which rows a model was trained on, and whether data is held out from it.

`fit`, `distill` and `cross_fit` write down what they train on; edits, copies and fusions of a
model inherit it, and so does a model that shares its layers. It is kept in the process, 8 bytes
a row, and goes with the model: nothing of it is saved in a file, so a model that was loaded, or
trained by `keras.Model.fit`, has no known past until `declare_training_rows` is called.

What counts is what moved the weights. The validation data of `fit` chose an epoch, and the data
of an edit refitted layers to what they gave before, without labels: neither counts. The rows
that a teacher was trained on count for its student, which learns their labels through it. Rows
are known as the model gets them: of a dataset that augments, the rows of one pass are known,
and the originals have to be declared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from saikei.batches import ArrayData, as_arrays
from saikei.checks import check_inputs, input_count
from saikei.dataset_batches import first_batch
from saikei.errors import FusionError, ModelError
from saikei.graph import mark, marks_of
from saikei.training.digests import Digests, digest_data, digest_rows


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Rows that moved a model's weights.

    Args:
        digests: The digests of their inputs, uint64, sorted, each once.
        by: What trained on them, such as `"fit"`.
    """

    digests: Digests
    by: str


def declare_training_rows(model: keras.Model, data: Any) -> None:
    """Declare the rows that a model was trained on, where Saikei did not train it.

    For a model that was loaded from a file, trained by `keras.Model.fit`, or trained on augmented
    data. Adds to what is known.

    Args:
        model: A Keras model.
        data: `(x, y)` arrays or a dataset that `keras.Model.fit` takes, or inputs alone.

    Raises:
        ModelError: When the object is no Keras model.
        DataError: When the data is empty, never ends, or does not fit the model.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> x = np.arange(6.0).reshape(3, 2)
        >>> declare_training_rows(model, (x, x.sum(axis=1)))
        >>> int(is_in_sample(model, (x[1:] + [[0], [9]], x[1:, 0])).sum())
        1
    """
    if not isinstance(model, keras.Model):
        raise ModelError(f"Expected a keras.Model, got {type(model).__name__}: give a model.")
    inputs = input_count(model)
    arrays = as_arrays(data, "given", labels=False, inputs=inputs)
    first = arrays or first_batch(data, "given", labels=False, inputs=inputs)
    check_inputs(model, first.x, "given", batch=arrays is None)
    record_rows(model, digest_data(data, inputs=inputs), "declare_training_rows")


def record_rows(model: keras.Model, digests: Digests, by: str) -> None:
    """Write down that a model was trained on rows.

    Args:
        model: What was trained, or is about to be.
        digests: The digests of the rows.
        by: What trains.
    """
    rows = TrainingRows(np.unique(digests), by)
    known = (old for old in training_rows(model) if np.array_equal(old.digests, rows.digests))
    # Training again on the same rows must not pile up.
    mark(model, [next(known, rows)], trainable_only=True)


@contextmanager
def recording(
    model: keras.Model, arrays: ArrayData | None, dataset: Any, by: str
) -> Iterator[None]:
    """Write down what a model is trained on while the body trains it, even if it fails.

    Arrays are digested before. A dataset is read once more afterwards, so that training sees the
    passes that it would have seen without this.

    Args:
        model: What is trained.
        arrays: The training data, where it is in memory.
        dataset: The training data otherwise.
        by: What trains.
    """
    if arrays is not None:
        record_rows(model, digest_rows(arrays.x), by)
    try:
        yield
    finally:
        if arrays is None:
            record_rows(model, digest_data(dataset, "train"), by)


def training_rows(model: keras.Model) -> tuple[TrainingRows, ...]:
    """What is known of the rows that a model was trained on; empty when nothing is."""
    return tuple(one for one in marks_of(model) if isinstance(one, TrainingRows))


def inherit_rows(model: keras.Model, sources: Sequence[keras.Model]) -> None:
    """Write down that a model was made from others, and so from what they were trained on.

    Models that are built from another's graph, or hold its layers, inherit without this.

    Args:
        model: The new one.
        sources: What its weights come from.
    """
    mark(model, [rows for source in sources for rows in training_rows(source)])


def is_in_sample(model: keras.Model, data: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows of the data the model is known to have been trained on.

    Args:
        model: A Keras model.
        data: `(x, y)` arrays or a dataset.

    Returns:
        Booleans `(n,)`.
    """
    return rows_in_sample(model, digest_data(data))


def rows_in_sample(model: keras.Model, digests: Digests) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of the rows with these digests the model is known to have been trained on."""
    return _among(training_rows(model), digests)


def check_held_out(
    members: Sequence[keras.Model], data: Any, allow_in_sample: bool = False
) -> None:
    """Refuse to fit a fusion on rows that a member was trained on.

    A member has learned the labels of such rows, so it looks better there than it is and gets more
    weight than it should. Members of unknown past are let through.

    Args:
        members: Keras models.
        data: `(x, y)` arrays or a dataset; it is read once, if any member's past is known.
        allow_in_sample: Fit on such rows all the same.

    Raises:
        FusionError: Naming the member, how many of the rows it was trained on, and the fixes.
        DataError: When the data is empty, never ends, or has no labels.
    """
    if not allow_in_sample and any(training_rows(member) for member in members):
        check_digests_held_out(members, digest_data(data))


def check_digests_held_out(
    members: Sequence[keras.Model],
    digests: Digests,
    allow_in_sample: bool = False,
    first: int = 1,
) -> None:
    """`check_held_out` for data that has been digested already; `first` numbers the members."""
    for number, member in enumerate(() if allow_in_sample else members, start=first):
        known = int(rows_in_sample(member, digests).sum())
        if known:
            by = ", ".join(dict.fromkeys(rows.by for rows in training_rows(member)))
            raise FusionError(
                f"Member {number} ('{member.name}') was trained on {known:,} of these "
                f"{len(digests):,} rows (by {by}), so a fit on them would trust it too much: give "
                "data that no member was trained on, train with cross_fit, which predicts out of "
                "fold, or override this with allow_in_sample=True."
            )


def _among(past: Sequence[TrainingRows], digests: Digests) -> np.ndarray[Any, np.dtype[np.bool_]]:
    found = np.zeros(len(digests), dtype=np.bool_)
    for rows in past:
        found |= np.isin(digests, rows.digests)
    return found
