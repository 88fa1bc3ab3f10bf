"""Members compared on one output: agreement, errors, recall of each class, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from saikei.batches import Array
from saikei.scoring.labels import Labels, as_labels
from saikei.scoring.links import to_probabilities
from saikei.scoring.task import Task

BINS = 10


@dataclass(frozen=True, eq=False)
class Reliability:
    """The calibration curve: observed frequency against predicted probability.

    With one true class of several, it is computed for the most probable class; otherwise for
    every label. Bins are equally wide, and empty ones are left out.

    Args:
        confidence: Mean probability in each bin, `(bins,)`.
        frequency: Share of true labels in each bin, `(bins,)`.
        counts: Number of predictions in each bin, `(bins,)`.
        error: The expected calibration error: the mean distance of confidence and frequency over
            the predictions.
    """

    confidence: Array = field(repr=False)
    frequency: Array = field(repr=False)
    counts: Array = field(repr=False)
    error: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "confidence": self.confidence.tolist(),
            "frequency": self.frequency.tolist(),
            "counts": self.counts.tolist(),
            "error": self.error,
        }


@dataclass(frozen=True, eq=False)
class OutputComparison:
    """Members and fusion compared on one output.

    Args:
        kind: The kind of the task.
        agreement: `(members, members)`: the share of labels for which two members predict the
            same; for numbers the correlation of their predictions, less the labels' means.
        error_correlation: `(members, members)`: the correlation of being wrong (1) or right
            (0), for numbers of the residuals; NaN for a member that is never or always wrong.
        strength: One row for each member, and the last for the fusion, `(members + 1, classes)`:
            the recall of each class or label, NaN where it does not occur; for numbers, the
            squared error of each.
        counts: How often each class or label occurs, for numbers the rows, `(classes,)`.
        calibration: The curve of each member, and last of the fusion; empty for numbers.
    """

    kind: Literal["binary", "multiclass", "multilabel", "regression"]
    agreement: Array = field(repr=False)
    error_correlation: Array = field(repr=False)
    strength: Array = field(repr=False)
    counts: Array = field(repr=False)
    calibration: tuple[Reliability, ...] = field(repr=False)

    @property
    def strongest(self) -> tuple[int | None, ...]:
        """The strongest member of each class, the first of equals; `None` where none occurs."""
        signed = -self.strength if self.kind == "regression" else self.strength
        columns = signed[:-1].T
        return tuple(None if np.isnan(c).all() else int(np.nanargmax(c)) for c in columns)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: NaN is `null`."""
        return {
            "kind": self.kind,
            "agreement": json_ready(self.agreement),
            "error_correlation": json_ready(self.error_correlation),
            "strength": json_ready(self.strength),
            "counts": self.counts.tolist(),
            "strongest": list(self.strongest),
            "calibration": [one.to_dict() for one in self.calibration],
        }


def compare_outputs(
    task: Task, labels: Any, outputs: Sequence[Array], fused: Array
) -> OutputComparison:
    """Compare members and fusion, on all rows and positions that count.

    Args:
        task: What the output learns.
        labels: An array in the form of the task, or `Labels`.
        outputs: Predictions of each member, `(rows, …, classes)`.
        fused: Predictions of the fusion, of the same shape.
    """
    labels, every = _counted(as_labels(labels), (*outputs, fused))
    every = [part.astype(np.float64, copy=False) for part in every]
    if task.kind == "regression":
        return _of_numbers(labels, every)
    p = [to_probabilities(task, part).reshape(-1, max(1, task.outputs)) for part in every]
    if task.kind == "multiclass":
        return _of_one_class(task, labels, p)
    return _of_labels(task, labels, p)


def _counted(labels: Labels, every: Sequence[Array]) -> tuple[Array, Sequence[Array]]:
    """Labels and outputs that count: all, or one row for each position that has a label."""
    if labels.known:
        return labels.values, every
    axes = len(every[0].shape[:-1]) or 1
    y = labels.values
    counts = labels.over(y.shape).reshape(*y.shape[:axes], -1).any(axis=-1)
    return y[counts], [part[counts] for part in every]


def _of_numbers(labels: Array, every: Sequence[Array]) -> OutputComparison:
    width = every[0].shape[-1] if every[0].ndim > 1 else 1
    y = labels.reshape(-1, width).astype(np.float64)
    numbers = np.stack([part.reshape(-1, width) for part in every])
    residuals = numbers - y
    return OutputComparison(
        kind="regression",
        agreement=_correlations((numbers - y.mean(axis=0))[:-1]),
        error_correlation=_correlations(residuals[:-1]),
        strength=np.square(residuals).mean(axis=1),
        counts=np.full(width, len(y)),
        calibration=(),
    )


def _of_one_class(task: Task, labels: Array, every: Sequence[Array]) -> OutputComparison:
    classes = every[0].shape[-1]
    truth = labels.reshape(-1) if task.sparse else labels.reshape(-1, classes).argmax(axis=-1)
    truth = truth.astype(np.int64)
    chosen = np.stack([p.argmax(axis=-1) for p in every])
    right = chosen == truth
    counts = np.bincount(truth, minlength=classes)
    hits = np.stack([np.bincount(truth, weights=row, minlength=classes) for row in right])
    return OutputComparison(
        kind="multiclass",
        agreement=_agreement(chosen[:-1]),
        error_correlation=_correlations(~right[:-1]),
        strength=_shares(hits, counts),
        counts=counts,
        calibration=tuple(
            reliability(p.max(axis=-1), row) for p, row in zip(every, right, strict=True)
        ),
    )


def _of_labels(task: Task, labels: Array, every: Sequence[Array]) -> OutputComparison:
    y = labels.reshape(every[0].shape)
    truth = y > 0.5
    chosen = np.stack([p > 0.5 for p in every])
    counts = truth.sum(axis=0)
    hits = (chosen & truth).sum(axis=1)
    if task.kind == "binary":
        counts = np.concatenate([(~truth).sum(axis=0), counts])
        hits = np.concatenate([(~chosen & ~truth).sum(axis=1), hits], axis=1)
    return OutputComparison(
        kind=task.kind,
        agreement=_agreement(chosen[:-1].reshape(len(every) - 1, -1)),
        error_correlation=_correlations(chosen[:-1] != truth),
        strength=_shares(hits, counts),
        counts=counts,
        calibration=tuple(reliability(p.reshape(-1), y.reshape(-1)) for p in every),
    )


def reliability(probabilities: Array, happened: Array, bins: int = BINS) -> Reliability:
    """The calibration curve of probabilities, and its expected error (Naeini et al., 2015).

    Args:
        probabilities: The probability of the predicted class, `(n,)`.
        happened: The true labels, 1 or 0, `(n,)`.
        bins: Number of bins, of equal width between 0 and 1.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    into = np.searchsorted(edges[1:-1], probabilities)
    counts = np.bincount(into, minlength=bins)
    used = counts > 0
    sums = [np.bincount(into, weights=one, minlength=bins) for one in (probabilities, happened)]
    confidence, frequency = (total[used] / counts[used] for total in sums)
    error = np.abs(confidence - frequency) @ counts[used] / len(probabilities)
    return Reliability(confidence, frequency, counts[used], float(error))


def _agreement(chosen: Array) -> Array:
    return np.array([[np.mean(one == other) for other in chosen] for one in chosen])


def _correlations(rows: Array) -> Array:
    """Pearson's correlation of each two rows; NaN for constant rows."""
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    size = np.linalg.norm(flat, axis=1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1)
    # What is left of a constant without its mean is rounding.
    norms[norms <= 1e-12 * size] = np.nan
    return np.asarray(np.clip(flat @ flat.T / np.outer(norms, norms), -1.0, 1.0))


def _shares(hits: Array, counts: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(counts > 0, hits / counts, np.nan))


def json_ready(array: Array) -> list[Any]:
    """Nested lists with `None` for NaN."""
    nested: list[Any] = np.where(np.isnan(array), np.array(None), array.astype(object)).tolist()
    return nested
