"""`saikei resolve` on a folder with a library and the original."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from saikei.cli import main
from saikei.costs import profile
from saikei.edits import Recipe
from saikei.modelfile import load_model, save_model
from tests.search.propose.small import library, network


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    stored = folder / "libraries" / "original"
    stored.mkdir(parents=True)
    library().save(stored)
    place = folder / "candidates" / "original"
    place.mkdir(parents=True)
    save_model(network(), place / "model.keras")
    return folder


def test_a_model_and_its_recipe_are_written_within_the_budget(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.keras"
    assert main(["resolve", str(run), "--macs", "0.3", "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["trained"] is False and printed["options"]
    made = profile(load_model(out), latency=False)
    assert made.macs == printed["after"]["macs"] <= 0.3 * printed["before"]["macs"]
    recipe = Recipe.from_json((tmp_path / "small.json").read_text())
    assert profile(recipe(network()), latency=False).macs == made.macs
    assert main(["resolve", str(run), "--bytes", "0.5", "--out", str(out), "--overwrite"]) == 0
    shown = capsys.readouterr().out
    assert "not trained" in shown and "not refitted" in shown and "bytes of weights" in shown


def test_an_original_within_the_budget_is_written_as_it_is(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "same.keras"
    assert main(["resolve", str(run), "--macs", "1.0", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "nothing is changed" in shown and "not trained" not in shown
    for ours, theirs in zip(load_model(out).weights, network().weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--macs", "1e-4"), "macs can be brought down to"),
        (("--macs", "0.5", "--latency-batch", "1"), "no effect without --latency"),
        ((), "No budget is given"),
        (("--latency", "fast"), "write a share (0.5) or milliseconds (3.5, '0.5 ms')"),
        (("--latency", "fast ms"), "give it with its unit"),
        (("--latency", "1e-6 ms"), "latency can be brought down to"),
    ],
)
def test_what_cannot_be_resolved_is_refused_in_a_sentence(
    options: tuple[str, ...],
    message: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["resolve", str(run), *options, "--out", str(tmp_path / "a.keras")])
    assert code == 2 and message in " ".join(capsys.readouterr().err.split())


def test_a_folder_without_a_library_or_with_several_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "a.keras")
    assert main(["resolve", str(tmp_path), "--macs", "0.5", "--out", out]) == 2
    assert "holds no library of options" in capsys.readouterr().err
    for name in ("original-1", "original-2"):
        (tmp_path / "libraries" / name).mkdir(parents=True)
        library().save(tmp_path / "libraries" / name)
    assert main(["resolve", str(tmp_path), "--macs", "0.5", "--out", out]) == 2
    assert "give --original with one of original-1, original-2" in capsys.readouterr().err
    other = ["--original", "third"]
    assert main(["resolve", str(run), "--macs", "0.5", "--out", out, *other]) == 2
    assert "--original third: give --original with one of original." in capsys.readouterr().err
