"""Made-up predictions of members of mixed skill."""

from __future__ import annotations

import numpy as np
from scipy import special

from saikei.scoring import Task


def task(kind="multiclass", outputs=3, sparse=True, from_logits=False):
    metric = {"regression": "mse", "multilabel": "binary_accuracy"}.get(kind, "accuracy")
    return Task(kind, None, metric, from_logits, sparse and kind == "multiclass", outputs)


def classes(members=4, rows=60, count=3, seed=0):
    """Probabilities of each member, `(rows, count)`, and the classes."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, count, rows)
    skill = generator.uniform(0.0, 3.0, members)
    noise = generator.normal(size=(members, rows, count))
    logits = skill[:, None, None] * np.eye(count)[y] + noise
    return list(special.softmax(logits, axis=-1)), y


def labels(members=4, rows=60, count=3, seed=0):
    """Probabilities of each label and the labels, both `(rows, count)`."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 2, (rows, count))
    noise = generator.normal(size=(members, rows, count))
    return list(special.expit(2 * y - 1 + noise)), y


def numbers(members=4, rows=60, count=2, seed=0):
    """Predicted numbers and the true ones, both `(rows, count)`."""
    generator = np.random.default_rng(seed)
    y = generator.normal(size=(rows, count))
    return list(y + generator.normal(size=(members, rows, count))), y
