"""The rounds of boosting: train a member on top of a frozen sum, and find its step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import tree
from scipy import optimize

from saikei.fusion.logits import to_logits
from saikei.fusion.members import new_inputs
from saikei.graph import Graph, fresh_model
from saikei.training import fit
from saikei.training.batches import Array
from saikei.training.score import sample_losses
from saikei.training.task import Task

_LONGEST_STEP = 4.0
# What a round has to lower the loss by, relative to it, to count.
_GAIN = 1e-6


@dataclass(frozen=True)
class Labelled:
    """Data in memory.

    Args:
        x: nested as the members' inputs.
        labels: of the one output, as the task has them.
        task: what the output learns.
    """

    x: Any
    labels: Array
    task: Task

    def loss(self, scores: Array) -> float:
        """Mean log-loss or squared error of what a sum says before the last activation."""
        task = self.task
        if task.kind != "regression":
            task = replace(task, from_logits=True)
        return float(sample_losses(task, self.labels, scores).mean())


@dataclass(frozen=True)
class Settings:
    """How members are trained.

    Args:
        activation: `"softmax"`, `"sigmoid"` or `"linear"`: what the sum goes through.
        epochs: passes over the data.
        batch_size: samples a step.
        learning_rate: at its peak.
        shrinkage: by what the best step is multiplied.
    """

    activation: str
    epochs: int
    batch_size: int
    learning_rate: float
    shrinkage: float


@dataclass(frozen=True)
class Part:
    """A member of the sum.

    Args:
        model: gives scores, before the last activation.
        step: by what they are multiplied.
        loss: of the sum up to here, on the training data.
        validation_loss: likewise on the validation data, if there is any.
    """

    model: keras.Model
    step: float
    loss: float
    validation_loss: float | None


@dataclass
class Rounds:
    """The sum so far.

    Args:
        interface: the graph of a member: its inputs are those of the sum.
        settings: of the training.
        train: what to train on.
        validation: what to stop by, if any.
        parts: the members of the sum.
    """

    interface: Graph
    settings: Settings
    train: Labelled
    validation: Labelled | None
    parts: list[Part] = field(default_factory=list)
    _scores: Array | None = None
    _held_scores: Array | None = None

    def keep(self, model: keras.Model) -> None:
        """Take a trained member as the first."""
        self._accept(to_logits(model, "member_1"), 1.0)

    def add(self, architecture: keras.Model, seed: int) -> bool:
        """Train another member on top of the sum.

        Args:
            architecture: whose structure to train from new weights.
            seed: of the weights and the training.

        Returns:
            Whether it made the loss lower; otherwise it is left out.
        """
        member = to_logits(fresh_model(architecture, seed), f"member_{len(self.parts) + 1}")
        self._fit(member, seed)
        scores = _predict(member, self.train.x)
        step = 1.0 if self._scores is None else self._best_step(scores)
        return step > 0 and self._accept(member, step, scores)

    def _fit(self, member: keras.Model, seed: int) -> None:
        settings, offset = self.settings, self._scores
        if offset is None:
            offset = np.zeros_like(_predict(member, self.train.x))
        inputs = new_inputs(self.interface)
        below = keras.Input(offset.shape[1:], name="sum_so_far")
        (own,) = tree.flatten(member(inputs))
        output = keras.layers.Add()([own, below])
        if settings.activation != "linear":
            output = keras.layers.Activation(settings.activation)(output)
        x = [*tree.flatten(self.train.x), offset.astype("float32")]
        fit(
            keras.Model([*tree.flatten(inputs), below], output),
            (x, self.train.labels),
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            loss=self.train.task.loss,
            seed=seed,
            progress=False,
        )

    def _best_step(self, scores: Array) -> float:
        below = self._scores
        assert below is not None, "the first member has no sum to step from"
        found = optimize.minimize_scalar(
            lambda step: self.train.loss(below + step * scores),
            bounds=(0.0, _LONGEST_STEP),
            method="bounded",
        )
        return float(self.settings.shrinkage * found.x)

    def _accept(self, member: keras.Model, step: float, scores: Array | None = None) -> bool:
        scores = _predict(member, self.train.x) if scores is None else scores
        total = step * scores if self._scores is None else self._scores + step * scores
        loss, held_loss, held = self.train.loss(total), None, None
        if self.validation is not None:
            own = step * _predict(member, self.validation.x)
            held = own if self._held_scores is None else self._held_scores + own
            held_loss = self.validation.loss(held)
        if self.parts and not self._better(loss, held_loss):
            return False
        self._scores, self._held_scores = total, held
        self.parts.append(Part(member, step, loss, held_loss))
        return True

    def _better(self, loss: float, held_loss: float | None) -> bool:
        last = self.parts[-1]
        if held_loss is not None and last.validation_loss is not None:
            return held_loss < last.validation_loss
        return loss < last.loss * (1 - _GAIN)


def _predict(model: keras.Model, x: Any) -> Array:
    (scores,) = tree.flatten(model.predict(x, batch_size=256, verbose=0))
    return np.asarray(scores, dtype=np.float64)
