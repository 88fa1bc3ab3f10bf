"""The command line reads and writes presets of KerasHub, and files of its models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import saikei as sk
from saikei.errors import InputError, ModelError, WorkError
from saikei.exporting import export_family
from saikei.graph import build, read
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


def copied(preset: Path, to: Path) -> Path:
    shutil.copytree(preset, to)
    return to


def test_shards_that_do_not_fit_their_index_are_refused_before_they_are_read(
    tmp_path: Path,
) -> None:
    whole = tmp_path / "whole"
    made("gpt2").save_to_preset(str(whole), max_shard_size=2e-5)
    index = json.loads((whole / "model.weights.json").read_text())
    assert len(list(whole.glob("model_*.weights.h5"))) > 2
    assert type(load_model(whole)) is M.GPT2CausalLM
    part, shard = next(iter(index["weight_map"].items()))
    other = next(name for name in whole.glob("model_*") if name.name not in shard)
    index["weight_map"][part] = [other.name]
    wrong = copied(whole, tmp_path / "wrong")
    (wrong / "model.weights.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=f"{other.name}' holds no weights of '{part}'"):
        load_model(wrong)
    cut = copied(whole, tmp_path / "cut")
    (cut / other.name).write_bytes(other.read_bytes()[:-200])
    with pytest.raises(ModelError, match=f"{other.name}' is no HDF5 file, or a damaged one"):
        load_model(cut)


def test_a_tokenizer_that_is_incomplete_or_has_more_tokens_than_the_embedding_is_refused(
    preset: Path, tmp_path: Path
) -> None:
    broken = copied(preset, tmp_path / "broken")
    (broken / "assets" / "tokenizer" / "merges.txt").unlink()
    with pytest.raises(ModelError, match="tokenizer of preset .* cannot be loaded"):
        load_model(broken)
    fewer = copied(preset, tmp_path / "fewer")
    config = json.loads((fewer / "config.json").read_text())
    config["config"]["vocabulary_size"] = 99
    (fewer / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="has 260 tokens, and the embedding of its backbone 99"):
        load_model(fewer)


@pytest.mark.parametrize("ending", ["", ".keras"])
def test_a_plain_model_is_exported_as_one_of_the_class_of_its_original(
    preset: Path, tmp_path: Path, ending: str
) -> None:
    task = made("gpt2")
    cut = build(sk.PruneChannels(0.5, scope="uniform").apply(read(task)))
    out = tmp_path / f"small{ending}"
    exported = export_family(cut, out, task)
    small = load_model(out)
    assert type(small) is type(task) and small.backbone.hidden_dim == 8
    assert exported.difference <= 1e-5 and "run by Keras" in str(exported)
    # A task needs no original.
    assert type(load_model(export_family(small, tmp_path / "again.keras").path)) is type(task)
    with pytest.raises(InputError, match="--original"):
        export_family(cut, tmp_path / "none.keras")
    uneven = build(sk.PruneChannels(0.6, seed=1, importance="random").apply(read(task)))
    with pytest.raises(WorkError, match="cannot be exported to keras: GPT2CausalLM cannot"):
        export_family(uneven, tmp_path / "uneven.keras", task)
    assert not (tmp_path / "uneven.keras").exists()
