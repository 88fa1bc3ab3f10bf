"""Files that are not alike are merged by explicit rules, and refused without them."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from typer.testing import CliRunner

from saikei.errors import FusionError
from saikei.merging import Linear, Slerp, TaskArithmetic, files, merge_files
from tests.merging.test_merge_files import write_safetensors

RNG = np.random.default_rng(0)
COMMON = {
    "layers.0.mlp": RNG.standard_normal((6, 8)).astype("float32"),
    "layers.1.mlp": RNG.standard_normal((6, 8)).astype("float32"),
    "embedding": RNG.standard_normal((9, 4)).astype("float32"),
}


def member(path: Path, seed: int, rows: int = 9, dtype: Any = "float32", **more: Any) -> Path:
    """Tensors near the common ones, the embedding with another number of rows."""
    generator = np.random.default_rng(seed)
    tensors = {n: a + generator.standard_normal(a.shape) / 9 for n, a in COMMON.items()}
    extra = generator.standard_normal((9, 4))
    tensors["embedding"] = np.concatenate([tensors["embedding"], extra])[:rows]
    write_safetensors(path, {n: a.astype(dtype) for n, a in {**tensors, **more}.items()})
    return path


def read(path: Path) -> dict[str, np.ndarray]:
    with files.open_store(path) as store:
        return {name: np.array(store.array(name)) for name in store.entries}


def test_each_tensor_may_have_its_own_method(tmp_path: Path) -> None:
    paths = [member(tmp_path / f"{n}.safetensors", n) for n in range(3)]
    a, b, base = (read(path) for path in paths)
    methods = {"layers.0.*": Linear((0.2, 0.8)), "layers.*": "task_arithmetic"}
    made = merge_files(
        paths[:2], tmp_path / "out.safetensors", Slerp(0.3), base=paths[2], methods=methods
    )
    found = read(made.path)
    for name, method in [
        ("layers.0.mlp", Linear((0.2, 0.8))),
        ("layers.1.mlp", TaskArithmetic()),
        ("embedding", Slerp(0.3)),
    ]:
        needed = base[name] if method.needs_base else None
        np.testing.assert_array_equal(
            found[name], method.tensor(name, [a[name], b[name]], needed), err_msg=name
        )
    with pytest.raises(FusionError, match=r"'h\.\*' fits no tensor"):
        merge_files(paths, tmp_path / "no.safetensors", methods={"h.*": "uniform"})


@pytest.mark.parametrize(("rows", "height"), [("first", 7), ("cut", 5), ("pad", 9)])
def test_rows_that_all_have_are_merged_and_the_others_copied(
    tmp_path: Path, rows: Any, height: int
) -> None:
    heights = (7, 5, 9)
    paths = [member(tmp_path / f"{h}.safetensors", h, rows=h) for h in heights]
    with pytest.raises(FusionError, match="'embedding' is float32.*rows='first'"):
        merge_files(paths, tmp_path / "out.safetensors")
    found = read(merge_files(paths, tmp_path / "out.safetensors", rows=rows).path)["embedding"]
    each = [read(path)["embedding"] for path in paths]
    assert found.shape == (height, 4)
    mean = np.mean([e[:5].astype("float64") for e in each], axis=0)
    np.testing.assert_allclose(found[:5], mean, rtol=1e-6)
    np.testing.assert_array_equal(found[5:7], each[0][5:height])
    np.testing.assert_array_equal(found[7:], each[2][7:height])


def test_a_head_that_is_missing_is_kept_or_left_out(tmp_path: Path) -> None:
    head = {"head": np.ones((2, 4))}
    with_head = member(tmp_path / "a.safetensors", 1, **head)
    without = member(tmp_path / "b.safetensors", 2)
    with pytest.raises(FusionError, match="missing='keep'"):
        merge_files([with_head, without], tmp_path / "c.safetensors")
    made = merge_files([with_head, without], tmp_path / "c.safetensors", missing="keep")
    assert made.kept == ("head",)
    np.testing.assert_array_equal(read(made.path)["head"], head["head"])
    made = merge_files([without, with_head], tmp_path / "d.safetensors", missing="keep")
    assert made.kept == () and set(read(made.path)) == set(COMMON)


@pytest.mark.parametrize("method", ["uniform", "slerp", "ties"])
def test_members_of_several_precisions_are_merged_in_a_wider_one(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saikei.merging.streaming._PART", 7)
    base = member(tmp_path / "base.safetensors", 9) if method == "ties" else None
    paths = [
        member(tmp_path / "a.safetensors", 1, dtype=ml_dtypes.bfloat16),
        member(tmp_path / "b.safetensors", 2, dtype="float16"),
    ]
    out = tmp_path / "out.safetensors"
    with pytest.raises(FusionError, match="give dtype="):
        merge_files(paths, out, method, base=base)
    found = read(merge_files(paths, out, method, base=base, dtype="bfloat16").path)
    from saikei.merging.names import NAMED

    for name, array in found.items():
        arrays = [read(path)[name].astype("float32") for path in paths]
        needed = None if base is None else read(base)[name]
        expected = NAMED[method].tensor(name, arrays, needed)  # type: ignore[union-attr]
        assert array.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(array, expected.astype(ml_dtypes.bfloat16))


def test_numbers_too_large_for_the_precision_are_refused(tmp_path: Path) -> None:
    paths = [member(tmp_path / f"{n}.safetensors", n, big=np.full((2,), 1e6)) for n in range(2)]
    with pytest.raises(FusionError, match="'big'.*not finite in float16.*bfloat16"):
        merge_files(paths, tmp_path / "out.safetensors", dtype="float16")


def test_the_command_line_has_the_same_rules(tmp_path: Path) -> None:
    from saikei.cli.app import app

    paths = [
        member(tmp_path / "a.safetensors", 1, rows=7, head=np.ones((2, 4))),
        member(tmp_path / "b.safetensors", 2, dtype="float16"),
    ]
    options = ["--missing", "keep", "--rows", "pad", "--dtype", "float16"]
    tensors = ["--tensors", "layers.*=Linear(weights=(0.2, 0.8))"]
    run = CliRunner().invoke(
        app,
        ["merge", *map(str, paths), "--out", str(tmp_path / "c.safetensors"), *options, *tensors],
    )
    assert run.exit_code == 0, run.output
    merge_files(
        paths,
        tmp_path / "d.safetensors",
        methods={"layers.*": Linear((0.2, 0.8))},
        missing="keep",
        rows="pad",
        dtype="float16",
    )
    assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "d.safetensors").read_bytes()


def sparse_folder(path: Path, tensors: int, shape: tuple[int, int]) -> Path:
    """Shards that take no room on the disk: their numbers, all zero, are holes in the files."""
    path.mkdir()
    size, where = 2 * shape[0] * shape[1], {}
    for shard in range(2):
        names = [f"layers.{n}.kernel" for n in range(shard, tensors, 2)]
        header = json.dumps(
            {
                name: {
                    "dtype": "BF16",
                    "shape": shape,
                    "data_offsets": [at * size, at * size + size],
                }
                for at, name in enumerate(names)
            }
        ).encode()
        file = path / f"model-{shard}.safetensors"
        with file.open("wb") as handle:
            handle.write(struct.pack("<Q", len(header)) + header)
            handle.truncate(8 + len(header) + size * len(names))
        where |= dict.fromkeys(names, file.name)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return path


@pytest.mark.slow
def test_four_large_folders_are_merged_in_little_memory(tmp_path: Path) -> None:
    shape = (4096, 4096)
    paths = [sparse_folder(tmp_path / f"m{n}", 32, shape) for n in range(4)]
    tracemalloc.start()
    made = merge_files(paths, tmp_path / "out", dtype="float16")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Each folder has 1 GiB, each tensor 32 MiB.
    assert made.nbytes == 2**30
    assert peak < 2**28
