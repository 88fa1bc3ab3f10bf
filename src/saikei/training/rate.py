"""The learning rate that suits the weights that a training begins with."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import first_batch, for_keras
from saikei.errors import DataError
from saikei.scoring.inference import flat_labels
from saikei.scoring.labelled import Labelled
from saikei.tensors import to_floats
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
# Weights that do better than the best constant by so much know something.
_KNOWS = 0.9


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
        model: that is to be trained; compiled.
        ready: its data.
        fresh: the rate for weights that know nothing yet.
        trainer: compiles what is fitted, the model or a distiller around it, with an optimizer.
        batches: in the order to train in.
        labels: from inputs to labels, where the data has none.
    """
    if not knows(model, ready, labels):
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


def knows(model: keras.Model, ready: Prepared, labels: Callable[[Any], Any] | None = None) -> bool:
    """Whether a model does better than the best constant outputs, on some of the training data.

    Args:
        model: as it is now.
        ready: its data.
        labels: from inputs to labels, where the data has none.
    """
    x, y = _some(ready)
    try:
        truths = flat_labels(model, y if labels is None else labels(x))
        outputs = [to_floats(o) for o in tree.flatten(model.predict(for_keras(x), verbose=0))]
        some = Labelled.of(ready.tasks, truths)
        ours, theirs = some.loss(outputs), some.loss(some.prior(outputs))
        least = some.least_loss()
    except DataError:
        # A loss that takes labels of a form of its own, or outputs that are not finite.
        return False
    return ours - least < _KNOWS * (theirs - least)


def _some(ready: Prepared) -> tuple[Any, Any]:
    if ready.arrays is None:
        batch = first_batch(ready.dataset, "train", labels=ready.labelled)
        return batch.x, batch.y
    # Not the first ones: arrays may be sorted by class.
    rows = np.random.default_rng(0).permutation(len(ready.arrays))[:_SAMPLES]
    x, y = tree.map_structure(
        lambda leaf: None if leaf is None else leaf[np.sort(rows)], (ready.arrays.x, ready.arrays.y)
    )
    return x, y


class _Batches(keras.utils.PyDataset):
    """Batches that are in memory, in one order."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__()
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        return self._batches[index]
