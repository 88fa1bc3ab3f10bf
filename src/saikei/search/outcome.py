"""Who gains and who loses by a shipped model: per class, per sample, and in confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saikei.runs.details import Calibration, ClassRow, Flip, Outcome
from saikei.runs.pictures import as_image, picture
from saikei.scoring.labelled import Labelled, Outputs

# How many lost samples and classes are shown.
_FLIPS = 12
_CLASSES = 40
_BINS = 10

Array = NDArray[Any]


def outcome_of(
    judge: Labelled, before: Outputs, after: Outputs, classes: Sequence[str]
) -> Outcome | None:
    """Compare two models sample by sample.

    Args:
        judge: Labels and inputs of the samples.
        before: Outputs of the original.
        after: Outputs of the shipped model.
        classes: Names of the classes; empty if they are unknown.

    Returns:
        `None` unless the task is to predict one class for each sample.
    """
    if len(judge.tasks) != 1 or judge.tasks[0].kind not in ("binary", "multiclass"):
        return None
    one, two = (_probabilities(judge, outputs) for outputs in (before, after))
    labels = _labels(judge)
    if one.ndim != 2 or labels.shape != one.shape[:1]:
        return None
    first, second = one.argmax(axis=1), two.argmax(axis=1)
    right, still = first == labels, second == labels
    names = [classes[i] if i < len(classes) else str(i) for i in range(one.shape[1])]
    lost = np.flatnonzero(right & ~still)
    lost = lost[np.argsort(-two[lost].max(axis=1), kind="stable")]
    return Outcome(
        samples=len(labels),
        lost=len(lost),
        won=int((~right & still).sum()),
        agree=int((first == second).sum()),
        classes=_class_rows(labels, right, still, second, names),
        flips=tuple(
            Flip(
                int(row),
                names[int(labels[row])],
                names[int(second[row])],
                float(two[row].max()),
                *_shown(judge.x, int(row)),
            )
            for row in lost[:_FLIPS]
        ),
        before=_calibration(one.max(axis=1), right),
        after=_calibration(two.max(axis=1), still),
    )


def predicted_classes(judge: Labelled, outputs: Outputs) -> Array:
    """The class that is predicted for each sample, of a classification with one output."""
    return np.asarray(_probabilities(judge, outputs).argmax(axis=-1))


def _probabilities(judge: Labelled, outputs: Outputs) -> Array:
    """Probabilities `(n, …, classes)`; of a binary task with one output those of both classes."""
    task, values = judge.tasks[0], np.asarray(outputs[0], dtype=np.float64)
    if task.kind == "binary":
        values = values.reshape(len(values), -1)
        if task.from_logits:
            values = 1 / (1 + np.exp(-values))
        return np.concatenate([1 - values, values], axis=-1)
    if task.from_logits:
        values = np.exp(values - values.max(axis=-1, keepdims=True))
        values /= values.sum(axis=-1, keepdims=True)
    return values


def _labels(judge: Labelled) -> Array:
    values = np.asarray(judge.labels[0].values)
    if judge.tasks[0].kind == "multiclass" and not judge.tasks[0].sparse:
        return np.asarray(values.argmax(axis=-1))
    return np.asarray(values.reshape(len(values), -1)[:, 0].round().astype(np.int64))


def _class_rows(
    labels: Array, right: Array, still: Array, second: Array, names: Sequence[str]
) -> tuple[ClassRow, ...]:
    rows = []
    for number in np.unique(labels):
        own = labels == number
        wrong = second[own & ~still]
        most = names[int(np.bincount(wrong).argmax())] if len(wrong) else ""
        before, after = float(right[own].mean()), float(still[own].mean())
        rows.append(ClassRow(names[int(number)], int(own.sum()), before, after, most))
    rows.sort(key=lambda row: (row.after - row.before) * row.samples)
    if len(rows) <= _CLASSES:
        return tuple(rows)
    return (*rows[: _CLASSES // 2], *rows[-_CLASSES // 2 :])


def _calibration(confidence: Array, right: Array) -> Calibration:
    edges = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = []
    for number in range(_BINS):
        inside = edges == number
        if inside.any():
            mean, share = float(confidence[inside].mean()), float(right[inside].mean())
            bins.append((mean, share, int(inside.sum())))
    error = sum(abs(mean - share) * count for mean, share, count in bins) / len(confidence)
    return Calibration(float(error), tuple(bins))


def _shown(x: Any, row: int) -> tuple[str, str]:
    """A sample as a picture, or as text."""
    image = as_image(x, row)
    if image is not None:
        return picture(image), ""
    if isinstance(x, np.ndarray):
        return "", _text(x[row])
    if isinstance(x, dict):
        return "", "; ".join(f"{name}: {_text(np.asarray(part)[row])}" for name, part in x.items())
    return "", ""


def _text(values: Array) -> str:
    flat = np.asarray(values).reshape(-1)
    shown = [v if isinstance(v, str) else f"{v:.4g}" for v in flat[:8].tolist()]
    return ", ".join(shown)[:300] + (", …" if len(flat) > 8 else "")
