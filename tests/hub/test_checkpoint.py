"""The width of a checkpoint is cut as that of the model that is loaded from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import saikei as sk
from saikei.channels import ChannelMap
from saikei.merging import cut_checkpoint
from tests.merging.test_merge_files import write_safetensors
from tests.merging.test_stacking import read

# Warnings of KerasHub's own imports.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
pytest.importorskip("keras_hub", reason="needs the extra 'kerashub'")
from tests.hub.small_tasks import GROUPED, made  # noqa: E402

CONFIG = {
    "hidden_size": GROUPED["hidden_dim"],
    "intermediate_size": GROUPED["intermediate_dim"],
    "num_attention_heads": GROUPED["num_query_heads"],
    "num_key_value_heads": GROUPED["num_key_value_heads"],
    "head_dim": 4,
}


def checkpoint(task: Any) -> dict[str, np.ndarray]:
    """The weights of a Qwen3 of KerasHub as its checkpoints hold them."""
    backbone = task.backbone
    table = backbone.get_layer("token_embedding")
    found = {"embed_tokens": table.embeddings.numpy()}
    if not backbone.tie_word_embeddings:
        found["lm_head"] = table.reverse_embeddings.numpy().T
    for number in range(backbone.num_layers):
        block, at = backbone.get_layer(f"transformer_layer_{number}"), f"layers.{number}."
        attention = block._self_attention_layer
        for part in ("query", "key", "value"):
            kernel = getattr(attention, f"_{part}_dense").kernel.numpy()
            found[f"{at}self_attn.{part[0]}_proj"] = kernel.reshape(len(kernel), -1).T
        output = attention._output_dense.kernel.numpy()
        found[f"{at}self_attn.o_proj"] = output.reshape(-1, output.shape[-1]).T
        for part in ("query", "key"):
            norm = getattr(attention, f"_{part}_dense_layer_norm")
            found[f"{at}self_attn.{part[0]}_norm"] = norm.scale.numpy()
        for part, name in (("gate", "gate"), ("intermediate", "up"), ("output", "down")):
            dense = getattr(block, f"_feedforward_{part}_dense")
            found[f"{at}mlp.{name}_proj"] = dense.kernel.numpy().T
        found[f"{at}input_layernorm"] = block._self_attention_layernorm.scale.numpy()
        found[f"{at}post_attention_layernorm"] = block._feedforward_layernorm.scale.numpy()
    found["norm"] = backbone.get_layer("sequence_output_layernorm").scale.numpy()
    return {f"model.{n}.weight": np.ascontiguousarray(array) for n, array in found.items()}


def squares(channel_map: ChannelMap, *_: Any) -> np.ndarray:
    """The sum of the squares of all weights of each channel."""
    scores = np.zeros(channel_map.count)
    operations = channel_map.graph.operations.values()
    for weight in {w.key: w for op in operations for w in op.weights.values()}.values():
        for axis, labels in enumerate(channel_map.weights.get(weight.key, ())):
            if labels is not None:
                moved = np.moveaxis(np.square(weight.numpy().astype(float)), axis, 0)
                each = moved.reshape(len(moved), -1).sum(axis=1)
                np.add.at(scores, channel_map.channel_of[labels], each)
    return scores


def test_the_width_of_a_checkpoint_is_cut_as_that_of_its_model(tmp_path: Path) -> None:
    task, folder = made("qwen3"), tmp_path / "in"
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", checkpoint(task))
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    out = cut_checkpoint(folder, tmp_path / "out", width=0.5).path
    # The group that passes from block to block.
    group = max(sk.channel_groups(task), key=lambda one: len(one.members))
    edit = sk.PruneChannels(
        0.5, squares, "layer", layers=tuple(group.layers_made), compensate=False
    )
    small = edit(task)
    assert type(small) is type(task) and small.backbone.hidden_dim == 8
    found, expected = read(out), checkpoint(small)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config == {**CONFIG, "hidden_size": 8}
