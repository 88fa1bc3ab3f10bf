"""Two real searches, shared by the tests that look at what they left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest

from saikei.search import Result
from tests.search.small import BRIEF, convolutional, search, state_of


class Finished:
    """A finished search with what went in.

    Args:
        file: of the given model.
        folder: of the run.
        arguments: of the search, beside those that all searches here have.
    """

    def __init__(self, file: Path, folder: Path, **arguments: Any) -> None:
        self.file = file
        self.folder = folder
        self.model: keras.Model = keras.saving.load_model(file)
        self.before = state_of(self.model)
        self.result: Result = search(self.model, folder, **arguments)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    path = tmp_path_factory.mktemp("search")
    convolutional().save(path / "model.keras")
    return Finished(path / "model.keras", path / "run")


@pytest.fixture(scope="session")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A search of a few seconds: two structures, and one of them from fresh weights."""
    path = tmp_path_factory.mktemp("brief")
    convolutional().save(path / "model.keras")
    return Finished(path / "model.keras", path / "run", **BRIEF)
