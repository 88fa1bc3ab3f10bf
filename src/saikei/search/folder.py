"""The run folder: what is in it, and how it is written so that a kill leaves nothing half done."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from filelock import FileLock, Timeout

from saikei.codec import from_jsonable, to_jsonable
from saikei.errors import InputError
from saikei.graph import copy_model
from saikei.modelfile import check_model_file, load_model
from saikei.npz import read_arrays
from saikei.reading import holds_json, read_json
from saikei.runs.candidate import Candidate
from saikei.runs.record import Run
from saikei.scoring.labelled import Outputs
from saikei.writing import DRAFT, draft_folder, refused_by_disk, remove, write_text, write_whole

LOCK = ".lock"
_WHAT = {
    "model": "models",
    "data": "data",
    "settings": "settings (budget, trials, epochs, batch size, seed)",
}


@dataclass(frozen=True)
class RunFolder:
    """A folder of one run.

    `candidates/<name>/` holds `model.keras`, `recipe.json`, `validation.npz` (its outputs) and
    `result.json`; beside it stand `fingerprint.json`, `study.db`, and at the end `run.json`,
    `front.json`, `best.keras` and `report.html`. Every file or candidate is written under
    another name and renamed when it is complete.

    Args:
        path: of the folder.
        custom: custom layer classes by name, to load the models with.
    """

    path: Path
    custom: Mapping[str, Any]

    def check(self, fingerprint: Mapping[str, str]) -> None:
        """Refuse a folder that belongs to another run, or holds other things.

        Raises:
            InputError: saying what differs.
        """
        if self._fingerprint.is_file():
            _check_same(self.path, self._known_fingerprint(), fingerprint)
        elif self.path.exists() and (not self.path.is_dir() or self._holds_other_things()):
            raise InputError(
                f"'{self.path}' exists and is not the folder of a run: give out= a new or empty "
                "folder."
            )

    @property
    def _fingerprint(self) -> Path:
        return self.path / "fingerprint.json"

    def _known_fingerprint(self) -> Mapping[str, str]:
        """That of the run which the folder holds; a finished run's record has it too."""
        try:
            known = read_json(self._fingerprint, "The fingerprint of the run")
            return from_jsonable(_Fingerprint, {"parts": known}).parts
        except InputError as error:
            with contextlib.suppress(InputError):
                return Run.load(self.path).fingerprint
            raise InputError(
                f"{error} Without it nobody can tell which run '{self.path}' holds: give out= "
                "another folder."
            ) from error

    def _holds_other_things(self) -> bool:
        # A kill may have left the draft of the fingerprint alone, before anything else.
        return any(
            entry.name != LOCK and not entry.name.startswith(DRAFT) for entry in self.path.iterdir()
        )

    def begin(self, fingerprint: Mapping[str, str]) -> None:
        """Make the folder, or clear what a kill has left half written in it.

        Raises:
            DiskError: when the disk does not take it.
        """
        with refused_by_disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            # First of all: without it, `check` would refuse what a kill leaves here.
            write_text(self._fingerprint, json.dumps(dict(fingerprint), indent=1))
            self.candidates.mkdir(exist_ok=True)
            for draft in (*self.path.glob(f"{DRAFT}*"), *self.candidates.glob(f"{DRAFT}*")):
                remove(draft)

    @property
    def candidates(self) -> Path:
        """Where the candidates are."""
        return self.path / "candidates"

    @property
    def best(self) -> Path:
        """The file of the model to ship."""
        return self.path / "best.keras"

    @property
    def record(self) -> Path:
        """The file of the run's record."""
        return self.path / "run.json"

    def finished_run(self, fingerprint: Mapping[str, str]) -> Run | None:
        """The record of this run, if it was finished, and it and the model to ship are whole."""
        try:
            run = Run.load(self.path)
            check_model_file(self.best)
        except InputError:
            return None
        return run if run.fingerprint == fingerprint else None

    def finished(self, name: str, plan: Mapping[str, Any]) -> Candidate | None:
        """A candidate of that plan from an earlier session, if it was finished and is whole.

        What is damaged is made again: nothing of it is read.
        """
        place = self.candidates / name
        try:
            candidate = self.candidate(name)
            self.outputs(name)
            if candidate.kind != "original":
                check_model_file(place / "model.keras")
        except InputError:
            return None
        if candidate.name != name or candidate.plan != to_jsonable(plan):
            return None
        # It stands in the record too, and is kept beside the model for its reader alone.
        if candidate.recipe is not None and not holds_json(
            place / "recipe.json", to_jsonable(candidate.recipe)
        ):
            write_text(place / "recipe.json", json.dumps(candidate.recipe, indent=2))
        return candidate

    def candidate(self, name: str) -> Candidate:
        """The record of a finished candidate.

        Raises:
            InputError: when it is damaged.
        """
        result = self.candidates / name / "result.json"
        return from_jsonable(Candidate, read_json(result, "The record of a candidate"))

    def save(self, candidate: Candidate, model: keras.Model | None, outputs: Outputs) -> None:
        """Store a finished candidate, all of it or nothing."""
        place = self.candidates / candidate.name
        with refused_by_disk(place), draft_folder(self.candidates) as folder:
            draft = folder / candidate.name
            draft.mkdir()
            if model is not None:
                # A copy is not compiled: the file holds the model, not the state of a training.
                copy_model(model).save(draft / "model.keras")
            if candidate.recipe is not None:
                text = json.dumps(candidate.recipe, indent=2)
                (draft / "recipe.json").write_text(text, encoding="utf-8")
            np.savez(draft / "validation.npz", *outputs)
            text = json.dumps(to_jsonable(candidate), indent=1)
            (draft / "result.json").write_text(text, encoding="utf-8")
            remove(place)
            os.replace(draft, place)

    def outputs(self, name: str) -> Outputs:
        """The outputs of a finished candidate on the validation samples.

        Raises:
            DataError: when they are damaged.
        """
        path = self.candidates / name / "validation.npz"
        stored = read_arrays(path, "delete the candidate's folder, and it is made again")
        return tuple(stored.values())

    def model(self, name: str) -> keras.Model:
        """The model of a finished candidate."""
        return self.load(self.candidates / name / "model.keras")

    def load(self, path: Path) -> keras.Model:
        """A model from a file of this folder; nothing in the file is executed."""
        return load_model(path, self.custom, compiled=False)

    def promote(self, name: str) -> None:
        """Make a candidate's model the one to ship."""
        source = self.candidates / name / "model.keras"
        write_whole(self.best, lambda draft: shutil.copyfile(source, draft))


@dataclass(frozen=True)
class _Fingerprint:
    parts: Mapping[str, str]


def _check_same(path: Path, known: Mapping[str, str], given: Mapping[str, str]) -> None:
    other = [_WHAT.get(key, key) for key in given if known.get(key) != given[key]]
    if other:
        raise InputError(
            f"'{path}' holds a run with other {' and '.join(other)}: give out= another folder, "
            "or repeat the call that began it."
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process out of a folder, which is made if it is missing.

    The system gives the lock back when the process ends, however it ends. A folder in which
    nothing was written is gone at the end.

    Args:
        folder: to work in.

    Raises:
        InputError: when another process works in it, or something in it is a link.
        DiskError: when it cannot be written to.
    """
    with refused_by_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _check_links(folder)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"Another process is at work in '{folder}': wait for its end, or give out= "
                "another folder."
            ) from error
    try:
        yield
    finally:
        # While it is still ours: whoever has opened it meanwhile finds that it is gone, and no
        # longer counts.
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()
        # Nothing was written in a folder that is empty, and only such a one can be removed so.
        with contextlib.suppress(OSError):
            folder.rmdir()


def _check_links(folder: Path) -> None:
    """Nothing is written through a link: a run makes none, and another may lead anywhere."""
    for pattern in ("*", "candidates/*", "candidates/*/*"):
        for entry in folder.glob(pattern):
            if entry.is_symlink():
                raise InputError(
                    f"'{entry}' is a symbolic link, as no run makes: delete it, or give out= "
                    "another folder."
                )
