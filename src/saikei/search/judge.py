"""`Judge`: held-out labels, and what models' outputs are worth on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from saikei.batches import for_keras
from saikei.errors import InputError
from saikei.runs.candidate import Difference
from saikei.scoring.counted import Labels, row_importance
from saikei.scoring.metrics import Metric, find_metric
from saikei.scoring.observed import observe
from saikei.scoring.score import (
    Score,
    mean_interval,
    per_sample,
    score_outputs,
    summed_losses,
)
from saikei.scoring.task import Task
from saikei.tensors import to_floats

Array = np.ndarray[Any, np.dtype[Any]]
Outputs = tuple[Array, ...]

PREDICT_BATCH = 256


@dataclass(frozen=True)
class Judge:
    """Scores outputs on one set of labels, so that a model has to run only once.

    Args:
        tasks: one for each output of the models.
        x: inputs, in the structure of the models' inputs.
        labels: of each output, with what counts of them.
        metric: what to judge by; `None` for the task's own.
    """

    tasks: tuple[Task, ...]
    x: Any = field(repr=False)
    labels: tuple[Labels, ...] = field(repr=False)
    metric: Metric | None = None

    @classmethod
    def of(cls, model: keras.Model, data: tuple[Any, ...], metric: Any = None) -> Judge:
        """The judge for a model and all that share its task.

        Args:
            model: a built model; a loss that it is compiled with says what the task is.
            data: `(x, y)` or `(x, y, sample_weight)` arrays.
            metric: as `saikei.evaluate` has it.

        Raises:
            DataError: when the labels do not fit the model.
        """
        observed = observe(model, data, PREDICT_BATCH)
        found = None
        if metric is not None:
            if len(observed.tasks) != 1:
                raise InputError(
                    f"metric={metric!r} is of one output, and model '{model.name}' has "
                    f"{len(observed.tasks)}: leave it out for the summed loss."
                )
            found = find_metric(metric, observed.tasks[0])
        return cls(observed.tasks, data[0], observed.labels, found)

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self.labels[0])

    def outputs(self, model: keras.Model) -> Outputs:
        """What a model says of the inputs: one array `(n, …)` for each output."""
        said = model.predict(for_keras(self.x), batch_size=PREDICT_BATCH, verbose=0)
        return tuple(to_floats(output) for output in keras.tree.flatten(said))

    def score(self, outputs: Outputs) -> Score:
        """The metric of one output, or the summed loss of several."""
        if self.metric is not None:
            return self.metric.score(self.tasks[0], self.labels[0], outputs[0])
        return score_outputs(self.tasks, self.labels, outputs)

    def difference(self, first: Outputs, second: Outputs) -> Difference:
        """Metric of the first minus metric of the second, paired, with its 95 % interval."""
        if self.metric is not None:
            found = self.metric.difference(self.tasks[0], self.labels[0], first[0], second[0])
            return Difference(*found)
        if len(self.tasks) == 1:
            task, labels = self.tasks[0], self.labels[0]
            each = per_sample(task, labels, first[0]) - per_sample(task, labels, second[0])
        else:
            each, other = (
                summed_losses(self.tasks, self.labels, outputs) for outputs in (first, second)
            )
            each = each - other
        return Difference(*mean_interval(each, row_importance(self.labels)))


def mean_of(outputs: Sequence[Outputs], weights: Sequence[float] | None = None) -> Outputs:
    """The (weighted) mean of what several models say, output by output."""
    return tuple(
        np.average(np.stack(parts), axis=0, weights=weights) for parts in zip(*outputs, strict=True)
    )
