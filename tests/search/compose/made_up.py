"""Members with made-up predictions of made-up labels."""

from __future__ import annotations

import numpy as np

from saikei.runs.candidate import Cost
from saikei.scoring.labelled import Labelled
from saikei.scoring.task import Task
from saikei.search.compose import Member

CLASSES = 4


TASK = Task("multiclass", "sparse_categorical_crossentropy", "accuracy", False, True, CLASSES)


def cost(macs):
    return Cost(macs, macs, 4 * macs, memory=100, latency=None, batch_size=32)


WHOLE = cost(1000)


def labels(rows=600, seed=0):
    return np.random.default_rng(seed).integers(0, CLASSES, rows)


def judge_of(y):
    return Labelled.of([TASK], [y])


def member(name, y, macs=250, signal=1.0, seed=0, **more):
    """A member whose logits for the true class are `signal` standard deviations higher."""
    noise = np.random.default_rng(seed).normal(size=(len(y), CLASSES))
    noise[np.arange(len(y)), y] += signal
    p = np.exp(noise - noise.max(axis=1, keepdims=True))
    p = (p / p.sum(axis=1, keepdims=True)).astype("float32")

    def no_model():
        raise AssertionError(f"{name} was loaded")

    return Member(name, "made up", cost(macs), (p,), no_model, **more)


def crowd(y, count=6, macs=250, signal=1.0, begin=1):
    return [member(f"m{i}", y, macs, signal, seed=i) for i in range(begin, begin + count)]
