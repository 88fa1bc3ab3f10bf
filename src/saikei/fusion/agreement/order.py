"""The order in which a model gives its classes, inferred from its outputs on labelled rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, sparse, stats

from saikei.batches import Array
from saikei.scoring.labels import Labels, as_labels
from saikei.scoring.links import to_probabilities
from saikei.scoring.task import Task

# How well another order has to correlate with the labels, how much better than the labels' own, and
# how significant that has to be. Networks of random weights rarely reach it.
FIT = 0.5
GAIN = 0.25
P_VALUE = 1e-4
# The most numbers that are used, and the fewest rows, where each row is a large map.
_MOST = 2**23
_FEWEST = 64


@dataclass(frozen=True)
class Order:
    """Outputs that fit the labels better in another order.

    Args:
        columns: For each class (label, target) the output that belongs to it.
        moved: The classes whose output has another index than their own.
    """

    columns: tuple[int, ...]
    moved: tuple[int, ...]


def other_order(task: Task, labels: Any, outputs: Array, seed: int = 0) -> Order | None:
    """The order in which the outputs of a model fit the labels, if it is not the labels' own.

    The order is found by assignment on one half of the rows, by the correlation of each output
    with each class, and has to be far better on the other half. The outputs of a constant or a
    weak model have no such order.

    Args:
        task: What the output learns.
        labels: An array or `Labels`, in the shape of the task.
        outputs: Predictions, `(n, …, outputs)`.
        seed: Seed of the halves, and of the rows that are drawn from very many.

    Returns:
        `None` for outputs in the order of the labels, for one output that is not of a class, and
        where there are too few rows: about a dozen of moved classes are needed.
    """
    large = outputs.ndim > 2 and outputs[:_FEWEST].size > _MOST
    labels, outputs = _counted(as_labels(labels), outputs, seed, large)
    numbers = max(1, outputs[:1].size)
    mixed = np.random.default_rng(seed).permutation(len(outputs))
    some = mixed[: max(_FEWEST, _MOST // numbers)]
    columns = _Columns.of(task, labels[some], outputs[some])
    if columns is None:
        return None
    found, held = np.array_split(np.arange(len(some)), 2)
    here = columns.correlations(found)
    order = optimize.linear_sum_assignment(here, maximize=True)[1]
    elsewhere = order != np.arange(len(order))
    moved = np.flatnonzero(elsewhere & (here.max(axis=1) > 0))
    if not len(moved):
        return None
    for correlations in (here, columns.correlations(held)):
        fit = correlations[moved, order[moved]].mean()
        if fit < FIT or fit - correlations[moved, moved].mean() < GAIN:
            return None
    votes = columns.votes(held, order, moved)
    votes = votes[votes != 0]
    if not len(votes) or _chance(votes) > P_VALUE:
        return None
    return Order(tuple(int(column) for column in order), tuple(int(one) for one in moved))


def _counted(labels: Labels, outputs: Array, seed: int, large: bool) -> tuple[Array, Array]:
    """Labels and outputs that count; of maps that are padded or large, one position a row."""
    if labels.known and not large:
        return labels.values, outputs
    y, counts = labels.values, labels.over(labels.values.shape)
    rows = np.flatnonzero(labels.counted)
    positions = outputs.shape[1:-1]
    if not positions:
        rows = rows[counts[rows].reshape(len(rows), -1).all(axis=1)]
        return y[rows], outputs[rows]
    flat = np.asarray(counts.reshape(len(y), int(np.prod(positions)), -1)[rows].all(axis=-1))
    drawn = np.random.default_rng(seed).random(flat.shape)
    chosen = np.where(flat, drawn, -1.0).argmax(axis=1)
    some = flat[np.arange(len(rows)), chosen]
    rows, chosen = rows[some], chosen[some]
    at_position = y.reshape(len(y), flat.shape[1], *y.shape[1 + len(positions) :])
    at_outputs = outputs.reshape(len(y), flat.shape[1], outputs.shape[-1])
    return at_position[rows, chosen], at_outputs[rows, chosen]


def in_order(task: Task, outputs: Array, columns: Sequence[int]) -> Array:
    """Outputs brought into the order of the labels."""
    if task.kind == "binary":
        return np.asarray(-outputs if task.from_logits else 1 - outputs)
    return np.asarray(outputs[..., list(columns)])


def _chance(votes: Array) -> float:
    """The probability of as many votes in favour if both orders were equally good."""
    won = int((votes > 0).sum())
    return float(stats.binomtest(won, len(votes), alternative="greater").pvalue)


@dataclass(frozen=True, eq=False)
class _Columns:
    """Labels and outputs as one column for each class.

    Args:
        truth: `(positions, classes)`, sparse where labels are classes.
        given: Predictions, `(positions, classes)`.
        of_row: How many positions a row has: 1, or those of a map.
        exclusive: Whether one class is right at each position.
    """

    truth: Any
    given: Array
    of_row: int
    exclusive: bool

    @classmethod
    def of(cls, task: Task, labels: Array, outputs: Array) -> _Columns | None:
        given = outputs if task.kind == "regression" else to_probabilities(task, outputs)
        of_row = int(np.prod(outputs.shape[1:-1], dtype=int))
        given = given.reshape(-1, outputs.shape[-1]).astype(np.float64)
        if task.kind == "binary":
            given = np.concatenate([1 - given, given], axis=1)
        if given.shape[1] < 2:
            return None
        if task.kind in ("multilabel", "regression"):
            return cls(labels.reshape(given.shape).astype(np.float64), given, of_row, False)
        if task.kind == "binary":
            classes = labels.reshape(-1) > 0.5
        elif task.sparse:
            classes = labels.reshape(-1)
        else:
            classes = labels.reshape(given.shape).argmax(axis=-1)
        positions = np.arange(len(given) + 1)
        hot = (np.ones(len(given)), classes.astype(int), positions)
        return cls(sparse.csr_array(hot, shape=given.shape), given, of_row, True)

    def _positions(self, rows: Array) -> Array:
        return np.asarray((rows[:, None] * self.of_row + np.arange(self.of_row)).reshape(-1))

    def correlations(self, rows: Array) -> Array:
        """`(classes, outputs)`; 0 where either is constant."""
        positions = self._positions(rows)
        truth, given = self.truth[positions], self.given[positions]
        n = len(positions)
        means = [np.asarray(part.mean(axis=0)) for part in (truth, given)]
        squares = [np.asarray((part * part).mean(axis=0)) for part in (truth, given)]
        spread = [np.sqrt(np.maximum(s - m**2, 0)) for s, m in zip(squares, means, strict=True)]
        together = np.asarray(truth.T @ given) / n - np.outer(*means)
        scale = np.outer(*spread)
        known = scale > 1e-9 * max(1.0, float(scale.max()))
        return np.asarray(np.divide(together, scale, out=np.zeros_like(together), where=known))

    def votes(self, rows: Array, order: Array, moved: Array) -> Array:
        """One number a row, above 0 where the other order of the moved classes fits it better."""
        at = self._positions(rows)
        given = self.given[at]
        if self.exclusive:
            classes = self.truth[at].indices
            line = np.arange(len(at))
            each = given[line, order[classes]] - given[line, classes]
            each = np.asarray(np.where(np.isin(classes, moved), each, 0.0))
        else:
            truth, given = (_standardised(part) for part in (self.truth[at], given))
            each = (truth[:, moved] * (given[:, order[moved]] - given[:, moved])).sum(axis=1)
        return np.asarray(each.reshape(len(rows), -1).sum(axis=1))


def _standardised(columns: Array) -> Array:
    spread = columns.std(axis=0)
    return np.asarray((columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0))
