"""One real search, shared by the tests that look at what it left."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from saikei.search import Result
from tests.search.small import convolutional, search, state_of


class Finished:
    """A finished search with what went in.

    Args:
        file: of the given model.
        folder: of the run.
    """

    def __init__(self, file: Path, folder: Path) -> None:
        self.file = file
        self.folder = folder
        self.model: keras.Model = keras.saving.load_model(file)
        self.before = state_of(self.model)
        self.result: Result = search(self.model, folder)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    path = tmp_path_factory.mktemp("search")
    convolutional().save(path / "model.keras")
    return Finished(path / "model.keras", path / "run")
