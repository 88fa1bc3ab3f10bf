"""What a run leaves behind, as values: candidates, scores, comparisons and decisions.

The records are frozen, go through JSON unchanged, and are all that the report and the command
line read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from saikei.codec import Logged, from_jsonable, to_jsonable
from saikei.errors import InputError
from saikei.reading import parse_json, read_json
from saikei.runs.plausible import check_run
from saikei.scoring.score import Score

Kind = Literal["original", "given", "pruned", "fresh", "labels", "average"]

# How each kind reads in a sentence or a legend.
KINDS: Mapping[Kind, str] = {
    "original": "original",
    "given": "original that fits",
    "pruned": "pruned, distilled",
    "fresh": "fresh weights, distilled",
    "labels": "pruned, labels only",
    "average": "average",
}


@dataclass(frozen=True)
class Cost:
    """What a model costs at inference.

    Args:
        params: number of parameters.
        macs: multiply-accumulates per sample.
        activation_bytes: most bytes of activations alive at once, per sample.
        latency: median milliseconds of one batch; `None` where not measured.
        batch_size: of the latency.
    """

    params: int
    macs: int
    activation_bytes: int
    latency: float | None
    batch_size: int


@dataclass(frozen=True)
class Difference:
    """A paired difference of a metric on the same samples, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def standard_error(self) -> float:
        """One standard error, read off the interval's width."""
        return (self.high - self.low) / (2 * 1.959964)

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class LayerChange:
    """The channels that a layer makes, before and after.

    Args:
        name: the layer.
        kind: its kind.
        before: channels in the original.
        after: channels in the candidate.
        pinned: why they could not be cut; `None` where they could.
    """

    name: str
    kind: str
    before: int
    after: int
    pinned: str | None


@dataclass(frozen=True)
class Training:
    """How a candidate was trained.

    Args:
        teacher: who taught it; `None` when it learned from the labels alone.
        epochs: that were run.
        learning_rate: at its peak.
        temperature: of the distillation; `None` without a teacher.
        alpha: weight of the true labels in the loss; 1 without a teacher.
        seconds: that it took.
        curves: for each logged quantity, its value after each epoch.
    """

    teacher: str | None
    epochs: int
    learning_rate: float
    temperature: float | None
    alpha: float
    seconds: float
    curves: Mapping[str, tuple[Logged, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """One model that was considered.

    Args:
        name: unique in the run, and its folder's name.
        kind: where its weights come from.
        parent: the original that it was cut from; `None` for originals and averages.
        plan: what was asked for, JSON-ready: enough to make it again.
        recipe: the edits that make its structure from the parent, JSON-ready.
        members: of an average.
        weights: of an average, one for each member.
        fits: whether it keeps the budget.
        cost: profiled on the model as it is saved.
        before: score before training, on validation; `None` where nothing was trained.
        validation: score on validation; out-of-fold where weights were fitted there.
        training: how it was trained; `None` where it was not.
        layers: its channels against the parent's.
    """

    name: str
    kind: Kind
    parent: str | None
    plan: Mapping[str, Any]
    recipe: Mapping[str, Any] | None
    members: tuple[str, ...]
    weights: tuple[float, ...]
    fits: bool
    cost: Cost
    before: Score | None
    validation: Score
    training: Training | None
    layers: tuple[LayerChange, ...]


def trained_for_nothing(candidate: Candidate) -> bool:
    """Whether a candidate was trained and no epoch was better, so that it stayed as it was cut."""
    kept = candidate.training is not None and candidate.kind != "fresh"
    return kept and candidate.before == candidate.validation


@dataclass(frozen=True)
class Comparison:
    """What one choice bought: a candidate against the same thing without the choice.

    Args:
        question: what is compared, for example "pruned or fresh weights".
        first: one candidate.
        second: the other.
        difference: metric of `first` minus metric of `second`, on validation.
        answer: one sentence.
    """

    question: str
    first: str
    second: str
    difference: Difference
    answer: str


@dataclass(frozen=True)
class Decision:
    """A choice that the search made, and why."""

    topic: str
    choice: str
    reason: str


@dataclass(frozen=True)
class Test:
    """The one look at the test set.

    Args:
        baseline: score of the original.
        chosen: score of the chosen model.
        difference: chosen minus baseline, paired.
    """

    __test__ = False  # Not a test case, whatever pytest thinks of the name.

    baseline: Score
    chosen: Score
    difference: Difference


@dataclass(frozen=True)
class Settings:
    """What the search was asked for.

    Args:
        budget: the limits as given.
        limits: the same as absolute numbers.
        trials: architectures that were planned.
        epochs: of each training.
        batch_size: of each training; `None` where a dataset brought its own.
        seed: of everything random.
        sizes: for each input with axes of unknown size, the shape of a sample that costs are of.
    """

    budget: Mapping[str, float | int]
    limits: Mapping[str, float]
    trials: int
    epochs: int
    batch_size: int | None
    seed: int
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        task: "binary", "multiclass", "multilabel" or "regression".
        baseline: name of the original that everything is compared to.
        chosen: name of the candidate to ship.
        candidates: all of them, originals first.
        front: names of the Pareto-optimal ones, cheapest first.
        cost_axis: the cost that the front trades against the metric: "macs", "params" or
            "latency".
        comparisons: what each choice bought.
        decisions: what was decided, in order.
        test: the look at the test set; `None` where none was given.
        settings: what was asked for.
        samples: number of samples of each part of the data; 0 where unknown.
        fingerprint: hashes of what went in, by name.
        versions: of the software.
        started: when, ISO 8601 in UTC.
        seconds: that the run took, earlier sittings included.
    """

    task: str
    baseline: str
    chosen: str
    candidates: tuple[Candidate, ...]
    front: tuple[str, ...]
    cost_axis: str
    comparisons: tuple[Comparison, ...]
    decisions: tuple[Decision, ...]
    test: Test | None
    settings: Settings
    samples: Mapping[str, int]
    fingerprint: Mapping[str, str]
    versions: Mapping[str, str]
    started: str
    seconds: float

    def candidate(self, name: str) -> Candidate:
        """The candidate of that name.

        Raises:
            InputError: when the run has none.
        """
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise InputError(
            f"The run has no candidate '{name}': use one of "
            f"{', '.join(c.name for c in self.candidates)}."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        made: dict[str, Any] = to_jsonable(self)
        return made

    def to_json(self) -> str:
        """The run as JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Run:
        """The inverse of `to_dict`.

        Raises:
            InputError: when a field is missing, unknown or of the wrong type, or has a value that
                no run has.
        """
        return cls._read(dict(values))

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Read a run from JSON text.

        Raises:
            InputError: when the text is no JSON, or not a run.
        """
        return cls._read(parse_json(text, "The run's record"))

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read the record of a finished run from its folder.

        Raises:
            InputError: when the folder holds no finished run, or its record is damaged.
        """
        path = Path(folder) / "run.json"
        if not path.is_file():
            raise InputError(
                f"'{folder}' holds no finished run (no run.json): give the folder that "
                "optimize(out=…) wrote."
            )
        return cls._read(read_json(path, "The run's record"))

    @classmethod
    def _read(cls, values: Any) -> Run:
        run = from_jsonable(cls, values)
        check_run(run)
        return run
