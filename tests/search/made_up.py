"""Candidates and judges made by hand, for tests that train nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from saikei.runs.candidate import Candidate, Cost
from saikei.scoring.labelled import Labelled, Outputs
from saikei.scoring.score import Score
from saikei.scoring.task import Task

BINARY = Task("binary", None, "accuracy", from_logits=False, sparse=False, outputs=1)
NUMBER = Task("regression", None, "mse", from_logits=False, sparse=False, outputs=1)


def cost(macs: int = 100, params: int = 10, latency: float = 1.0) -> Cost:
    return Cost(macs=macs, params=params, bytes=40, memory=64, latency=latency, batch_size=32)


def score(value: float, greater_is_better: bool = True) -> Score:
    name = "accuracy" if greater_is_better else "mse"
    return Score(name, value, value - 0.01, value + 0.01, 100, greater_is_better, 1 - value)


def candidate(name: str = "01-knapsack", value: float = 0.9, **changes: Any) -> Candidate:
    made = Candidate(
        name=name,
        kind="kept",
        family="knapsack",
        parent="original",
        plan={"seed": 3},
        recipe=None,
        members=(),
        weights=(),
        fits=True,
        cost=cost(),
        before=None,
        validation=score(value),
        training=None,
        layers=(),
    )
    return replace(made, **changes)


def judge_of_binary(truth: Any) -> Labelled:
    labels = np.asarray(truth, dtype=float).reshape(-1, 1)
    return Labelled.of((BINARY,), (labels,))


def judge_of_number(truth: Any) -> Labelled:
    labels = np.asarray(truth, dtype=float).reshape(-1, 1)
    return Labelled.of((NUMBER,), (labels,))


def right(judge: Labelled, count: int, first: int = 0) -> Outputs:
    """The predictions of a model that is right on `count` samples, from the sample `first` on."""
    labels = judge.labels[0].values
    hit = np.zeros(len(labels), dtype=bool)
    hit[np.arange(first, first + count) % len(labels)] = True
    sure = np.where(labels > 0.5, 0.9, 0.1)
    return (np.where(hit[:, None], sure, 1 - sure),)
