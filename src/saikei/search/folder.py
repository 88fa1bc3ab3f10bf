"""The run folder: what is in it, and how it is written so that a kill leaves nothing half done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from saikei.errors import InputError
from saikei.graph import copy_model
from saikei.search.codec import from_jsonable, to_jsonable
from saikei.search.judge import Outputs
from saikei.search.record import Candidate
from saikei.writing import DRAFT, draft_folder, refused_by_disk, remove, write_text, write_whole

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
        known = self.path / "fingerprint.json"
        if known.is_file():
            _check_same(self.path, json.loads(known.read_text(encoding="utf-8")), fingerprint)
        elif self.path.exists() and (not self.path.is_dir() or self._holds_other_things()):
            raise InputError(
                f"'{self.path}' exists and is not the folder of a run: give out= a new or empty "
                "folder."
            )

    def _holds_other_things(self) -> bool:
        # A kill may have left the draft of the fingerprint alone, before anything else.
        return any(not entry.name.startswith(DRAFT) for entry in self.path.iterdir())

    def begin(self, fingerprint: Mapping[str, str]) -> None:
        """Make the folder, or clear what a kill has left half written in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        # First of all: without it, `check` would refuse what a kill leaves here.
        write_text(self.path / "fingerprint.json", json.dumps(dict(fingerprint), indent=1))
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

    def finished(self, name: str, plan: Mapping[str, Any]) -> Candidate | None:
        """A candidate of that plan from an earlier sitting, if it was finished."""
        if not (self.candidates / name / "result.json").is_file():
            return None
        candidate = self.candidate(name)
        return candidate if candidate.plan == to_jsonable(plan) else None

    def candidate(self, name: str) -> Candidate:
        """The record of a finished candidate."""
        result = self.candidates / name / "result.json"
        return from_jsonable(Candidate, json.loads(result.read_text(encoding="utf-8")))

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
        """What a finished candidate says of the validation samples."""
        with np.load(self.candidates / name / "validation.npz", allow_pickle=False) as stored:
            return tuple(stored[key] for key in stored.files)

    def model(self, name: str) -> keras.Model:
        """The model of a finished candidate."""
        return self.load(self.candidates / name / "model.keras")

    def load(self, path: Path) -> keras.Model:
        """A model from a file of this folder; nothing in the file is executed."""
        return keras.saving.load_model(
            path, custom_objects=dict(self.custom), compile=False, safe_mode=True
        )

    def promote(self, name: str) -> None:
        """Make a candidate's model the one to ship."""
        source = self.candidates / name / "model.keras"
        write_whole(self.best, lambda draft: shutil.copyfile(source, draft))


def _check_same(path: Path, known: Mapping[str, str], given: Mapping[str, str]) -> None:
    other = [_WHAT.get(key, key) for key in given if known.get(key) != given[key]]
    if other:
        raise InputError(
            f"'{path}' holds a run with other {' and '.join(other)}: give out= another folder, "
            "or repeat the call that began it."
        )
