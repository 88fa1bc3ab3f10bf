"""`fit`: train a model with a schedule, the best weights kept and a progress bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import keras

from saikei.arguments import checked
from saikei.hub import runs_tasks
from saikei.scoring.class_weights import ClassWeight, weighed
from saikei.training.loop import seed_random_layers
from saikei.training.loop import train as run
from saikei.training.plan import Plan, verbosity
from saikei.training.prepared import Prepared, compile_for, compile_fresh, prepare
from saikei.training.provenance import recording
from saikei.training.rate import beats_constant, suited_rate
from saikei.training.sparsity import HasTarget, holding_zeros

# For weights that are fresh, or no better than a constant.
FRESH = 1e-3


@checked
@runs_tasks("model", data=("train", "validation"))
def fit(
    model: keras.Model,
    train: Any,
    validation: Any = None,
    *,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float | None = None,
    loss: Any = None,
    patience: int | None = None,
    seed: int = 0,
    progress: bool = True,
    verbose: Literal[0, 1, 2, "auto"] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    sparsify: HasTarget | None = None,
    keep_zeros: bool = True,
    class_weight: ClassWeight | None = None,
) -> keras.callbacks.History:
    """Train a model in place, as `keras.Model.fit` does.

    Adam runs over a schedule that warms up for 5 % of the steps and then falls to zero along a
    cosine. With validation data, the model ends with the weights of the epoch of the lowest
    validation loss; those that it came with count as epoch 0, so that training never makes it
    worse. Without, it keeps those that it came with only where they did better than a constant and
    the training loss ends higher.
    Afterwards the model is compiled with its loss, its metric and a new Adam
    at `learning_rate`, so that `model.evaluate` works and a later `model.fit` starts anew.

    The seed fixes the order of the samples of arrays (a dataset keeps its own order) and every
    random layer of the model; the initial weights are the model's. The global seeds of Keras,
    NumPy and the backend are neither used nor set. On the torch backend Keras draws the masks of
    a dropout layer that has no `seed` of its own from torch's global generator, out of reach.

    Args:
        model: A built model; it is trained in place.
        train: `(x, y)` arrays, with `x` and `y` nested as the model's inputs and outputs,
            `(x, y, sample_weight)`, or a `tf.data.Dataset`, `keras.utils.PyDataset` or torch
            `DataLoader`. It has to end: bound one that repeats, as in `dataset.take(1000)`. For a
            task of KerasHub also what its preprocessor takes, such as strings.
        validation: Data in any of the same forms; `None` for none.
        epochs: Passes over the data.
        batch_size: Samples a step; datasets bring their own.
        learning_rate: The peak of the schedule. `None` takes 1e-3 for a model that does no better
            than a constant yet. For weights that are carried over it is the best of five, from
            3e-3 down to 3e-5, after 20 steps each (on validation data where there is some).
        loss: A Keras loss; `None` takes the one that the model is compiled with, or infers it
            from the outputs and the labels.
        patience: Stop after so many epochs without a lower validation loss; `None` never stops.
        seed: See above.
        progress: Whether to show a progress bar.
        verbose: As in `keras.Model.fit`, 0 for nothing, 1 or `"auto"` for the progress bar and 2
            for one line an epoch; `None` goes by `progress`.
        callbacks: More Keras callbacks, run after ours.
        sparsify: A `saikei.Sparsify`: zeros that come gradually over the first two thirds of the
            steps, and the epoch with the best weights is one after that.
        keep_zeros: Whether kernels that are sparse keep their exact zeros. Rows, columns and
            window positions of zeros alone are no sparsity, and fill up.
        class_weight: A weight for each class number, or `"balanced"`, for arrays; they become
            sample weights, as `saikei.scoring.weigh_classes` makes them.

    Returns:
        Keras's history: `loss`, the metric, and with validation data `val_loss` and `val_…`. It
        also has `start`, the figures before training, `best_epoch`, 0 where the weights are those
        that the model came with, and `learning_rate`.

    Raises:
        DataError: When the data does not fit the model.
        InputError: When an argument is out of range.
        WorkError: When the loss stops being a number.

    Warns:
        TrainingWarning: When training made the model worse, so that it stays as it was.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> x = np.random.default_rng(0).normal(size=(64, 2))
        >>> history = fit(model, (x, x.sum(axis=1)), epochs=2, progress=False)
        >>> sorted(history.history)
        ['loss', 'mse']
    """
    rate = FRESH if learning_rate is None else learning_rate
    plan = Plan(epochs, batch_size, rate, patience, seed, verbosity(progress, verbose), callbacks)
    train = weighed(model, train, class_weight, loss)
    ready = prepare(model, train, validation, loss, batch_size)
    if learning_rate is None:
        plan = replace(plan, learning_rate=_suited(model, ready, batch_size, seed))
    seed_random_layers(model, seed)
    optimizer = plan.optimizer(model, ready.steps)
    with (
        recording(model, ready.arrays, ready.dataset, "fit"),
        holding_zeros(model, optimizer, plan, ready.steps, sparsify, keep_zeros) as whole_plan,
    ):
        compile_for(model, ready.tasks, optimizer)
        try:
            batches = ready.batches(batch_size, seed)
            beats = partial(beats_constant, model, ready)
            history = run(model, model, batches, ready.validation, whole_plan, ready.steps, beats)
        finally:
            # The schedule has run out: a later model.fit would learn nothing.
            compile_fresh(model, ready.tasks, plan.learning_rate)
    return history


def _suited(model: keras.Model, ready: Prepared, batch_size: int, seed: int) -> float:
    def compiled(optimizer: keras.optimizers.Optimizer) -> keras.Model:
        compile_for(model, ready.tasks, optimizer)
        return model

    return suited_rate(model, ready, FRESH, compiled, ready.batches(batch_size, seed))
