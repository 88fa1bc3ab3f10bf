"""`Driver`: has parts of trainings done, stores their results, and counts epochs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from saikei.errors import DiskError, WorkError
from saikei.executors.base import Executor, TaskFailure
from saikei.search.race.plan import RungResult, RungTask
from saikei.search.race.rung import run_rung

Outcome = RungResult | TaskFailure
Load = Callable[[str, int], Outcome | None]
Store = Callable[[str, int, Outcome], None]


@dataclass(frozen=True)
class Part:
    """A part of a training, and where its first state is.

    Args:
        task: The part; its state is filled in.
        source: Name of the candidate whose state at `task.begin` it continues from; `None` for the
            candidate itself.
    """

    task: RungTask
    source: str | None = None


class Driver:
    """Has parts of trainings done by an executor; what is stored is not done again.

    Args:
        shared: Models and data, for the executor; the attribute may be replaced between two calls,
            such as to add a teacher.
        executor: Runs the parts.
        load: Gives the stored result of a candidate after an epoch; `None` if there is none.
        store: Stores a result as soon as it is there. The state of a candidate is asked for again
            when it goes on, and of a rival when its other branch begins.
        run: The function that does a part.
        watch: Called with each part that is finished, also in an earlier session, and its result,
            such as for a progress display; `None` for nobody.
    """

    def __init__(
        self,
        shared: Any,
        executor: Executor,
        load: Load,
        store: Store,
        run: Callable[[Any, RungTask], RungResult] = run_rung,
        watch: Callable[[RungTask, Outcome], None] | None = None,
    ) -> None:
        self.shared, self._executor = shared, executor
        self._load, self._store, self._run = load, store, run
        self._watch = watch or (lambda *_: None)
        self._spent: Counter[tuple[str, int]] = Counter()
        self._counts: Counter[tuple[str, int]] = Counter()
        self.failures: dict[str, TaskFailure] = {}

    @property
    def spent(self) -> Mapping[tuple[str, int], int]:
        """The epochs that were trained, by family and by the epoch at the end of the rung.

        Those of earlier sessions are counted too, each epoch once.
        """
        return MappingProxyType(self._spent)

    @property
    def counts(self) -> Mapping[tuple[str, int], int]:
        """The candidates that were trained, by family and by the epoch at the end of the rung."""
        return MappingProxyType(self._counts)

    def train(self, parts: Sequence[Part]) -> list[Outcome]:
        """The results of parts, in their order.

        A candidate whose result cannot be written drops out, and the others go on. It is not
        stored as tried, so a later call of the same search makes it.

        Args:
            parts: What is to be trained.

        Raises:
            DiskError: If none of the results could be written: the disk is full.
        """
        outcomes = [self._load(part.task.plan.name, part.task.end) for part in parts]
        for part, outcome in zip(parts, outcomes, strict=True):
            if outcome is not None:
                self._watch(part.task, outcome)
        missing = [number for number, outcome in enumerate(outcomes) if outcome is None]
        tasks = [self._with_state(parts[number]) for number in missing]

        def done(index: int, outcome: Outcome) -> None:
            kept = self._stored(tasks[index], outcome)
            outcomes[missing[index]] = kept
            self._watch(tasks[index], kept)

        if tasks:
            self._executor.run(self._run, self.shared, tasks, done)
        found = [outcome for outcome in outcomes if outcome is not None]
        refused = [error for one in found if (error := _refused(one))]
        if refused and len(refused) == len(found):
            raise refused[0]
        for part, outcome in zip(parts, found, strict=True):
            self._count(part.task, outcome)
        return found

    def _stored(self, task: RungTask, outcome: Outcome) -> Outcome:
        """The outcome, stored; a failure that is not stored, if the disk refuses it."""
        if _refused(outcome):
            return outcome
        try:
            self._store(task.plan.name, task.end, outcome)
        except DiskError as error:
            return TaskFailure(error, type(error).__name__)
        return outcome

    def _with_state(self, part: Part) -> RungTask:
        task = part.task
        if task.begin == 0:
            return task
        before = self._load(part.source or task.plan.name, task.begin)
        if not isinstance(before, RungResult) or before.state is None:
            raise WorkError(
                f"The state of candidate '{task.plan.name}' after epoch {task.begin} is gone: run "
                "the search again into a new folder."
            )
        return replace(task, state=before.state)

    def _count(self, task: RungTask, outcome: Outcome) -> None:
        self._spent[task.plan.family, task.end] += task.end - task.begin
        self._counts[task.plan.family, task.end] += 1
        if isinstance(outcome, TaskFailure):
            self.failures[task.plan.name] = outcome


def _refused(outcome: Outcome) -> DiskError | None:
    """The error, if the disk refused what belongs to a result."""
    error = outcome.error if isinstance(outcome, TaskFailure) else None
    return error if isinstance(error, DiskError) else None
