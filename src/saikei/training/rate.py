"""The learning rate that suits the weights that a training begins with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import keras
import numpy as np

from saikei.batches import ArrayData
from saikei.dataset_batches import first_batch
from saikei.errors import DataError
from saikei.scoring.labelled import Labelled
from saikei.scoring.masks import with_masks
from saikei.scoring.observed import counted_labels
from saikei.scoring.predictions import Predictions, bytes_of_outputs, rows_at_once
from saikei.training.best import Yardstick, some_batches
from saikei.training.plan import adam
from saikei.training.prepared import Prepared

# From what freshly drawn weights take down to what hardly moves trained ones.
RATES = (3e-3, 1e-3, 3e-4, 1e-4, 3e-5)
# Steps that each rate is tried for.
STEPS = 20
# Batches after those, to compare the rates on where there is no validation.
HELD_OUT = 8
_SAMPLES = 512
_BATCH = 32
# Weights that do better than the best constant by so much know something.
_CLEARLY = 0.9


def suited_rate(
    model: keras.Model,
    ready: Prepared,
    fresh: float,
    trainer: Callable[[keras.optimizers.Optimizer], keras.Model],
    batches: Any,
    labels: Callable[[Any], Any] | None = None,
) -> float:
    """A learning rate for Adam: a given one for fresh weights, and the best of a few for others.

    Weights are fresh where the model does no better than the best constant outputs. Otherwise
    each rate is tried for a few steps over the same batches, and the one with the lowest loss
    afterwards is taken: what a high rate destroys in weights that are carried over, the epochs
    that follow may not bring back. The model ends with the weights that it came with.

    Args:
        model: The model that is to be trained; compiled.
        ready: The data of the model.
        fresh: The rate for weights that are fresh, or no better than a constant.
        trainer: Compiles what is fitted, the model or a distiller around it, with an optimizer.
        batches: The training batches, in the order to train in.
        labels: A function from inputs to labels, where the data has none; `None` otherwise.
    """
    if not beats_constant(model, ready, labels):
        return fresh
    some = some_batches(batches, STEPS + HELD_OUT)
    optimizer = adam(model, RATES[0])
    fitted = trainer(optimizer)
    optimizer.build(fitted.trainable_variables)
    yardstick = Yardstick(fitted, model, some[STEPS:] or some, ready.validation)
    steps = _Batches(list(islice(cycle(some[:STEPS]), STEPS)))
    begin = fitted.get_weights()
    state = [keras.ops.convert_to_numpy(variable) for variable in optimizer.variables]
    losses = []
    for rate in RATES:
        for variable, number in zip(optimizer.variables, state, strict=True):
            variable.assign(number)
        optimizer.learning_rate = rate
        fitted.fit(steps, epochs=1, shuffle=False, verbose=0)
        losses.append(yardstick.loss())
        fitted.set_weights(begin)
    return RATES[int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))]


def beats_constant(
    model: keras.Model, ready: Prepared, labels: Callable[[Any], Any] | None = None
) -> bool:
    """Whether a model is clearly better than the best constant outputs, on some training data.

    Args:
        model: A compiled model.
        ready: The data of the model.
        labels: A function from inputs to labels, where the data has none; `None` otherwise.
    """
    some = _some(model, ready)
    if labels is not None:
        some = replace(some, y=labels(some.x))
    outputs, masks = with_masks(model, some.x).predict(some.x, _BATCH)
    try:
        truths = counted_labels(
            model, ready.tasks, Predictions(some.y, some.weights, outputs, masks)
        )
        counted = Labelled.of(ready.tasks, truths)
        ours, theirs = counted.loss(outputs), counted.loss(counted.prior(outputs))
        least = counted.least_loss()
    except DataError:
        # A loss that takes labels of a form of its own, outputs that are not finite, or nothing
        # of these rows counts.
        return False
    return ours - least < _CLEARLY * (theirs - least)


def _some(model: keras.Model, ready: Prepared) -> ArrayData:
    """Rows of the training data, as many as their outputs leave memory for."""
    if ready.arrays is None:
        return first_batch(ready.dataset, "train", labels=ready.labelled)
    most = min(_SAMPLES, rows_at_once(bytes_of_outputs(model, ready.arrays.x), _BATCH))
    # Not the first ones: arrays may be sorted by class.
    rows = np.random.default_rng(0).permutation(len(ready.arrays))[:most]
    return ready.arrays.take(np.sort(rows))


class _Batches(keras.utils.PyDataset):
    """Batches that are in memory, in one order."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__()
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        return self._batches[index]
