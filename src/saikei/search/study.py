"""The study: points that were tried and their results, in a file that survives a kill."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection

from saikei.errors import DiskError, in_one_line
from saikei.search.sizes import derived_seed
from saikei.writing import refused_by_disk, remove

# Points that the sampler draws at random before it models anything.
STARTUP_TRIALS = 6
# The metric, turned so that more is better, and the cost.
_DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)


class Study:
    """Asks Optuna for points and stores their results.

    Each point comes from a sampler with its own seed and a copy of the finished trials: the n-th
    point depends only on the seed and the first n results, so a continued search draws the same
    points as an uninterrupted one. Only finished trials are written. The file is SQLite, which
    rolls an incomplete write back; Optuna's journal would keep a broken last line and wait for
    the lock of the dead process.

    Args:
        path: Path of the SQLite file; made if it is missing. `None` keeps the study in memory.
        distributions: The search space.
        first: Points to try before the sampler draws any.
        seed: Seed of the sampler.

    Raises:
        DiskError: If the file cannot be written.
    """

    def __init__(
        self,
        path: Path | None,
        distributions: Mapping[str, BaseDistribution],
        first: Sequence[Mapping[str, Any]],
        seed: int,
    ) -> None:
        self._distributions = dict(distributions)
        self._first = tuple(first)
        self._seed = seed
        self._path = path
        try:
            self._open()
        # A damaged file may raise anything. Points and results follow from the seed and the
        # candidates, so a new study becomes the same.
        except Exception:
            if path is None:
                raise
            # It may not have been opened.
            with contextlib.suppress(Exception):
                self.close()
            with refused_by_disk(path):
                for part in path.parent.glob(f"{path.name}*"):
                    remove(part)
            with self._refused():
                self._open()

    def _open(self) -> None:
        with _quiet():
            self._storage: optuna.storages.BaseStorage = (
                optuna.storages.InMemoryStorage()
                if self._path is None
                else optuna.storages.RDBStorage(f"sqlite:///{self._path}")
            )
            self._stored = optuna.create_study(
                storage=self._storage,
                study_name="saikei",
                directions=_DIRECTIONS,
                load_if_exists=True,
            )
        if self._stored.directions != list(_DIRECTIONS):
            raise ValueError("The study has other directions.")
        for trial in self._stored.get_trials(deepcopy=False):
            self._check(trial)

    def _check(self, trial: optuna.trial.FrozenTrial) -> None:
        """Refuse a trial that Saikei did not write."""
        if set(trial.params) != set(self._distributions):
            raise ValueError("A trial has other parameters.")
        if trial.state not in (
            optuna.trial.TrialState.COMPLETE,
            optuna.trial.TrialState.FAIL,
        ):
            raise ValueError("A trial is not finished.")
        if not all(isinstance(note, str) for note in trial.user_attrs.values()):
            raise ValueError("A note of a trial is not text.")

    @contextmanager
    def _refused(self) -> Iterator[None]:
        """Turn errors of SQLite about the disk into a `DiskError`."""
        try:
            yield
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            reason = in_one_line(error.__cause__ or error)
            raise DiskError(
                f"'{self._path}' cannot be written ({reason}): make room, or write elsewhere."
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._storage.remove_session()
        if isinstance(self._storage, optuna.storages.RDBStorage):
            self._storage.engine.dispose()

    @property
    def count(self) -> int:
        """Number of finished trials."""
        return len(self._stored.get_trials(deepcopy=False))

    def ask(self, number: int, known: int | None = None) -> dict[str, Any]:
        """The point of a trial: the stored one of a finished trial, otherwise a new one.

        Args:
            number: Number of the trial.
            known: Number of finished trials that a new point depends on; `None` for all.
        """
        stored = self._stored.get_trials(deepcopy=False)
        if number < len(stored):
            return dict(stored[number].params)
        with _quiet():
            scratch = optuna.create_study(
                directions=_DIRECTIONS,
                sampler=optuna.samplers.TPESampler(
                    seed=derived_seed(self._seed, number), n_startup_trials=STARTUP_TRIALS
                ),
            )
            scratch.add_trials(stored[:known])
            if number < len(self._first):
                scratch.enqueue_trial(dict(self._first[number]))
            return dict(scratch.ask(self._distributions).params)

    def tell(
        self,
        point: Mapping[str, Any],
        result: tuple[float, float] | None,
        notes: Mapping[str, str],
    ) -> None:
        """Store the result of a point.

        Args:
            point: A point from `ask`.
            result: Goodness of its best candidate, and the cost of that one; `None` if the point
                cannot be reached.
            notes: Texts to store with the trial; Optuna's dashboard shows them.
        """
        state = optuna.trial.TrialState.FAIL if result is None else optuna.trial.TrialState.COMPLETE
        with _quiet(), self._refused():
            self._stored.add_trial(
                optuna.trial.create_trial(
                    state=state,
                    params=dict(point),
                    distributions=self._distributions,
                    values=None if result is None else list(result),
                    user_attrs=dict(notes),
                )
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Optuna's log messages, which would disturb the progress display."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
