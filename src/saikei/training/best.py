"""Which state of a model is the best one that training passed through, the first included."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, ArrayData, as_numpy, for_keras
from saikei.dataset_batches import check_end
from saikei.errors import TrainingWarning
from saikei.training.parts import TrainingState
from saikei.training.plan import Plan
from saikei.training.sharding import unsplit

VALIDATION_BATCH_SIZE = 1024
# Training data that states are compared on where there is no validation.
_SAMPLES = 1024
_BYTES = 2**26
# Below this relative difference there is no warning of a higher loss.
_ROUNDING = 1e-3


class Yardstick:
    """What states of a model are compared by: the validation loss, or the loss that is trained.

    Args:
        trainer: What is fitted, compiled: the model itself, or a distiller around it.
        model: What is validated, compiled.
        data: The training data, of which the first samples are kept where there is no validation.
        validation: Arrays or a dataset, or `None`.
    """

    def __init__(
        self, trainer: keras.Model, model: keras.Model, data: Any, validation: Any
    ) -> None:
        self.validates = validation is not None
        self._trainer, self._model = trainer, model
        self._data = validation if self.validates else some_batches(data)

    def figures(self) -> dict[str, float]:
        """The figures as the model is now: `val_…` on validation data, else the loss alone."""
        if not self.validates:
            return {"loss": self._training_loss()}
        if isinstance(self._data, ArrayData):
            found = self._evaluated(self._data)
        else:
            with unknown_end():
                found = self._model.evaluate(
                    self._data, verbose=0, return_dict=True, callbacks=[Ends()]
                )
        return {f"val_{name}": float(value) for name, value in found.items()}

    def _evaluated(self, data: ArrayData) -> dict[str, Any]:
        arguments = {"sample_weight": data.weights, "return_dict": True}
        x = for_keras(data.x)
        size = VALIDATION_BATCH_SIZE
        with unsplit(len(data) % size):
            if len(data) <= size:
                # The same without a pipeline, which takes longer to set up than a small model.
                return dict(self._model.test_on_batch(x, data.y, **arguments))
            return dict(self._model.evaluate(x, data.y, batch_size=size, verbose=0, **arguments))

    def loss(self) -> float:
        """The loss alone."""
        return self.figures()["val_loss" if self.validates else "loss"]

    def _training_loss(self) -> float:
        """The loss that is trained, as at inference; step by step, since nothing is compiled."""
        losses, sizes = [], []
        for batch in self._data:
            x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
            outputs = self._trainer(x, training=False)
            loss = self._trainer.compute_loss(x, y, outputs, weights, training=False)
            losses.append(float(keras.ops.convert_to_numpy(loss)))
            sizes.append(len(tree.flatten(x)[0]))
        return float(np.average(losses, weights=sizes))


class Ends(keras.callbacks.Callback):
    """Stops a pass over data of unknown length that has no end."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Check how many batches the epoch has had."""
        check_end(batch + 1, "train")

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Check how many batches the validation has had."""
        check_end(batch + 1, "validation")


@contextmanager
def unknown_end() -> Iterator[None]:
    """Leave out what Keras warns of at the end of every pass over data of unknown length."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        yield


def each_batch(data: Any) -> Iterator[Any]:
    """One pass over a dataset, as Keras's `fit` takes it, with its batches as they are."""
    if isinstance(data, keras.utils.PyDataset) and data.num_batches is not None:
        return (data[index] for index in range(data.num_batches))
    return iter(data)


def some_batches(data: Any, most: int | None = None) -> list[Any]:
    """The first batches of a dataset, as arrays.

    Args:
        data: A dataset that Keras's `fit` takes.
        most: Batches, fewer where they are large; `None` for a thousand samples or so.
    """
    found, count, size = [], 0, 0
    for batch in each_batch(data):
        arrays = tree.map_structure(lambda leaf: leaf if leaf is None else as_numpy(leaf), batch)
        leaves = [leaf for leaf in tree.flatten(arrays) if leaf is not None]
        found.append(arrays)
        count += len(leaves[0])
        size += sum(leaf.nbytes for leaf in leaves)
        enough = count >= _SAMPLES if most is None else len(found) >= most
        if enough or size >= _BYTES:
            break
    return found


class BestState(keras.callbacks.Callback):
    """Keeps the best weights, of those before training and after each epoch.

    Args:
        model: The model that is trained.
        start: Its figures before training.
        plan: Its `settled` is the epoch from which on a state can be the best.
        state: The state of a training that is continued, with its best weights so far; `None` at
            the beginning.
    """

    def __init__(
        self,
        model: keras.Model,
        start: Mapping[str, float],
        plan: Plan,
        state: TrainingState | None = None,
    ) -> None:
        super().__init__()
        self.start = dict(start)
        self.first = model.get_weights()
        self.epoch: int | None = 0 if plan.settled is None else None
        self._trained, self._plan = model, plan
        self._key = "val_loss" if "val_loss" in self.start else "loss"
        self._weights: Any = self.first
        self._loss = self.start[self._key] if plan.settled is None else np.inf
        # Patience counts epochs alone: a training may begin with a step back.
        self._lowest, self._wait = np.inf, 0
        if state is not None:
            self._weights = list(state.best_weights)
            self._loss, self.epoch = state.best_loss, state.best_epoch

    @property
    def weights(self) -> tuple[Array, ...]:
        """The best weights so far."""
        return tuple(self._weights)

    @property
    def loss(self) -> float:
        """Their loss."""
        return float(self._loss)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look whether this epoch is the best one so far."""
        if epoch < (self._plan.settled or 0):
            return
        loss = float((logs or {})["val_loss"])
        self._wait += 1
        # The last of epochs that are all not finite, where no other has come before.
        if self.epoch is None or loss < self._loss or np.isnan(self._loss):
            self._weights = self._trained.get_weights()
            self._loss, self.epoch = loss, epoch + 1
        if loss < self._lowest:
            self._lowest, self._wait = loss, 0
        patience = self._plan.patience
        if patience is not None and self._wait >= patience:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Put the best weights back, before callbacks of the caller's own."""
        if self.epoch is not None:
            self._trained.set_weights(self._weights)

    def settle(self, yardstick: Yardstick, beats_constant: Callable[[], bool]) -> None:
        """Compare what training has left with the first state, and keep the better one.

        Callbacks may have put other weights back than these, and without validation nothing has
        been compared yet.

        Args:
            yardstick: What states are compared by.
            beats_constant: Whether the model does better than a constant, as it is when called.
                Without validation, only such weights are kept against those after training.

        Warns:
            TrainingWarning: When the model stays as it was.
        """
        if self._plan.settled is not None:
            self.epoch = self._plan.epochs if self.epoch is None else self.epoch
            return
        before = self.start[self._key]
        after = self._lowest
        if not yardstick.validates or not _equal(self._trained.get_weights(), self._weights):
            after = yardstick.loss()
            trained = self._trained.get_weights()
            self._trained.set_weights(self.first)
            if not after <= before and (yardstick.validates or beats_constant()):
                self.epoch = 0
            else:
                self._trained.set_weights(trained)
                self.epoch = self.epoch or self._plan.epochs
        if self.epoch == 0 and after > before + _ROUNDING * max(abs(before), 1e-3):
            self._warn(before, after)

    def _warn(self, before: float, after: float) -> None:
        on = "validation" if self._key == "val_loss" else "training"
        warnings.warn(
            f"Training made model '{self._trained.name}' worse: its {on} loss was {before:.4g} "
            f"before and {after:.4g} at best after, so it keeps the weights that it came with. "
            f"Lower learning_rate={self._plan.learning_rate:.3g}.",
            TrainingWarning,
            stacklevel=4,
        )


def _equal(ours: list[Any], theirs: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
