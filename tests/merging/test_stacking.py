"""Blocks of checkpoints are stacked: their tensors are copied bit by bit under new numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from typer.testing import CliRunner

from saikei.errors import FusionError, SaikeiError
from saikei.merging import files, stack_blocks
from tests.merging.test_merge_files import write_safetensors


def checkpoint(path: Path, seed: int, blocks: int = 4, width: int = 5) -> Path:
    """A folder with one shard for each half of the network, and a config."""
    generator = np.random.default_rng(seed)
    names = [
        "model.embed.weight",
        *(f"model.layers.{n}.{part}" for n in range(blocks) for part in ("mlp.weight", "norm")),
        "vision.layers.0.weight",
    ]
    path.mkdir()
    where = {}
    for shard, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :])):
        arrays = {n: generator.standard_normal((3, width)).astype("float32") for n in part}
        write_safetensors(path / f"{shard}.safetensors", arrays)
        where |= dict.fromkeys(part, f"{shard}.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (path / "config.json").write_text(json.dumps({"num_hidden_layers": blocks, "width": blocks}))
    return path


def read(path: Path) -> dict[str, np.ndarray]:
    with files.open_store(path) as store:
        return {name: np.array(store.array(name)) for name in store.entries}


def test_blocks_get_new_numbers_and_the_rest_is_the_first_ones(tmp_path: Path) -> None:
    a, b = checkpoint(tmp_path / "a", 1), checkpoint(tmp_path / "b", 2, blocks=6)
    made = stack_blocks([(a, 0, 3), (b, 2, 6), (a, 3, 4)], tmp_path / "out")
    found, first, second = read(made.path), read(a), read(b)
    expected = {name: array for name, array in first.items() if "model.layers" not in name}
    blocks = [(first, 0), (first, 1), (first, 2), *((second, n) for n in range(2, 6)), (first, 3)]
    for number, (of, block) in enumerate(blocks):
        for part in ("mlp.weight", "norm"):
            expected[f"model.layers.{number}.{part}"] = of[f"model.layers.{block}.{part}"]
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    config = json.loads((made.path / "config.json").read_text())
    assert config == {"num_hidden_layers": 8, "width": 4}
    index = json.loads((made.path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == made.nbytes


def test_new_shards_are_small_enough_and_of_the_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saikei.merging.files.sharded._SHARD", 100)
    a = checkpoint(tmp_path / "a", 1)
    made = stack_blocks([(a, 0, 4), (a, 0, 4)], tmp_path / "out", dtype="bfloat16")
    shards = sorted(made.path.glob("*.safetensors"))
    assert shards[0].name == f"model-00001-of-{len(shards):05}.safetensors"
    assert all(file.stat().st_size < 600 for file in shards) and len(shards) > 4
    for name, array in read(made.path).items():
        assert array.dtype == ml_dtypes.bfloat16, name


def test_the_command_line_stacks_files(tmp_path: Path) -> None:
    from saikei.cli.app import app

    a = checkpoint(tmp_path / "a", 1)
    typed = ["merge", str(a), str(a), "--blocks", "0:3", "--blocks", "1:4"]
    run = CliRunner().invoke(app, [*typed, "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    stack_blocks([(a, 0, 3), (a, 1, 4)], tmp_path / "same")
    for file in (tmp_path / "same").iterdir():
        assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes()
    for blocks in (["--blocks", "0:3"], ["--blocks", "0-3", "--blocks", "1:4"]):
        run = CliRunner().invoke(
            app, ["merge", str(a), str(a), *blocks, "--out", str(tmp_path / "no")]
        )
        assert run.exit_code != 0 and not (tmp_path / "no").exists()


def test_blocks_that_do_not_exist_or_fit_are_refused(tmp_path: Path) -> None:
    a, wide = checkpoint(tmp_path / "a", 1), checkpoint(tmp_path / "wide", 2, width=6)
    write_safetensors(tmp_path / "none.safetensors", {"k": np.ones((2, 2), np.float32)})
    none = tmp_path / "none.safetensors"
    cases: list[tuple[Any, Any, str]] = [
        ([], {}, "give triples"),
        ([(a, 0)], {}, "give triples"),
        ([(a, 2, 9)], {}, "Blocks 2 to 9 of.*it has 4"),
        ([(a, 2, 2)], {}, "Blocks 2 to 2"),
        ([(a, 0, 2), (wide, 2, 4)], {}, r"shape \(3, 6\).*one width"),
        ([(a, 0, 2)], {"prefix": "h."}, r"begins with 'h\.'"),
        ([(none, 0, 1)], {"out": tmp_path / "o.safetensors"}, "No tensor of.*number of a block"),
        ([(tmp_path / "x.keras", 0, 1)], {"out": tmp_path / "o.keras"}, "cannot be stacked"),
    ]
    for slices, arguments, message in cases:
        with pytest.raises(SaikeiError, match=message) as raised:
            stack_blocks(slices, **{"out": tmp_path / "out", **arguments})
        assert isinstance(raised.value, FusionError)
    assert not (tmp_path / "out").exists()
