"""How much is lost with each unit, given those that are gone already."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from saikei.calibration.affordable import fewer
from saikei.calibration.parts import Parts
from saikei.calibration.samples import Samples, calibration_samples
from saikei.edits.depth.branch_energy import branch_shares
from saikei.edits.depth.gates import Array, GatedModel
from saikei.edits.depth.units import Unit
from saikei.errors import EditError
from saikei.graph import Graph, TensorRef
from saikei.importance.objective import objective
from saikei.tensors import to_floats

# Differences between units are large, so that few samples show them.
SAMPLES = 256
# Work of all trials, as runs of all samples, and rows of the outputs that a trial has at least: as
# every unit is tried at every step, many units are tried on fewer samples.
PASSES, ROWS = 6, 128


class Ranking(ABC):
    """Scores units by the harm of leaving them out."""

    @abstractmethod
    def scores(self, units: Sequence[Unit], gone: Collection[TensorRef]) -> list[float | None]:
        """The harm of leaving out each unit, in the ranking's own measure.

        Args:
            units: The units to score.
            gone: The tensors that are bypassed already.

        Returns:
            A number for each unit, `None` where the ranking has none.
        """


class ByWeights(Ranking):
    """The branch's share of the sum, guessed from weights; see `branch_energy`."""

    def __init__(self, graph: Graph, units: Sequence[Unit], data: Any) -> None:
        self._shares = dict(
            zip((unit.name for unit in units), branch_shares(graph, units), strict=True)
        )

    def scores(self, units: Sequence[Unit], gone: Collection[TensorRef]) -> list[float | None]:
        """The scores, which do not depend on what is gone."""
        return [self._shares[unit.name] for unit in units]


class ByInfluence(Ranking):
    """Block influence: 1 − cos between a unit's output and the tensor that replaces it.

    Men et al., ShortGPT, 2024; the angle is between all numbers of a sample. All units are measured
    in one run of the samples, which ends at the last unit.
    """

    def __init__(self, graph: Graph, units: Sequence[Unit], data: Any) -> None:
        pairs = {unit.name: _ends(unit.around) for unit in units}
        refs = [ref for ends in pairs.values() for pair in ends for ref in pair]
        until = max(ref.call for ref in refs) + 1
        inputs = fewer(graph, calibration_samples(graph, data, SAMPLES), 4, until).inputs
        parts = Parts(graph, inputs, (), refs)
        self._found = dict.fromkeys(pairs, 0.0)
        for rows, run in parts.before(until):
            share = (rows.stop - rows.start) / parts.samples
            for name, ends in pairs.items():
                far = sum(_angle(*(run.value(ref).array for ref in pair)) for pair in ends)
                self._found[name] += share * far

    def scores(self, units: Sequence[Unit], gone: Collection[TensorRef]) -> list[float | None]:
        """The influences in the whole model, whatever is gone."""
        return [self._found[unit.name] for unit in units]


def _ends(around: Mapping[TensorRef, TensorRef]) -> list[tuple[TensorRef, TensorRef]]:
    """The tensors that a unit gives to others, and what replaces each of them."""
    pairs = []
    for given, taken in around.items():
        if given not in around.values():
            while taken in around:
                taken = around[taken]
            pairs.append((given, taken))
    return pairs


def _angle(given: Array, taken: Array) -> float:
    """1 − cos between two tensors of a sample; the mean over samples."""
    one, other = (to_floats(array).reshape(len(array), -1) for array in (given, taken))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = np.einsum("ij,ij->i", one, other) / np.maximum(lengths, 1e-30)
    return float(np.mean(1 - cosines))


class _ByTrial(Ranking):
    """Leave each unit out in turn and compare the model's outputs."""

    def __init__(self, graph: Graph, units: Sequence[Unit], data: Any) -> None:
        # Outputs before and after, in float64 too.
        samples = fewer(graph, calibration_samples(graph, data, SAMPLES), 8)
        samples = _for_trials(graph, samples, len(units))
        self._model = GatedModel(graph, _gates(units), samples.inputs)
        self._before = self._model.run(())
        self._tried: dict[frozenset[TensorRef], float] = {}
        self._marks = graph.marks
        self._start(samples)

    def _start(self, samples: Samples) -> None:
        """Prepare for `_harm`."""

    @abstractmethod
    def _harm(self, outputs: list[Array]) -> float:
        """How much worse other outputs are than those before."""

    def scores(self, units: Sequence[Unit], gone: Collection[TensorRef]) -> list[float | None]:
        """One run of the samples for each unit, unless the same was tried before."""
        trials = [frozenset({*gone, *unit.around}) for unit in units]
        for shut in trials:
            if shut not in self._tried:
                self._tried[shut] = self._harm(self._model.run(shut))
        return [self._tried[shut] for shut in trials]


class ByOutput(_ByTrial):
    """The mean squared change of the outputs, over their variance; the mean of all outputs."""

    def _harm(self, outputs: list[Array]) -> float:
        harms = []
        for before, after in zip(self._before, outputs, strict=True):
            old, new = before.astype(np.float64), after.astype(np.float64)
            spread = np.square(old - old.mean(axis=0)).mean() or np.square(old).mean() or 1.0
            harms.append(np.square(new - old).mean() / spread)
        return float(np.mean(harms))


class ByLoss(_ByTrial):
    """How much the loss on the labels grows; it shrinks where the number is negative."""

    def _start(self, samples: Samples) -> None:
        _, labels = samples.with_labels()
        self._truths = samples.truths()
        self._objective = objective(self._before, labels, self._marks)
        self._loss = self._value(self._before)

    def _value(self, outputs: list[Array]) -> float:
        tensors = [keras.ops.convert_to_tensor(y) for y in outputs]
        truths = [keras.ops.convert_to_tensor(y) for y in self._truths]
        return float(to_floats(self._objective(tensors, truths)))

    def _harm(self, outputs: list[Array]) -> float:
        return self._value(outputs) - self._loss


RANKINGS: dict[str, type[Any]] = {
    "influence": ByInfluence,
    "loss": ByLoss,
    "output": ByOutput,
    "weights": ByWeights,
}


def make_ranking(name: str | None, graph: Graph, units: Sequence[Unit], data: Any) -> Ranking:
    """The ranking of this name, ready to score.

    Args:
        name: One of `RANKINGS`; by default `"output"` with data and `"weights"` without.
        graph: The graph that the units are in.
        units: All that will be scored.
        data: What `keras.Model.fit` takes.

    Raises:
        EditError: When the ranking looks at data and there is none.
        DataError: When the data does not fit the model.
    """
    chosen = name or ("weights" if data is None else "output")
    if chosen != "weights" and data is None:
        raise EditError(
            f"RemoveLayers(ranking='{chosen}') looks at data, and none is given: hand in (x, y) as "
            "the second argument, or use ranking='weights'."
        )
    ranking: Ranking = RANKINGS[chosen](graph, units, data)
    return ranking


def _for_trials(graph: Graph, samples: Samples, units: int) -> Samples:
    """As many of the samples as the trials of so many units can use, of which a quarter may go."""
    trials = units * max(units // 4, 1)
    shape = graph.spec(graph.output_refs()[0]).shape[1:-1]
    least = -(-ROWS // math.prod(size or 1 for size in shape))
    most = max(least, PASSES * len(samples) // max(trials, 1))
    if most >= len(samples):
        return samples
    rows = np.sort(np.random.default_rng(0).choice(len(samples), most, replace=False))
    return samples.take(rows)


def _gates(units: Sequence[Unit]) -> dict[TensorRef, TensorRef]:
    return {given: taken for unit in units for given, taken in unit.around.items()}
