"""The rounds of AdaBoost: train a member on rows that weigh what the earlier ones got wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

import keras
import numpy as np

from saikei.batches import Array
from saikei.errors import FusionError
from saikei.fusion.boost import votes
from saikei.fusion.boost.series import Labelled, Part, Settings, predicted
from saikei.fusion.logits import to_logits
from saikei.graph import copy_model, fresh_model
from saikei.training import fit

# By what a member has to be better than chance, as a share of the weighted rows.
_EDGE = 1e-9


@dataclass
class AdaRounds:
    """The weighted votes so far.

    Args:
        settings: of the training.
        train: what to train on.
        validation: what to stop by, if any.
        real: whether members vote with their log-probabilities (SAMME.R) rather than for one
            class with a weight of their own (SAMME).
        parts: the members so far.
        ended: why there are no more of them; `None` as long as there may be.
        weights: what the training rows weigh for the next member, float64 `(n,)`, summing to 1.

    Raises:
        FusionError: when the output is not of classes, one for each row.
    """

    settings: Settings
    train: Labelled
    validation: Labelled | None
    real: bool
    parts: list[Part] = field(default_factory=list)
    ended: str | None = None
    weights: Array = field(init=False)
    _total: Array = field(init=False)
    _held_total: Array | None = field(init=False)

    def __post_init__(self) -> None:
        task = self.train.task
        self._count = 2 if task.kind == "binary" else task.outputs
        _check_classes(self.train, self._count)
        self._classes = votes.true_classes(task, self.train.labels.values)
        self.weights = self._start = _start_weights(self.train)
        self._total = np.zeros((len(self.train), self._count))
        self._held_total = None
        if self.validation is not None:
            self._held_total = np.zeros((len(self.validation), self._count))

    def keep(self, model: keras.Model) -> None:
        """Take a trained member as the first.

        Raises:
            FusionError: when it is no better than chance, or makes no errors.
        """
        if not self._accept(copy_model(model, "member_1")):
            raise FusionError(f"Boost(keep_first=True): {self.ended}: train it, or another first.")

    def add(self, architecture: keras.Model, seed: int) -> bool:
        """Train another member, on rows as they weigh now.

        Args:
            architecture: whose structure to train from new weights.
            seed: of the weights and the training.

        Returns:
            Whether it was taken; otherwise `ended` says why not.
        """
        if self.ended is not None:
            return False
        settings = self.settings
        member = copy_model(fresh_model(architecture, seed), f"member_{len(self.parts) + 1}")
        fit(
            member,
            self.train.to_fit(self.train.x, self.weights),
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            loss=self.train.task.loss,
            seed=seed,
            progress=False,
        )
        return self._accept(member)

    def _accept(self, member: keras.Model) -> bool:
        number = len(self.parts) + 1
        member = to_logits(member, member.name) if self.real else member
        says = self._says(predicted(member, self.train.x))
        wrong = says.argmax(axis=1) != self._classes
        error, chance = float(self.weights @ wrong), 1 - 1 / self._count
        if error > chance - _EDGE:
            self.ended = (
                f"member {number} gets {error:.4g} of the weighted rows wrong, no better than "
                f"chance ({chance:.4g})"
            )
            return False
        step = self._step(error)
        total = self._total + step * says
        loss = votes.mean_loss(total, self._classes, self._start)
        held_total, held_loss = self._held(member, step)
        if not self._better(number, loss, held_loss):
            return False
        self._total, self._held_total = total, held_total
        self.weights = votes.row_weights(total, self._classes, self._start)
        self.parts.append(Part(member, step, loss, held_loss, error))
        if not wrong.any():
            self.ended = f"member {number} makes no errors on the training rows"
        return True

    def _step(self, error: float) -> float:
        if self.real:
            return self.settings.shrinkage
        # A member without errors would get an infinite weight and be alone: it gets that of half
        # an error.
        least = 0.5 / len(self.train)
        alpha = votes.member_weight(error if error > 0 else least, self._count)
        return self.settings.shrinkage * alpha

    def _says(self, outputs: Array) -> Array:
        task = self.train.task
        return votes.log_votes(task, outputs) if self.real else votes.votes(task, outputs)

    def _held(self, member: keras.Model, step: float) -> tuple[Array | None, float | None]:
        held, so_far = self.validation, self._held_total
        if held is None or so_far is None:
            return None, None
        total = so_far + step * self._says(predicted(member, held.x))
        classes = votes.true_classes(held.task, held.labels.values)
        return total, votes.mean_loss(total, classes, _start_weights(held))

    def _better(self, number: int, loss: float, held_loss: float | None) -> bool:
        last = self.parts[-1] if self.parts else None
        what, new, old = "training", loss, last.loss if last else 1.0
        if held_loss is not None:
            what, new = "validation", held_loss
            old = last.validation_loss if last and last.validation_loss is not None else np.inf
        if new < old:
            return True
        self.ended = (
            f"member {number} makes the exponential loss on the {what} rows no lower "
            f"({new:.4g} after {old:.4g})"
        )
        return False


def _start_weights(data: Labelled) -> Array:
    rows = data.labels.rows()
    return np.asarray(rows / rows.sum())


def _check_classes(train: Labelled, count: int) -> None:
    task, rows = train.task, len(train)
    flat = train.labels.values.size == rows * (1 if task.kind == "binary" or task.sparse else count)
    if task.kind not in ("binary", "multiclass") or not flat or count < 2:
        raise FusionError(
            f"AdaBoost weighs rows by whether their class is right, and this output is {task.kind} "
            f"with labels of shape {train.labels.values.shape}: use Boost(method='gradient')."
        )
