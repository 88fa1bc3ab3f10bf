"""`Run`: the record of a finished run, which is all that the report and the command line read.

Records are frozen values and are stored as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saikei.codec import from_jsonable, to_jsonable
from saikei.errors import InputError
from saikei.reading import parse_json, read_json
from saikei.runs.candidate import COST_AXES, ORIGINALS, Candidate
from saikei.scoring.score import Difference, Score

# A candidate's name is the name of its folder too.
_NAME = re.compile(r"\w[\w.-]*")
# Topics of decisions that the headline of a report gives the reasons of.
WHAT_TO_SHIP, CLASS_OF_RESULT = "what to ship", "class of the result"


@dataclass(frozen=True)
class Comparison:
    """Two candidates that differ in one choice, compared on the same samples.

    Args:
        question: What is compared, for example "pruned or fresh weights".
        first: Name of one candidate.
        second: Name of the other.
        difference: Metric of `first` minus metric of `second`, on validation.
        answer: The result in a few words.
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
class FinalTest:
    """Scores on the test set, which is used once, after the choice.

    Args:
        baseline: Score of the original.
        chosen: Score of the chosen model.
        difference: Chosen minus baseline, paired.
    """

    baseline: Score
    chosen: Score
    difference: Difference


@dataclass(frozen=True)
class MethodRecord:
    """What one method offered to a run, and what became of it.

    Args:
        name: Name of the method, such as `"prune"` or `"cascade"`.
        offered: Number of options, or of sets of members, that it offered.
        tried: Number of candidates that use it.
        kept: Whether the shipped model uses it.
        reason: Why it was kept or not, with the figure that decided.
    """

    name: str
    offered: int
    tried: int
    kept: bool
    reason: str


@dataclass(frozen=True)
class EffortRecord:
    """Epochs that were trained in one rung for one family of candidates.

    Args:
        family: The family, such as `"knapsack"`.
        rung: Number of epochs at the end of the rung.
        candidates: Number of candidates that were trained.
        epochs: Epochs that were trained, all candidates together.
    """

    family: str
    rung: int
    candidates: int
    epochs: int


@dataclass(frozen=True)
class LibraryRecord:
    """The library of options that structures were chosen from.

    Args:
        options: Number of options that were measured.
        rows: Number of held-out rows that they were measured on.
        unit: Unit of the divergence from the original's output.
        seconds: Duration of the measurement.
        structures: Predicted and measured divergence of each structure that was measured.
        rank_correlation: Spearman's rank correlation of the two; `None` for fewer than three.
    """

    options: int
    rows: int
    unit: str
    seconds: float
    structures: tuple[tuple[float, float], ...]
    rank_correlation: float | None


@dataclass(frozen=True)
class RunSettings:
    """The arguments of a run.

    Args:
        budget: The limits as given.
        limits: The same limits as absolute numbers.
        methods: Names of the edits and fusions that took part.
        effort: Total number of epochs of all trainings.
        batch_size: Batch size of each training; `None` if a dataset had its own.
        seed: Seed of everything random.
        sizes: For each input with axes of unknown size, the shape of the sample that costs are
            counted for.
    """

    budget: Mapping[str, float | int | str]
    limits: Mapping[str, float]
    methods: tuple[str, ...]
    effort: int
    batch_size: int | None
    seed: int
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        task: "binary", "multiclass", "multilabel" or "regression".
        baseline: Name of the original that everything is compared to.
        chosen: Name of the candidate to ship.
        candidates: All candidates, originals first.
        front: Names of the Pareto-optimal candidates, cheapest first.
        cost_axis: The cost on the front's other axis, one of `COST_AXES`.
        comparisons: What each choice gained.
        decisions: What was decided, in order.
        methods: What became of each method.
        effort: Where the epochs went.
        library: The library of options, for each original that structures were made from.
        test: Scores on the test set; `None` if none was given.
        settings: The arguments of the run.
        samples: Number of samples of each part of the data; 0 if unknown.
        fingerprint: Hashes of models, data and settings, by name.
        versions: Versions of the software, by name.
        started: Time of the start, ISO 8601 in UTC.
        seconds: Duration of the run, with earlier sessions.
    """

    task: str
    baseline: str
    chosen: str
    candidates: tuple[Candidate, ...]
    front: tuple[str, ...]
    cost_axis: str
    comparisons: tuple[Comparison, ...]
    decisions: tuple[Decision, ...]
    methods: tuple[MethodRecord, ...]
    effort: tuple[EffortRecord, ...]
    library: Mapping[str, LibraryRecord]
    test: FinalTest | None
    settings: RunSettings
    samples: Mapping[str, int]
    fingerprint: Mapping[str, str]
    versions: Mapping[str, str]
    started: str
    seconds: float

    def candidate(self, name: str) -> Candidate:
        """The candidate of that name.

        Raises:
            InputError: If the run has none.
        """
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise InputError(
            f"The run has no candidate '{name}': use one of "
            f"{', '.join(c.name for c in self.candidates)}."
        )

    def to_dict(self) -> dict[str, Any]:
        """The run as JSON-ready values."""
        made: dict[str, Any] = to_jsonable(self)
        return made

    def to_json(self) -> str:
        """The run as JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_dict(cls, values: Any) -> Run:
        """The inverse of `to_dict`.

        Raises:
            InputError: If a field is missing, unknown or of the wrong type, or has a value that
                no run would write.
        """
        run = from_jsonable(cls, values)
        for fault in run._faults():
            raise InputError(
                f"The run's record is damaged or was changed by hand: {fault}. Run the search "
                "again into a new folder."
            )
        return run

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Read a run from JSON text.

        Raises:
            InputError: If the text is not JSON, or not a run.
        """
        return cls.from_dict(parse_json(text, "The run's record"))

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read the record of a finished run from its folder.

        Raises:
            InputError: If the folder holds no finished run, or its record is damaged.
        """
        path = Path(folder) / "run.json"
        if not path.is_file():
            raise InputError(
                f"'{folder}' holds no finished run (no run.json): give the folder that "
                "optimize(out=…) wrote, or repeat the call that began the run."
            )
        return cls.from_dict(read_json(path, "The run's record"))

    def _faults(self) -> Iterator[str]:
        """What no run would have written: types are right, but values may be anything."""
        names = {candidate.name for candidate in self.candidates}
        originals = {c.name for c in self.candidates if c.kind in ORIGINALS}
        for name in names:
            if not _NAME.fullmatch(name):
                yield f"a candidate is called {name!r}"
        if len(names) < len(self.candidates):
            yield "two candidates have one name"
        if self.cost_axis not in COST_AXES:
            yield f"its cost axis is {self.cost_axis!r}, and not one of {', '.join(COST_AXES)}"
        for name in (self.baseline, self.chosen, *self.front):
            if name not in names:
                yield f"there is no candidate {name!r}"
        if self.baseline not in originals:
            yield f"{self.baseline!r} is no original"
        for candidate in self.candidates:
            for fault in candidate.faults(names, self.cost_axis):
                yield f"of {candidate.name!r}, {fault}"
