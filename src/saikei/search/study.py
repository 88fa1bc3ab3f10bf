"""The study: which points were tried and what came of them, in a file that survives a kill."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection

from saikei.errors import DiskError, in_one_line
from saikei.search.plan import derived_seed
from saikei.search.space import Point
from saikei.writing import refused_by_disk, remove

# Points that the sampler draws at random before it models anything.
STARTUP_TRIALS = 6
# The metric, turned so that more is better, and the cost.
_DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)


class Study:
    """Asks Optuna for points and stores what they were worth.

    Each point is asked of a sampler with a seed of its own and a copy of the finished trials:
    the n-th point then depends on the seed and the first n results alone, so a resumed search
    draws what an uninterrupted one would. Only finished trials are written, so a kill leaves
    none half done. The file is SQLite: it rolls a torn write back by itself, where Optuna's
    journal keeps a broken last line and waits for the dead process's lock.

    Args:
        path: of the SQLite file; made when missing.
        distributions: what to vary.
        first: points to try before the sampler draws.
        seed: of the sampler.

    Raises:
        DiskError: when the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        distributions: Mapping[str, BaseDistribution],
        first: Sequence[Point],
        seed: int,
    ) -> None:
        self._distributions = dict(distributions)
        self._first = tuple(first)
        self._seed = seed
        self._path = path
        try:
            self._open()
        # What is in the file decides what is raised. The points of a study and what they are
        # worth follow from its seed and the candidates: a new one comes to be the same.
        except Exception:  # noqa: BLE001
            # What could not be opened need not be closed.
            with contextlib.suppress(Exception):
                self.close()
            with refused_by_disk(path):
                for part in path.parent.glob(f"{path.name}*"):
                    remove(part)
            with self._refused():
                self._open()

    def _open(self) -> None:
        with _quiet():
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{self._path}")
            self._stored = optuna.create_study(
                storage=self._storage,
                study_name="saikei",
                directions=_DIRECTIONS,
                load_if_exists=True,
            )
        if self._stored.directions != list(_DIRECTIONS):
            raise ValueError("The study has other goals.")
        for trial in self._stored.get_trials(deepcopy=False):
            _check(trial)

    @contextmanager
    def _refused(self) -> Iterator[None]:
        """What the disk refuses, SQLite wraps in errors of its own."""
        try:
            yield
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            reason = in_one_line(error.__cause__ or error)
            raise DiskError(
                f"'{self._path}' cannot be written ({reason}): make room, or write elsewhere."
            ) from error

    def close(self) -> None:
        """Let go of the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @property
    def count(self) -> int:
        """How many trials are finished."""
        return len(self._stored.get_trials(deepcopy=False))

    def ask(self, number: int) -> Point:
        """The point of a trial: the stored one of a finished trial, else a new one.

        Args:
            number: of the trial, at most `count`.
        """
        stored = self._stored.get_trials(deepcopy=False)
        if number < len(stored):
            return Point(**stored[number].params)
        with _quiet():
            scratch = optuna.create_study(
                directions=_DIRECTIONS,
                sampler=optuna.samplers.TPESampler(
                    seed=derived_seed(self._seed, number), n_startup_trials=STARTUP_TRIALS
                ),
            )
            scratch.add_trials(stored)
            if number < len(self._first):
                scratch.enqueue_trial(self._first[number].to_dict())
            return Point(**scratch.ask(self._distributions).params)

    def notes(self, number: int) -> Mapping[str, str]:
        """What was noted of a trial; nothing where it is not finished."""
        stored = self._stored.get_trials(deepcopy=False)
        return stored[number].user_attrs if number < len(stored) else {}

    def tell(
        self, point: Point, result: tuple[float, float] | None, notes: Mapping[str, str]
    ) -> None:
        """Store a point's result.

        Args:
            point: that was asked.
            result: goodness of the best of its candidates, and its cost; `None` when the
                point cannot be reached.
            notes: kept with the trial; Optuna's dashboard shows them beside it.
        """
        state = optuna.trial.TrialState.FAIL if result is None else optuna.trial.TrialState.COMPLETE
        with _quiet(), self._refused():
            self._stored.add_trial(
                optuna.trial.create_trial(
                    state=state,
                    params=point.to_dict(),
                    distributions=self._distributions,
                    values=None if result is None else list(result),
                    user_attrs=dict(notes),
                )
            )


def _check(trial: optuna.trial.FrozenTrial) -> None:
    """Refuse a trial that this program did not write."""
    Point(**trial.params)
    if trial.state not in (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL):
        raise ValueError("A trial is not finished.")
    if not all(isinstance(note, str) for note in trial.user_attrs.values()):
        raise ValueError("A note of a trial is no text.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's notes on every trial out of the progress display, here only."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
