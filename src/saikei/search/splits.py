"""The data of a run: checked against the models, with a validation part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from saikei.checks import check_inputs, input_count
from saikei.data import arrays, check_data, gathered, hold_out
from saikei.dataset_batches import dataset_length
from saikei.errors import DataError
from saikei.scoring import infer_tasks
from saikei.search.originals import input_names

HELD_OUT = 0.2


@dataclass(frozen=True)
class SearchData:
    """The data of a search.

    Args:
        train: `(x, y)` or `(x, y, sample_weight)` arrays, or the dataset that was given.
        validation: `(x, y)` arrays.
        test: `(x, y)` arrays, or `None`.
        samples: Number of samples of each part, by name; 0 if unknown.
    """

    train: Any = field(repr=False)
    validation: Any = field(repr=False)
    test: Any = field(repr=False)
    samples: Mapping[str, int]

    def steps(self, batch_size: int) -> int | None:
        """Steps of an epoch; `None` where a dataset does not know.

        Args:
            batch_size: Rows of a step; a dataset has its own.
        """
        if not isinstance(self.train, tuple):
            return dataset_length(self.train, "train")
        return -(-self.samples["train"] // batch_size)


def search_data(
    models: Mapping[str, keras.Model], train: Any, validation: Any, test: Any, seed: int
) -> SearchData:
    """Check the data against every model, and hold out validation data if none is given.

    Validation and test data are read into arrays: paired comparisons need a fixed order.

    Args:
        models: The given models by name.
        train: `(x, y)` or `(x, y, sample_weight)` arrays, or a dataset.
        validation: Data in the same forms, or `None` to hold out a fifth of `train`.
        test: Data in the same forms, or `None`.
        seed: Seed of the hold-out.

    Raises:
        DataError: If a part does not fit a model, or `train` is a dataset and there is no
            validation data.
    """
    if validation is None:
        if not isinstance(train, tuple):
            raise DataError(
                "There is no validation data, and a dataset cannot be split without reading it: "
                "give validation=, or train as (x, y) arrays."
            )
        train, validation = hold_out(train, HELD_OUT, seed=seed)
    parts = {"validation": gathered(validation, "validation").parts}
    if isinstance(train, tuple):
        parts["train"] = train
    if test is not None:
        parts["test"] = gathered(test, "test").parts
    _check_named(models, parts, train)
    for model in models.values():
        for name, part in parts.items():
            _check(model, part, name)
    counts = {name: len(keras.tree.flatten(part[0])[0]) for name, part in parts.items()}
    samples = {name: counts.get(name, 0) for name in ("train", "validation", "test")}
    return SearchData(train, parts["validation"], parts.get("test"), samples)


def _check_named(
    models: Mapping[str, keras.Model], parts: Mapping[str, tuple[Any, ...]], train: Any
) -> None:
    """Refuse data that does not name the inputs of models which read different ones."""
    each = {input_names(model) for model in models.values()}
    if len(each) < 2:
        return
    names = ", ".join(f"'{name}': …" for name in sorted({one for names in each for one in names}))
    if not isinstance(train, tuple):
        raise DataError(
            "The models read different inputs, and train is a dataset: give it as arrays, "
            f"({{{names}}}, y)."
        )
    for name, part in parts.items():
        if not isinstance(part[0], dict):
            raise DataError(
                f"The models read different inputs, and the {name} data does not name them: give "
                f"({{{names}}}, y)."
            )


def _check(model: keras.Model, part: tuple[Any, ...], name: str) -> None:
    """Refuse data that does not fit a model; labels may be NaN where its loss leaves these out."""
    x, y = arrays(part[:2], name, inputs=input_count(model))
    if all(np.isfinite(one).all() for one in keras.tree.flatten(y) if one.dtype.kind == "f"):
        check_data(model, part[:2], name)
        return
    check_inputs(model, x, name)
    infer_tasks(model, y)
