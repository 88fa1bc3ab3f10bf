"""The command line reads and writes presets of KerasHub, and files of its models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from saikei.errors import InputError, ModelError
from saikei.modelfile import load_model, save_model

# Warnings of KerasHub's own imports.
pytestmark = pytest.mark.filterwarnings("ignore")
pytest.importorskip("keras_hub", reason="needs the extra 'kerashub'")
from tests.hub.small_tasks import M, made  # noqa: E402


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("presets") / "gpt2"
    task = made("gpt2")
    save_model(task, path)
    task.save(path.with_suffix(".keras"))
    return path


@pytest.mark.parametrize("ending", ["", ".keras"])
def test_a_task_is_edited_on_the_command_line(preset: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"small{ending}"
    command = [sys.executable, "-m", "saikei.cli", "edit", str(preset.with_suffix(ending))]
    options = ["--out", str(out), "--keep", "0.5", "--scope", "uniform"]
    run = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    small = load_model(out)
    assert isinstance(small, M.GPT2CausalLM) and small.backbone.hidden_dim == 8
    assert small.generate("the thin", max_length=12).startswith("the thin")


def test_an_incomplete_preset_is_refused_in_one_line(preset: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.weights.h5"):
        broken = tmp_path / name.partition(".")[0]
        broken.mkdir()
        for file in preset.iterdir():
            if file.is_file() and file.name != name:
                (broken / file.name).write_bytes(file.read_bytes())
        with pytest.raises(ModelError, match=name):
            load_model(broken)
    index = '{"weight_map": {"a": ["model_00000.weights.h5"]}}'
    (tmp_path / "model" / "model.weights.json").write_text(index)
    with pytest.raises(ModelError, match=r"names 'model_00000.weights.h5', which is missing"):
        load_model(tmp_path / "model")


def test_a_preset_holds_the_same_numbers_and_a_plain_model_is_no_preset(
    preset: Path, tmp_path: Path
) -> None:
    import keras

    for ours, theirs in zip(
        load_model(preset).get_weights(), made("gpt2").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(InputError, match=r"no task of KerasHub.*small\.keras"):
        save_model(plain, tmp_path / "small")
