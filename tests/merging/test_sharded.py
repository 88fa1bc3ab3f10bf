"""Folders of safetensors with an index are merged shard by shard, as one file would be."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from saikei.errors import ModelError
from saikei.merging import files, merge_files
from tests.merging.test_merge_files import write_safetensors

INDEX = "model.safetensors.index.json"


def folder(path: Path, seed: int) -> Path:
    """Two shards, an index, a config, and weights in another form that are not to be copied."""
    first = np.random.default_rng(0).standard_normal((6, 8)).astype("float32")
    other = np.random.default_rng(seed).standard_normal((6, 8)).astype("float32")
    shards = {
        "model-00001-of-00002.safetensors": {"a.kernel": first + other / 9, "a.bias": other[0]},
        "model-00002-of-00002.safetensors": {"b.kernel": first.T - other.T / 9},
    }
    path.mkdir()
    for name, tensors in shards.items():
        write_safetensors(path / name, tensors)
    where = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    (path / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    (path / "config.json").write_text("{}")
    (path / "pytorch_model.bin").write_text("")
    return path


def test_a_merge_of_folders_is_the_mean_in_the_same_shards(tmp_path: Path) -> None:
    paths = [folder(tmp_path / name, seed) for seed, name in enumerate("abc", start=1)]
    made = merge_files([paths[0], paths[1] / INDEX, paths[2]], tmp_path / "out")
    assert made.tensors == 3
    names = sorted(file.name for file in made.path.iterdir())
    assert names == sorted(f.name for f in paths[0].iterdir() if f.suffix != ".bin")
    with files.open_store(made.path) as store:
        for name in ("a.kernel", "a.bias", "b.kernel"):
            each = []
            for path in paths:
                with files.open_store(path) as member:
                    each.append(np.array(member.array(name)))
            np.testing.assert_allclose(store.array(name), np.mean(each, axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda at: (at / "model-00002-of-00002.safetensors").unlink(), "which is missing"),
        (lambda at: (at / INDEX).unlink(), r"0 files \*\.safetensors\.index\.json and 2"),
        (lambda at: (at / INDEX).write_text('{"weight_map": {"a": "../x"}}'), "no weight_map"),
        (
            lambda at: (at / INDEX).write_text(
                (at / INDEX).read_text().replace("a.bias", "c.bias")
            ),
            "has tensor 'c.bias' in 'model-00001-of-00002.safetensors', which does not hold it",
        ),
        (
            lambda at: (at / INDEX).write_text(
                (at / INDEX)
                .read_text()
                .replace('"a.bias": "model-00001-of-00002.safetensors", ', "")
            ),
            "holds tensor 'a.bias', which the index has not there",
        ),
    ],
)
def test_shards_that_do_not_fit_their_index_are_refused(
    tmp_path: Path, change: object, message: str
) -> None:
    paths = [folder(tmp_path / name, seed) for seed, name in enumerate("ab", start=1)]
    change(paths[1])  # type: ignore[operator]
    with pytest.raises(ModelError, match=message):
        merge_files(paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_memory_does_not_grow_with_the_number_of_shards(tmp_path: Path) -> None:
    size, paths = (512, 1024), [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.mkdir()
        where = {}
        for number in range(12):
            kernel = np.random.default_rng(number).standard_normal(size).astype("float32")
            write_safetensors(path / f"{number}.safetensors", {f"k{number}": kernel})
            where[f"k{number}"] = f"{number}.safetensors"
        (path / INDEX).write_text(json.dumps({"weight_map": where}))
    tracemalloc.start()
    merge_files(paths, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # One tensor has 2 MiB, all of one member 24.
    assert peak < 12 * 2**20
