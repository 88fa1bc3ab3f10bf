"""The loss of each coalition of members, row by row: the game whose value Shapley values divide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from saikei.batches import Array
from saikei.errors import FusionError
from saikei.judging.explaining.coalitions import (
    Coalitions,
    JoinedCoalitions,
    MeanCoalitions,
    Present,
)
from saikei.scoring.labelled import Labelled
from saikei.scoring.labels import Labels
from saikei.scoring.links import clipped
from saikei.scoring.score import per_sample
from saikei.scoring.task import Task, labels_for

Metric: TypeAlias = Literal["loss", "accuracy"]


class Game(Protocol):
    """The losses of coalitions of members."""

    @property
    def members(self) -> int:
        """The number of members."""
        ...

    @property
    def rows(self) -> int:
        """The number of rows."""
        ...

    def losses(self, present: Present) -> Array:
        """The loss of each row, float64 `(coalitions, rows)`: less is better.

        Args:
            present: The members of each coalition, booleans `(coalitions, members)`.
        """
        ...


@dataclass(frozen=True, eq=False)
class OutputsGame:
    """Any fusion: the outputs of each coalition are scored in turn.

    Args:
        tasks: What each output learns.
        labels: The labels of each output.
        coalitions: The fused outputs for any coalition.
        metric: `"loss"`, summed over outputs, or `"accuracy"`, whose losses are errors.
    """

    tasks: tuple[Task, ...]
    labels: tuple[Labels, ...] = field(repr=False)
    coalitions: Coalitions
    metric: Metric = "loss"

    @property
    def members(self) -> int:
        """The number of members."""
        return len(self.coalitions.predictions.outputs)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.labels[0])

    def losses(self, present: Present) -> Array:
        """The loss of each row, float64 `(coalitions, rows)`."""
        return np.stack([self._loss(present) for present in present])

    def _loss(self, present: Present) -> Array:
        outputs = self.coalitions.outputs(present)
        if self.metric == "loss":
            return Labelled.of(self.tasks, self.labels).losses(outputs)
        return self.labels[0].rows() - per_sample(self.tasks[0], self.labels[0], outputs[0])


@dataclass(frozen=True, eq=False)
class Columns:
    """One output of a weighted mean of which one number for each label decides the loss.

    A row's loss is the mean over its labels of `-log(Σ wᵢ cᵢ)` or of `(Σ wᵢ cᵢ)²`.

    Args:
        values: c, each member's probability of the true label, or its residual,
            `(members, rows · labels)`.
        kind: `"log"` or `"square"`.
        rows: The number of rows.
        prior: The loss of each row without any member, `(rows,)`.
        counts: The weight of each label, `(rows · labels,)`; `None` where all count the same.
    """

    values: Array = field(repr=False)
    kind: Literal["log", "square"]
    rows: int
    prior: Array = field(repr=False)
    counts: Array | None = field(default=None, repr=False)

    def losses(self, shares: Array) -> Array:
        """The loss of each row, `(coalitions, rows)`.

        Args:
            shares: Weights of each coalition, `(coalitions, members)`, with sum 1, or all 0.
        """
        mixed = shares @ self.values
        if self.kind == "log":
            clipped(mixed, out=mixed)
            np.log(mixed, out=mixed)
            np.negative(mixed, out=mixed)
        else:
            np.square(mixed, out=mixed)
        if self.counts is not None:
            mixed *= self.counts
        if mixed.shape[1] != self.rows:
            mixed = mixed.reshape(len(shares), self.rows, -1).mean(axis=2)
        mixed[~shares.any(axis=1)] = self.prior
        return mixed


@dataclass(frozen=True, eq=False)
class MeanGame:
    """A weighted mean whose loss needs one number of each member for each label.

    Args:
        weights: One weight for each member.
        outputs: The columns of each output, whose losses are summed.
    """

    weights: Array
    outputs: tuple[Columns, ...]

    @property
    def members(self) -> int:
        """The number of members."""
        return len(self.weights)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.outputs[0].rows

    def losses(self, present: Present) -> Array:
        """The loss of each row, float64 `(coalitions, rows)`: one product of matrices."""
        shares = present * self.weights
        total = shares.sum(axis=1, keepdims=True)
        np.divide(shares, total, out=shares, where=total > 0)
        first, *others = [output.losses(shares) for output in self.outputs]
        for other in others:
            first += other
        return first


@dataclass(frozen=True, eq=False)
class JoinedGame:
    """The games of several folds, each of which has rows of its own.

    Args:
        parts: The row indices of each game, and the game.
    """

    parts: tuple[tuple[Any, Game], ...]

    @property
    def members(self) -> int:
        """The number of members."""
        return self.parts[0][1].members

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(game.rows for _, game in self.parts)

    def losses(self, present: Present) -> Array:
        """The loss of each row, float64 `(coalitions, rows)`."""
        whole = np.empty((len(present), self.rows))
        for rows, game in self.parts:
            whole[:, rows] = game.losses(present)
        return whole


def game_of(
    tasks: tuple[Task, ...], labels: tuple[Any, ...], coalitions: Coalitions, metric: Metric
) -> Game:
    """The game of a fusion, in the cheapest form that it has.

    Raises:
        FusionError: When the metric is unknown, or there is no accuracy.
    """
    if metric not in ("loss", "accuracy"):
        raise FusionError(f"metric={metric!r} is unknown: use 'loss' or 'accuracy'.")
    if metric == "accuracy" and (len(tasks) > 1 or tasks[0].kind == "regression"):
        what = f"{len(tasks)} outputs" if len(tasks) > 1 else "a regression"
        raise FusionError(f"There is no accuracy of {what}: use metric='loss'.")
    labels = tuple(labels_for(*one) for one in zip(tasks, labels, strict=True))
    if isinstance(coalitions, JoinedCoalitions):
        parts = tuple(
            (rows, game_of(tasks, tuple(y[rows] for y in labels), part, metric))
            for rows, part in coalitions.parts
        )
        return JoinedGame(parts)
    if isinstance(coalitions, MeanCoalitions) and metric == "loss":
        columns = [
            _columns(task, y, coalitions, index)
            for index, (task, y) in enumerate(zip(tasks, labels, strict=True))
        ]
        known = tuple(one for one in columns if one is not None)
        if len(known) == len(columns):
            return MeanGame(np.array(coalitions.weights), known)
    return OutputsGame(tasks, labels, coalitions, metric)


def _columns(task: Task, given: Labels, coalitions: MeanCoalitions, index: int) -> Columns | None:
    """`None` where the loss needs more than one number for each label."""
    outputs = [member[index] for member in coalitions.predictions.outputs]
    prior = Labelled.of([task], [given]).losses([coalitions.prior[index]])
    rows, labels, counts = len(given), given.values, None
    if given.importance is not None or given.scale != 1.0:
        counts = given.over(labels.shape) * given.scale
        if task.kind == "multiclass" and not task.sparse:
            counts = counts[..., 0]
        counts = counts.reshape(-1)
    if task.kind == "regression":
        y = labels.reshape(outputs[0].shape)
        residuals = [(part.astype(np.float64) - y).reshape(-1) for part in outputs]
        return Columns(np.stack(residuals), "square", rows, prior, counts)
    if task.from_logits:
        return None
    if task.kind != "multiclass":
        if not np.isin(labels, (0, 1)).all():
            return None
        is_true = labels.reshape(-1).astype(np.bool_)
        flat = (part.reshape(-1).astype(np.float64) for part in outputs)
        chosen = [np.where(is_true, p, 1 - p) for p in flat]
        return Columns(np.stack(chosen), "log", rows, prior, counts)
    truth = _classes(task, labels)
    if truth is None:
        return None
    indices = np.arange(len(truth)) * outputs[0].shape[-1] + truth
    chosen = [part.reshape(-1)[indices] for part in outputs]
    return Columns(np.stack(chosen).astype(np.float64), "log", rows, prior, counts)


def _classes(task: Task, labels: Array) -> Array | None:
    """The class of each label, `(labels,)`; `None` for soft ones."""
    if task.sparse:
        return labels.reshape(-1).astype(np.int64)
    flat = labels.reshape(-1, labels.shape[-1])
    hard = np.isin(flat, (0, 1)).all() and (flat.sum(axis=1) == 1).all()
    return flat.argmax(axis=1) if hard else None
