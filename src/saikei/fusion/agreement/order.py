"""The order that a model gives its classes in, told from what it says of labelled rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, sparse, stats

from saikei.batches import Array
from saikei.scoring.counted import Labels, as_labels
from saikei.scoring.links import to_probabilities
from saikei.scoring.task import Task

# How well an order has to correlate with the labels, how much better than the labels' own, and
# how certain that has to be. Networks of random weights rarely reach it.
FIT = 0.5
GAIN = 0.25
P_VALUE = 1e-4
# Numbers that are looked at, and rows, where one alone has a map of many.
_MOST = 2**23
_FEWEST = 64


@dataclass(frozen=True)
class Order:
    """Outputs that fit the labels better in another order.

    Args:
        places: for each class (label, target) the output that means it.
        moved: the classes whose output stands elsewhere.
    """

    places: tuple[int, ...]
    moved: tuple[int, ...]


def other_order(task: Task, labels: Any, outputs: Array, seed: int = 0) -> Order | None:
    """The order in which the outputs of a model fit the labels, if it is not the labels' own.

    The order is found by assignment on one half of the rows, by the correlation of each output
    with each class, and has to be better by far on the other half. What a constant or a weak
    model says has no such order.

    Args:
        task: what the output learns.
        labels: in the shape that the task has them in: an array or `Labels`.
        outputs: `(n, …, outputs)`.
        seed: of the halves, and of the rows that are taken of very many.

    Returns:
        `None` for outputs in the order of the labels, for one output that is not of a class, and
        where there are too few rows to tell: a dozen or so of moved classes are needed.
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
    places = optimize.linear_sum_assignment(here, maximize=True)[1]
    elsewhere = places != np.arange(len(places))
    moved = np.flatnonzero(elsewhere & (here.max(axis=1) > 0))
    if not len(moved):
        return None
    for correlations in (here, columns.correlations(held)):
        fit = correlations[moved, places[moved]].mean()
        if fit < FIT or fit - correlations[moved, moved].mean() < GAIN:
            return None
    votes = columns.votes(held, places, moved)
    votes = votes[votes != 0]
    if not len(votes) or _chance(votes) > P_VALUE:
        return None
    return Order(tuple(int(place) for place in places), tuple(int(one) for one in moved))


def _counted(labels: Labels, outputs: Array, seed: int, large: bool) -> tuple[Array, Array]:
    """Labels and outputs that count; of maps with padding, or large ones, one position a row."""
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


def in_order(task: Task, outputs: Array, places: Sequence[int]) -> Array:
    """Outputs brought into the order of the labels."""
    if task.kind == "binary":
        return np.asarray(-outputs if task.from_logits else 1 - outputs)
    return np.asarray(outputs[..., list(places)])


def _chance(votes: Array) -> float:
    """How likely as many votes in favour are where both orders are as good."""
    won = int((votes > 0).sum())
    return float(stats.binomtest(won, len(votes), alternative="greater").pvalue)


@dataclass(frozen=True, eq=False)
class _Columns:
    """Labels and outputs as one column for each class.

    Args:
        truth: `(places, classes)`, sparse where labels are classes.
        said: `(places, classes)`.
        of_row: how many places a row has: 1, or those of a map.
        exclusive: whether one class is right for each place.
    """

    truth: Any
    said: Array
    of_row: int
    exclusive: bool

    @classmethod
    def of(cls, task: Task, labels: Array, outputs: Array) -> _Columns | None:
        said = outputs if task.kind == "regression" else to_probabilities(task, outputs)
        of_row = int(np.prod(outputs.shape[1:-1], dtype=int))
        said = said.reshape(-1, outputs.shape[-1]).astype(np.float64)
        if task.kind == "binary":
            said = np.concatenate([1 - said, said], axis=1)
        if said.shape[1] < 2:
            return None
        if task.kind in ("multilabel", "regression"):
            return cls(labels.reshape(said.shape).astype(np.float64), said, of_row, False)
        if task.kind == "binary":
            classes = labels.reshape(-1) > 0.5
        elif task.sparse:
            classes = labels.reshape(-1)
        else:
            classes = labels.reshape(said.shape).argmax(axis=-1)
        places = np.arange(len(said) + 1)
        hot = (np.ones(len(said)), classes.astype(int), places)
        return cls(sparse.csr_array(hot, shape=said.shape), said, of_row, True)

    def _places(self, rows: Array) -> Array:
        return np.asarray((rows[:, None] * self.of_row + np.arange(self.of_row)).reshape(-1))

    def correlations(self, rows: Array) -> Array:
        """`(classes, outputs)`; 0 where either is constant."""
        places = self._places(rows)
        truth, said = self.truth[places], self.said[places]
        n = len(places)
        means = [np.asarray(part.mean(axis=0)) for part in (truth, said)]
        squares = [np.asarray((part * part).mean(axis=0)) for part in (truth, said)]
        spread = [np.sqrt(np.maximum(s - m**2, 0)) for s, m in zip(squares, means, strict=True)]
        together = np.asarray(truth.T @ said) / n - np.outer(*means)
        scale = np.outer(*spread)
        known = scale > 1e-9 * max(1.0, float(scale.max()))
        return np.asarray(np.divide(together, scale, out=np.zeros_like(together), where=known))

    def votes(self, rows: Array, places: Array, moved: Array) -> Array:
        """Of each row, above 0 where it speaks for the other order of the moved classes."""
        at = self._places(rows)
        said = self.said[at]
        if self.exclusive:
            classes = self.truth[at].indices
            line = np.arange(len(at))
            each = said[line, places[classes]] - said[line, classes]
            each = np.asarray(np.where(np.isin(classes, moved), each, 0.0))
        else:
            truth, said = (_standardised(part) for part in (self.truth[at], said))
            each = (truth[:, moved] * (said[:, places[moved]] - said[:, moved])).sum(axis=1)
        return np.asarray(each.reshape(len(rows), -1).sum(axis=1))


def _standardised(columns: Array) -> Array:
    spread = columns.std(axis=0)
    return np.asarray((columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0))
