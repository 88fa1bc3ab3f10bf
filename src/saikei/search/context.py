"""`RunContext`: models, data and budget that every candidate of a run is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil
from typing import Any

import keras
import numpy as np

from saikei.batches import as_arrays
from saikei.budget import Budget, Costs
from saikei.distilling.stored_teacher import StoredTeacher
from saikei.errors import DataError
from saikei.executors import Executor
from saikei.exporting import int8_available
from saikei.runs.candidate import Cost
from saikei.scoring.labelled import Labelled
from saikei.scoring.observed import held_out
from saikei.search.folder import RunFolder
from saikei.search.gauge import Gauge
from saikei.search.methods import Methods
from saikei.search.originals import Originals, input_names
from saikei.search.race import has_learned, overfits

# What an int8 file is expected to take of the float weights: a quarter, and scales and structure.
# What it takes is measured on the file.
INT8_SHARE = 0.3
# Rows of the training data that show whether a given model was trained on it.
TRAINING_ROWS = 1000


@dataclass(frozen=True)
class RunContext:
    """Models, data and budget that every candidate of a run is made from and judged by.

    Args:
        originals: The given models with their scores and costs.
        teacher: The model that students learn from, or its stored predictions.
        teacher_name: Its name in records.
        train: Data to train on.
        validation: `(x, y)` arrays to choose by.
        calibration: Training data or samples of it, `(x, y)`: options are measured by it, and the
            remaining weights refitted to it.
        judge: Scores outputs on the validation data.
        budget: The budget as given.
        methods: The edits and fusions that take part.
        folder: Where candidates are stored.
        gauge: How costs are measured.
        executor: Runs measurements and trainings, here or elsewhere.
        seed: Seed of the run.
        steps: Steps of an epoch; `None` where the data does not know.
    """

    originals: Originals
    teacher: keras.Model | StoredTeacher = field(repr=False)
    teacher_name: str
    train: Any = field(repr=False)
    validation: Any = field(repr=False)
    calibration: Any = field(repr=False)
    judge: Labelled = field(repr=False)
    budget: Budget
    methods: Methods
    folder: RunFolder
    gauge: Gauge
    executor: Executor
    seed: int
    steps: int | None = None

    @property
    def models(self) -> Mapping[str, keras.Model]:
        """The given models by name."""
        return self.originals.models

    @property
    def whole(self) -> Cost:
        """Costs that shares in the budget refer to."""
        return self.originals.baseline.cost

    @property
    def saves(self) -> bool:
        """Whether the budget asks for less than the original costs, in any limit."""
        whole, limits = self.whole, self.budget.limits(self.whole)
        return any(limit < self.budget.cost(whole, name) for name, limit in limits.items())

    @cached_property
    def training_losses(self) -> Mapping[str, float]:
        """The loss of each given model on some rows of the training data; empty if none counts."""
        arrays = as_arrays(self.calibration, "train")
        if arrays is None:
            return {}
        rows = np.random.default_rng(self.seed).permutation(len(arrays))[:TRAINING_ROWS]
        some = arrays.take(np.sort(rows))
        try:
            judge = held_out(next(iter(self.models.values())), some.parts)
        except DataError:
            # None of these rows counts.
            return {}
        return {name: judge.loss(judge.predict(model)) for name, model in self.models.items()}

    @property
    def learned(self) -> bool:
        """Whether the best given model has learned from this training data; see `has_learned`."""
        best = self.originals.baseline
        return has_learned(self.training_losses.get(best.name), best.validation.loss)

    @property
    def overfits(self) -> bool:
        """Whether it knows this training data far better than that of validation."""
        best = self.originals.baseline
        return overfits(self.training_losses.get(best.name), best.validation.loss)

    @property
    def explained(self) -> float:
        """The share of the loss of the classes' frequencies that the best given model saves.

        On validation; for a regression that is the coefficient of determination.
        """
        best = self.originals.baseline
        prior = self.judge.loss(self.judge.prior(self.originals.outputs[best.name]))
        return 1 - best.validation.loss / max(prior, 1e-12)

    @property
    def reads_images(self) -> bool:
        """Whether all inputs have two axes or more beside rows and channels."""
        return all(len(one.shape) > 3 for model in self.models.values() for one in model.inputs)

    @property
    def losses(self) -> Any:
        """The loss of each output."""
        losses = [task.loss for task in self.judge.tasks]
        return losses[0] if len(losses) == 1 else losses

    @property
    def planned_budget(self) -> Budget:
        """The budget for structures of any of the given models, in absolute numbers.

        Where int8 versions take part, a structure may have as many bytes as its int8 version keeps.
        """
        absolute = self.budget.scaled(1.0, self.whole)
        if not self.quantizes or absolute.bytes is None:
            return absolute
        return replace(absolute, bytes=int(absolute.bytes / INT8_SHARE))

    @property
    def structure_budgets(self) -> tuple[Budget, ...]:
        """The budgets that structures are proposed for, the tighter one first.

        The first is for those that keep the budget as they are. Where int8 versions take part and
        bytes are limited, the second is for those that keep it in int8: not every model can be
        quantised.
        """
        return tuple(dict.fromkeys((self.budget.scaled(1.0, self.whole), self.planned_budget)))

    @property
    def quantizes(self) -> bool:
        """Whether int8 versions take part: they save bytes and time, and no other costs."""
        limited = {"bytes", "latency"} & set(self.budget.given())
        return self.methods.quantize and bool(limited) and int8_available()

    def shipped(self, cost: Cost) -> Cost:
        """What a candidate costs as it may be shipped: as an int8 file, if it is too large."""
        if self.fits(cost) or not self.quantizes:
            return cost
        return replace(cost, bytes=ceil(INT8_SHARE * cost.bytes))

    def fits(self, costs: Costs) -> bool:
        """Whether a model keeps the budget."""
        return self.budget.fits(costs, self.whole)

    def inputs(self, name: str) -> tuple[str, ...]:
        """The names of the inputs that a given model reads; empty if all read the same ones.

        Args:
            name: Name of a given model.
        """
        each = {key: input_names(model) for key, model in self.models.items()}
        return each.get(name, ()) if len(set(each.values())) > 1 else ()

    def load(self, name: str) -> keras.Model:
        """The model of a candidate, or a given model, by name."""
        given = self.models.get(name)
        return self.folder.model(name) if given is None else given
