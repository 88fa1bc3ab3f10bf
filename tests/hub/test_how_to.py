"""The page on transformers runs."""

from __future__ import annotations

from pathlib import Path

import pytest

# Warnings of KerasHub's own imports.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
pytest.importorskip("keras_hub", reason="needs the extra 'kerashub'")
from tests.test_docs import run_python_of  # noqa: E402


def test_the_page_on_transformers_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_python_of("docs/how-to/transformers.md")
