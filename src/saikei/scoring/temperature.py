"""Temperature scaling: one number that calibrates a classifier's probabilities.

Guo et al., "On Calibration of Modern Neural Networks", 2017: logits are divided by a temperature,
which leaves their order, and so the accuracy, as it was. The log-loss is convex in its inverse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize

from saikei.codec import ToDict
from saikei.errors import FusionError
from saikei.scoring.logit_loss import logit_loss
from saikei.scoring.task import Task, labels_of

# Wider than any network's; reached where every sample is right, or none.
COLDEST, HOTTEST = 0.05, 20.0


@dataclass(frozen=True)
class Temperature(ToDict):
    """A fitted temperature.

    Args:
        value: The number that logits are divided by; below 1 the model was too unsure, above 1 too
            sure.
        loss: Mean log-loss with it, nats.
        loss_before: Mean log-loss without it.
    """

    value: float
    loss: float
    loss_before: float


def fit_temperature(task: Task, logits: Any, y: Any) -> Temperature:
    """The temperature of the lowest log-loss, between 0.05 and 20.

    Args:
        task: What the output learns: classes or labels.
        logits: `(n, …, outputs)`; under a softmax, logarithms of probabilities are logits too.
        y: The labels of the rows.

    Raises:
        FusionError: For a regression, which has no temperature.
        DataError: When the labels do not fit the logits.

    Example:
        >>> from saikei.scoring import Task
        >>> task = Task("binary", None, "accuracy", from_logits=True, sparse=False, outputs=1)
        >>> unsure = np.log(3) * np.array([[1], [1], [1], [-1]])  # three in four are right
        >>> round(fit_temperature(task, 2 * unsure, np.array([1, 1, 0, 0])).value, 3)
        2.0
    """
    if task.kind == "regression":
        raise FusionError("A regression has no probabilities to calibrate: leave calibrate out.")
    given = np.asarray(logits)
    of_logits = replace(task, from_logits=True)
    loss = logit_loss(of_logits, [given], labels_of(of_logits, given, y))

    def slope(inverse: float) -> float:
        return float(loss(np.array([inverse]))[1][0])

    low, high = 1 / HOTTEST, 1 / COLDEST
    if slope(low) >= 0:
        best = low
    elif slope(high) <= 0:
        best = high
    else:
        best = float(optimize.brentq(slope, low, high, xtol=1e-10))
    after, before = (loss(np.array([inverse]))[0] for inverse in (best, 1.0))
    if after >= before:
        return Temperature(1.0, before, before)
    return Temperature(1 / best, after, before)
