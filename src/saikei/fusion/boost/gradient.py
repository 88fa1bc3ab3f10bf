"""Gradient boosting: train a member on top of a frozen sum, and find its step."""

from __future__ import annotations

from dataclasses import dataclass, field

import keras
import numpy as np
from keras import tree
from scipy import optimize

from saikei.batches import Array
from saikei.fusion.boost.series import Part, TrainingData, TrainingSettings, predicted
from saikei.fusion.logits import to_logits
from saikei.fusion.masks import called_with_masks, with_mask
from saikei.fusion.members import new_inputs
from saikei.graph import Graph, build, fresh_model

_LONGEST_STEP = 4.0
# What a round has to lower the loss by, relative to it, to count.
_GAIN = 1e-6


@dataclass
class GradientRounds:
    """The sum so far.

    Args:
        interface: The graph of a member, whose inputs the sum has.
        settings: How each member is trained.
        train: The data to train on.
        validation: Held-out data that decides when to stop; `None` to stop by the training loss.
        parts: The members of the sum.
        ended: Why no more members are added; `None` as long as more may be.
    """

    interface: Graph
    settings: TrainingSettings
    train: TrainingData
    validation: TrainingData | None
    parts: list[Part] = field(default_factory=list)
    ended: str | None = None
    _scores: Array | None = None
    _held_scores: Array | None = None

    def keep(self, model: Graph) -> None:
        """Take a trained model as the first member."""
        self._accept(build(to_logits(model), "member_1"), 1.0)

    def add(self, architecture: Graph, seed: int) -> bool:
        """Train another member on top of the sum.

        Returns:
            Whether the member made the loss lower; otherwise it is left out.
        """
        member = fresh_model(to_logits(architecture), seed, f"member_{len(self.parts) + 1}")
        self._fit(member, seed)
        scores = predicted(member, self.train.x)
        step = 1.0 if self._scores is None else self._best_step(scores)
        return self._accept(member, step, scores) if step > 0 else self._end()

    def _fit(self, member: keras.Model, seed: int) -> None:
        offset, activation = self._scores, self.settings.activation
        if offset is None:
            offset = np.zeros_like(predicted(member, self.train.x))
        inputs = new_inputs(self.interface)
        below = keras.Input(offset.shape[1:], name="sum_so_far")
        (own,) = called_with_masks(member, inputs)
        output = with_mask(keras.layers.Add()([own, below]), [own], "sum_masked")
        if activation != "linear":
            output = keras.layers.Activation(activation)(output)
        x = [*tree.flatten(self.train.x), offset.astype("float32")]
        model = keras.Model([*tree.flatten(inputs), below], output)
        self.settings.train(model, self.train.to_fit(x), self.train.task.loss, seed)

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
        scores = predicted(member, self.train.x) if scores is None else scores
        total = step * scores if self._scores is None else self._scores + step * scores
        loss, held_loss, held = self.train.loss(total), None, None
        if self.validation is not None:
            own = step * predicted(member, self.validation.x)
            held = own if self._held_scores is None else self._held_scores + own
            held_loss = self.validation.loss(held)
        if self.parts and not self._better(loss, held_loss):
            return self._end(held_loss is not None)
        self._scores, self._held_scores = total, held
        self.parts.append(Part(member, step, loss, held_loss))
        return True

    def _end(self, held: bool = False) -> bool:
        loss = "validation loss" if held else "training loss"
        self.ended = f"member {len(self.parts) + 1} makes the {loss} no lower"
        return False

    def _better(self, loss: float, held_loss: float | None) -> bool:
        last = self.parts[-1]
        if held_loss is not None and last.validation_loss is not None:
            return held_loss < last.validation_loss
        return loss < last.loss * (1 - _GAIN)
