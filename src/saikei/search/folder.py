"""The folder of a run, written such that a killed process leaves no partial files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from filelock import FileLock, Timeout

from saikei.codec import from_jsonable, to_jsonable
from saikei.errors import InputError, ModelError
from saikei.fusion.members import Members
from saikei.graph import copy_model
from saikei.hub import without_preprocessor
from saikei.modelfile import check_model_file, load_model
from saikei.models import CascadeModel
from saikei.npz import read_arrays
from saikei.reading import holds_json, read_json
from saikei.runs.candidate import Candidate
from saikei.runs.record import Run
from saikei.scoring.labelled import Outputs
from saikei.search.rungs import RungFolder
from saikei.writing import DRAFT, refused_by_disk, remove, write_text, write_whole

LOCK = ".lock"
# The int8 version of a candidate, in its folder.
INT8_FILE = "model.tflite"
_WHAT = {
    "model": "models",
    "data": "data",
    "settings": "settings (budget, methods, effort, training settings, seed)",
    "threads": "number of threads of the backend",
}


@dataclass(frozen=True)
class RunFolder:
    """A folder of one run.

    `candidates/<name>/` holds `model.keras`, `recipe.json`, `validation.npz` (its outputs) and
    `result.json`; `rungs/` the trainings on the way (`RungFolder`) and `libraries/<name>/` the
    measured options of a given model. Beside them are `fingerprint.json`, `study.db`, and at the
    end `run.json`, `front.json`, `best.keras` and `report.html`. Every file or candidate is written
    under another name and renamed when it is complete.

    Args:
        path: Path of the folder.
        custom: Custom layer classes by name, to load the models with.
    """

    path: Path
    custom: Mapping[str, Any]

    def check(self, fingerprint: Mapping[str, str]) -> None:
        """Refuse a folder that belongs to another run, or holds other files.

        Raises:
            InputError: With what differs.
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
        """The fingerprint of the run in the folder, from its file or from the run's record."""
        try:
            known = read_json(self._fingerprint, "The fingerprint of the run")
            return from_jsonable(_Fingerprint, {"parts": known}).parts
        except InputError as error:
            with contextlib.suppress(InputError):
                return Run.load(self.path).fingerprint
            raise InputError(
                f"{error} Without it, it is unknown which run '{self.path}' holds: give out= "
                "another folder."
            ) from error

    def _holds_other_things(self) -> bool:
        # A killed process may have left only the draft of the fingerprint.
        return any(
            entry.name != LOCK and not entry.name.startswith(DRAFT) for entry in self.path.iterdir()
        )

    def begin(self, fingerprint: Mapping[str, str]) -> None:
        """Make the folder, or remove the partial files of a killed process from it.

        Raises:
            DiskError: If the disk is full or refuses it.
        """
        with refused_by_disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            # First, since `check` refuses folders with other files and without it.
            write_text(self._fingerprint, json.dumps(dict(fingerprint), indent=1))
            self.candidates.mkdir(exist_ok=True)
            for entry in _entries(self.path):
                if entry.name.startswith(DRAFT):
                    remove(entry)

    @property
    def candidates(self) -> Path:
        """The folder of the candidates."""
        return self.path / "candidates"

    @property
    def rungs(self) -> RungFolder:
        """The results and states of trainings that are done in parts."""
        return RungFolder(self.path / "rungs")

    def library(self, name: str) -> Path:
        """The folder of the library of a given model.

        Args:
            name: Name of the model.
        """
        return self.path / "libraries" / name

    @property
    def best(self) -> Path:
        """The file of the model to ship."""
        return self.path / "best.keras"

    @property
    def best_int8(self) -> Path:
        """The file to ship where an int8 version was chosen."""
        return self.path / "best.tflite"

    @property
    def record(self) -> Path:
        """The file of the run's record."""
        return self.path / "run.json"

    def finished_run(self, fingerprint: Mapping[str, str]) -> Run | None:
        """The record of this run, if it is finished and its record and model are undamaged."""
        try:
            run = Run.load(self.path)
            check_model_file(self.best)
        except InputError:
            return None
        return run if run.fingerprint == fingerprint else None

    def finished(self, name: str, plan: Mapping[str, Any]) -> Candidate | None:
        """A finished, undamaged candidate of that plan from an earlier session, or `None`.

        Damaged candidates are not used, so that they are made again.
        """
        path = self.candidates / name
        try:
            candidate = self.candidate(name)
            self.outputs(name)
            check_model_file(path / "model.keras")
        except InputError:
            return None
        if candidate.name != name or candidate.plan != to_jsonable(plan):
            return None
        # The record contains the recipe too; the file is for users.
        if candidate.recipe is not None and not holds_json(
            path / "recipe.json", to_jsonable(candidate.recipe)
        ):
            write_text(path / "recipe.json", json.dumps(candidate.recipe, indent=2))
        return candidate

    def candidate(self, name: str) -> Candidate:
        """The record of a finished candidate.

        Raises:
            InputError: If it is damaged.
        """
        result = self.candidates / name / "result.json"
        return from_jsonable(Candidate, read_json(result, "The record of a candidate"))

    def save(
        self,
        candidate: Candidate,
        model: keras.Model | None,
        outputs: Outputs,
        files: Sequence[Path] = (),
    ) -> None:
        """Store a finished candidate, completely or not at all.

        Args:
            candidate: Its record.
            model: Its model; `None` stores no `model.keras`.
            outputs: Its outputs on the validation samples.
            files: Files to copy into its folder, such as an exported model.

        Raises:
            DiskError: If it cannot be written.
        """

        def write(draft: Path) -> None:
            draft.mkdir()
            if model is not None:
                # A copy is not compiled: the file holds the model without optimizer state.
                # A copy of a cascade would run all members on every row.
                kept = model if isinstance(model, CascadeModel) else copy_model(model)
                kept.save(draft / "model.keras")
            if candidate.recipe is not None:
                text = json.dumps(candidate.recipe, indent=2)
                (draft / "recipe.json").write_text(text, encoding="utf-8")
            for file in files:
                shutil.copyfile(file, draft / file.name)
            np.savez(draft / "validation.npz", *outputs)
            text = json.dumps(to_jsonable(candidate), indent=1)
            (draft / "result.json").write_text(text, encoding="utf-8")

        write_whole(self.candidates / candidate.name, write)

    def outputs(self, name: str) -> Outputs:
        """The outputs of a finished candidate on the validation samples.

        Raises:
            DataError: If they are damaged.
        """
        path = self.candidates / name / "validation.npz"
        stored = read_arrays(path, "delete the candidate's folder, and it is made again")
        return tuple(stored.values())

    def model(self, name: str) -> keras.Model:
        """The model of a finished candidate."""
        return self.load(self.candidates / name / "model.keras")

    def load(self, path: Path) -> keras.Model:
        """Load a model from a file of this folder, without executing code in it.

        A task of KerasHub is loaded as a plain model, which takes what its preprocessor makes.
        """
        model: keras.Model = without_preprocessor(load_model(path, self.custom, compiled=False))
        return model

    def promote(self, name: str, originals: Sequence[keras.Model]) -> None:
        """Write a candidate's model to `best.keras`, and its int8 file to `best.tflite`.

        Args:
            name: The name of the candidate.
            originals: The given models; `best.keras` is compiled as they are, where they all have
                the same loss.
        """
        path = self.candidates / name
        model, int8 = path / "model.keras", path / INT8_FILE
        with tempfile.TemporaryDirectory() as drafts:
            shipped = Path(drafts) / "model.keras"
            if not (model.is_file() and self._save_compiled(name, originals, shipped)):
                shipped = model
            for source, target in ((shipped, self.best), (int8, self.best_int8)):
                if source.is_file():
                    write_whole(target, partial(shutil.copyfile, source))
                else:
                    target.unlink(missing_ok=True)

    def replace_best(self, model: keras.Model) -> None:
        """Write a model to `best.keras` that computes the same as the one that is there.

        Args:
            model: The model.
        """
        with tempfile.TemporaryDirectory() as drafts:
            draft = Path(drafts) / "model.keras"
            model.save(draft)
            write_whole(self.best, partial(shutil.copyfile, draft))

    def _save_compiled(self, name: str, originals: Sequence[keras.Model], path: Path) -> bool:
        """Save a candidate compiled as the originals are; false where its file could not be read.

        A loss or metric of the user's own has to be registered for Keras to find it in a file.
        """
        model = compiled_like(originals, self.model(name))
        if not model.compiled:
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model.save(path)
                return bool(load_model(path, self.custom).compiled)
            except (TypeError, ValueError, ModelError):
                return False


def compiled_like(originals: Sequence[keras.Model], model: keras.Model) -> keras.Model:
    """A model of the search, compiled as the given models are, if they all have the same loss."""
    return model if isinstance(model, CascadeModel) else Members.of(originals).compile(model)


@dataclass(frozen=True)
class _Fingerprint:
    parts: Mapping[str, str]


def _check_same(path: Path, known: Mapping[str, str], given: Mapping[str, str]) -> None:
    other = [_WHAT.get(key, key) for key in given if known.get(key) != given[key]]
    if other:
        raise InputError(
            f"'{path}' holds a run with other {' and '.join(other)}: give out= another folder, "
            "or repeat the call that started it."
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes; it is made if it is missing.

    The system releases the lock when the process ends, however it ends. A folder that is still
    empty is removed at the end.

    Args:
        folder: The folder to work in.

    Raises:
        InputError: If another process works in it, or something in it is a symbolic link.
        DiskError: If it cannot be written to.
    """
    with refused_by_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _check_links(folder)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"Another process is running in '{folder}': wait until it ends, or give out= "
                "another folder."
            ) from error
    try:
        yield
    finally:
        # Removed before the release: a process that has opened the file meanwhile notices that it
        # is gone and tries again.
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()
        # `rmdir` removes empty folders only.
        with contextlib.suppress(OSError):
            folder.rmdir()


def _check_links(folder: Path) -> None:
    """Refuse symbolic links: a run makes none, and others could lead outside the folder."""
    for entry in _entries(folder):
        if entry.is_symlink():
            raise InputError(
                f"'{entry}' is a symbolic link, which no run makes: delete it, or give out= "
                "another folder."
            )


def _entries(folder: Path) -> list[Path]:
    """Every file and folder in a folder and below; what links point to is not looked at."""
    return [
        Path(parent) / name
        for parent, folders, files in os.walk(folder)
        for name in (*folders, *files)
    ]
