"""AdaBoost for any number of classes (SAMME): members vote, and rows weigh what they get wrong.

Zhu, Zou, Rosset and Hastie, "Multi-class AdaBoost", Statistics and Its Interface, 2009: K classes,
for two of which it is AdaBoost (Freund and Schapire, 1997).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import keras
import numpy as np

from saikei.batches import Array
from saikei.errors import FusionError
from saikei.fusion.boost.series import Part, TrainingData, TrainingSettings, predicted
from saikei.graph import Graph, build, fresh_model
from saikei.scoring.task import Task

# By what a member has to be better than chance, as a share of the weighted rows.
_EDGE = 1e-9


@dataclass
class AdaBoostRounds:
    """The weighted votes so far.

    Args:
        settings: How each member is trained.
        train: The data to train on.
        validation: Held-out data that decides when to stop; `None` to stop by the training loss.
        parts: The members so far.
        ended: Why no more members are added; `None` as long as more may be.
        weights: Weights of the training rows for the next member, float64 `(n,)`, with sum 1.

    Raises:
        FusionError: When the output is not of classes, one for each row.
    """

    settings: TrainingSettings
    train: TrainingData
    validation: TrainingData | None
    parts: list[Part] = field(default_factory=list)
    ended: str | None = None
    weights: Array = field(init=False)
    _total: Array = field(init=False)
    _held_total: Array | None = field(init=False)

    def __post_init__(self) -> None:
        task = self.train.task
        self._count = 2 if task.kind == "binary" else task.outputs
        _check_classes(self.train, self._count)
        self._classes = true_classes(task, self.train.labels.values)
        self.weights = self._start = _start_weights(self.train)
        self._total = np.zeros((len(self.train), self._count))
        self._held_total = None
        if self.validation is not None:
            self._held_total = np.zeros((len(self.validation), self._count))

    def keep(self, model: Graph) -> None:
        """Take a trained model as the first member.

        Raises:
            FusionError: When it is no better than chance, or makes no errors.
        """
        if not self._accept(build(model, "member_1")):
            raise FusionError(f"Boost(keep_first=True): {self.ended}: train it, or another first.")

    def add(self, architecture: Graph, seed: int) -> bool:
        """Train another member on the rows with their present weights.

        Returns:
            Whether the member was added; otherwise `ended` holds the reason.
        """
        if self.ended is not None:
            return False
        member = fresh_model(architecture, seed, f"member_{len(self.parts) + 1}")
        rows = self.train.to_fit(self.train.x, self.weights)
        self.settings.train(member, rows, self.train.task.loss, seed)
        return self._accept(member)

    def _accept(self, member: keras.Model) -> bool:
        number = len(self.parts) + 1
        given = votes(self.train.task, predicted(member, self.train.x))
        wrong = given.argmax(axis=1) != self._classes
        error, chance = float(self.weights @ wrong), 1 - 1 / self._count
        if error > chance - _EDGE:
            self.ended = (
                f"member {number} gets {error:.4g} of the weighted rows wrong, no better than "
                f"chance ({chance:.4g})"
            )
            return False
        # A member without errors would get an infinite weight and outvote all others: it gets
        # the weight of a member with half an error.
        counted = error if error > 0 else 0.5 / len(self.train)
        step = self.settings.shrinkage * member_weight(counted, self._count)
        total = self._total + step * given
        loss = mean_loss(total, self._classes, self._start)
        held_total, held_loss = self._held(member, step)
        if not self._better(number, loss, held_loss):
            return False
        self._total, self._held_total = total, held_total
        self.weights = row_weights(total, self._classes, self._start)
        self.parts.append(Part(member, step, loss, held_loss, error))
        if not wrong.any():
            self.ended = f"member {number} makes no errors on the training rows"
        return True

    def _held(self, member: keras.Model, step: float) -> tuple[Array | None, float | None]:
        held, so_far = self.validation, self._held_total
        if held is None or so_far is None:
            return None, None
        total = so_far + step * votes(held.task, predicted(member, held.x))
        classes = true_classes(held.task, held.labels.values)
        return total, mean_loss(total, classes, _start_weights(held))

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


def true_classes(task: Task, labels: Array) -> Array:
    """The class of each row, int `(n,)`."""
    if task.kind == "multiclass" and not task.sparse:
        return np.asarray(labels.argmax(axis=-1))
    return np.asarray(labels.reshape(len(labels)).astype(int))


def votes(task: Task, outputs: Array) -> Array:
    """One vote a row, for the most likely class: float64 `(n, K)` of zeros and ones."""
    if task.kind == "multiclass":
        chosen = outputs.reshape(len(outputs), -1).argmax(axis=1)
        return np.asarray(np.eye(outputs.shape[-1])[chosen])
    yes = outputs.reshape(len(outputs)) > (0.0 if task.from_logits else 0.5)
    return np.asarray(np.eye(2)[yes.astype(int)])


def member_weight(error: float, classes: int) -> float:
    """α of a member: log((1 - error) / error) + log(K - 1), above 0 if it is better than chance.

    Args:
        error: The share of the weighted rows that it gets wrong, above 0 and below 1.
        classes: The number of classes, K.
    """
    return float(np.log1p(-error) - np.log(error) + np.log(classes - 1))


def mean_loss(total: Array, classes: Array, weights: Array) -> float:
    """The mean exponential loss.

    Args:
        total: The sum of weighted votes `(n, K)`.
        classes: The true classes, `(n,)`.
        weights: Row weights at the start, `(n,)`, with sum 1.
    """
    return float(weights @ np.exp(_log_losses(total, classes)))


def row_weights(total: Array, classes: Array, weights: Array) -> Array:
    """Weights of the rows for the next member: in proportion to their exponential loss so far.

    Args:
        total: The sum of weighted votes `(n, K)`.
        classes: The true classes, `(n,)`.
        weights: Row weights at the start, `(n,)`.

    Returns:
        float64 `(n,)`, with sum 1.
    """
    logs = _log_losses(total, classes)
    raised = weights * np.exp(logs - logs.max())
    return np.asarray(raised / raised.sum())


def _log_losses(total: Array, classes: Array) -> Array:
    """The logarithm of the exponential loss of each row, float64 `(n,)`.

    The loss is exp(-yᵀf / K), y being 1 at the class and -1 / (K - 1) elsewhere, and f of that
    form too; in terms of votes, the mean vote of a row less the one for its class. For two classes
    it is at least 1 where the class is wrong, so its mean bounds the share of errors.
    """
    return np.asarray(total.mean(axis=1) - total[np.arange(len(total)), classes])


def _start_weights(data: TrainingData) -> Array:
    rows = data.labels.rows()
    return np.asarray(rows / rows.sum())


def _check_classes(train: TrainingData, count: int) -> None:
    task, rows = train.task, len(train)
    flat = train.labels.values.size == rows * (1 if task.kind == "binary" or task.sparse else count)
    if task.kind not in ("binary", "multiclass") or not flat or count < 2:
        raise FusionError(
            f"AdaBoost weighs rows by whether their class is right, and this output is {task.kind} "
            f"with labels of shape {train.labels.values.shape}: use Boost(method='gradient')."
        )
