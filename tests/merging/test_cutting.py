"""A checkpoint is cut tensor by tensor: silent channels go, and all that reads them goes along."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saikei.errors import FusionError
from saikei.merging import cut_checkpoint
from tests.merging.test_merge_files import write_safetensors
from tests.merging.test_stacking import read

WIDTH, INNER, HEADS, KEYS, SIZE = 12, 10, 6, 3, 2
CONFIG = {
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEYS,
}
# Of each block, the feed-forward channels and the head of keys and values that are silent.
SILENT = {0: ([1, 2, 7], 1), 1: ([0, 8, 9], 2)}


def llama(path: Path) -> dict[str, np.ndarray]:
    """Two blocks in two shards, with channels whose outputs have no weight."""
    generator = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (20, WIDTH)}
    for block in SILENT:
        at = f"model.layers.{block}."
        shapes |= {at + f"mlp.{part}_proj.weight": (INNER, WIDTH) for part in ("gate", "up")}
        shapes |= {at + "mlp.down_proj.weight": (WIDTH, INNER), at + "norm.weight": (WIDTH,)}
        shapes |= {at + "self_attn.q_proj.weight": (HEADS * SIZE, WIDTH)}
        for part in ("k", "v"):
            shapes |= {at + f"self_attn.{part}_proj.weight": (KEYS * SIZE, WIDTH)}
            shapes |= {at + f"self_attn.{part}_proj.bias": (KEYS * SIZE,)}
        shapes |= {at + "self_attn.o_proj.weight": (WIDTH, HEADS * SIZE)}
    arrays = {n: generator.standard_normal(s).astype("float32") for n, s in shapes.items()}
    for block, (channels, head) in SILENT.items():
        arrays[f"model.layers.{block}.mlp.down_proj.weight"][:, channels] = 0
        queries = HEADS // KEYS * SIZE
        arrays[f"model.layers.{block}.self_attn.o_proj.weight"][
            :, head * queries : (head + 1) * queries
        ] = 0
    path.mkdir()
    names = list(arrays)
    where = {name: f"{number * 2 // len(names)}.safetensors" for number, name in enumerate(names)}
    for shard in set(where.values()):
        write_safetensors(path / shard, {n: a for n, a in arrays.items() if where[n] == shard})
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (path / "config.json").write_text(json.dumps({**CONFIG, "model_type": "llama"}))
    return arrays


def test_silent_channels_go_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    before = llama(tmp_path / "in")
    made = cut_checkpoint(tmp_path / "in", tmp_path / "out", feed_forward=0.7, heads=2)
    after = read(made.path)
    assert after.keys() == before.keys()
    for block, (silent, head) in SILENT.items():
        inner = np.setdiff1d(np.arange(INNER), silent)
        keys = np.setdiff1d(np.arange(KEYS * SIZE), np.arange(SIZE) + head * SIZE)
        each = HEADS // KEYS * SIZE
        queries = np.setdiff1d(np.arange(HEADS * SIZE), np.arange(each) + head * each)
        for name, old in before.items():
            if not name.startswith(f"model.layers.{block}."):
                continue
            part = name.split(".")[-2]
            kept = {"gate_proj": inner, "up_proj": inner, "q_proj": queries, "k_proj": keys}
            kept |= {"v_proj": keys, "down_proj": inner, "o_proj": queries}
            axis = 1 if part in ("down_proj", "o_proj") else 0
            wanted = np.take(old, kept[part], axis) if part in kept else old
            np.testing.assert_array_equal(after[name], wanted, err_msg=name)
    config = json.loads((made.path / "config.json").read_text())
    sizes = {"intermediate_size": 7, "num_attention_heads": 4, "num_key_value_heads": 2}
    assert config == {**CONFIG, **sizes, "head_dim": SIZE, "model_type": "llama"}
    index = json.loads((made.path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == made.nbytes


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({}, {}, "Nothing would be cut"),
        ({"feed_forward": 1.5}, {}, "feed_forward=1.5: give a share"),
        ({"heads": 4}, {}, "from 1 to 3"),
        ({"heads": 0.5}, {"hidden_size": None}, "hidden_size"),
        ({"feed_forward": 0.5}, {"intermediate_size": 7}, "another network"),
        ({"width": 0.5}, {"hidden_size": 7}, "goes with a width of 7"),
        ({"width": 0.5}, {"model_type": "gemma2"}, "root of its width"),
    ],
)
def test_what_cannot_be_cut_is_refused(
    tmp_path: Path, options: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    llama(tmp_path / "in")
    config = {k: v for k, v in {**CONFIG, **change}.items() if v is not None}
    (tmp_path / "in" / "config.json").write_text(json.dumps(config))
    with pytest.raises(FusionError, match=message):
        cut_checkpoint(tmp_path / "in", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


PROGRAM = """
import json, struct, sys
from pathlib import Path
from saikei.merging import cut_checkpoint

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

folder, inner, width = Path(sys.argv[1]), 8192, 2048
folder.mkdir()
shapes = {"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner)}
size, header = 2 * inner * width, {}
for block in range(8):
    for part, shape in shapes.items():
        at = size * len(header)
        header[f"model.layers.{block}.mlp.{part}.weight"] = {
            "dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]
        }
text = json.dumps(header).encode()
with (folder / "model.safetensors").open("wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    file.truncate(8 + len(text) + size * len(header))
config = {"hidden_size": width, "intermediate_size": inner, "num_attention_heads": 16}
(folder / "config.json").write_text(json.dumps(config))
before = peak()
made = cut_checkpoint(folder, folder.with_name("out"), feed_forward=0.5)
print(json.dumps({"file": size * len(header), "made": made.nbytes, "took": peak() - before}))
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's process status")
def test_a_checkpoint_takes_the_memory_of_a_few_tensors(tmp_path: Path) -> None:
    """The file of 768 MiB has holes for numbers; a tensor has 32 MiB."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "in")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    assert found["made"] == found["file"] // 2
    assert found["took"] < found["file"] // 4
