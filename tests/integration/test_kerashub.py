"""KerasHub's backbones, small and with random weights: read, cut, built, saved, loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.channels import channel_groups
from saikei.graph import copy_model, read
from saikei.testing import check_cut

# KerasHub's T5 loses a mask and says so; other warnings are of its own imports.
pytestmark = pytest.mark.filterwarnings("ignore")
keras_hub = pytest.importorskip("keras_hub", reason="needs the extra 'kerashub'")
M = keras_hub.models

TEXT = {"vocabulary_size": 40, "num_layers": 2, "hidden_dim": 8, "intermediate_dim": 12}
HEADS = {"num_heads": 2, "max_sequence_length": 12}
GROUPED = {
    "vocabulary_size": 40,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 12,
}

BACKBONES: dict[str, Callable[[], keras.Model]] = {
    "albert": lambda: M.AlbertBackbone(**TEXT, **HEADS, embedding_dim=6),
    "bart": lambda: M.BartBackbone(**TEXT, **HEADS),
    "bert": lambda: M.BertBackbone(**TEXT, **HEADS),
    "gemma": lambda: M.GemmaBackbone(**{**GROUPED, "intermediate_dim": 24}, head_dim=4),
    "gpt2": lambda: M.GPT2Backbone(**TEXT, **HEADS),
    "llama": lambda: M.LlamaBackbone(**GROUPED),
    "mistral": lambda: M.MistralBackbone(**GROUPED),
    "qwen": lambda: M.QwenBackbone(**GROUPED),
    "t5": lambda: M.T5Backbone(**TEXT, num_heads=2),
    "vit": lambda: M.ViTBackbone(
        image_shape=(16, 16, 3),
        patch_size=(4, 4),
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=12,
    ),
    "whisper": lambda: M.WhisperBackbone(
        **TEXT,
        num_heads=2,
        max_encoder_sequence_length=16,
        max_decoder_sequence_length=12,
        num_mels=6,
    ),
    "mobilenet": lambda: M.MobileNetBackbone(
        stackwise_expansion=[[8, 16]],
        stackwise_num_blocks=[2],
        stackwise_num_filters=[[8, 8]],
        stackwise_kernel_size=[[3, 3]],
        stackwise_num_strides=[[2, 1]],
        stackwise_se_ratio=[[None, 0.25]],
        stackwise_activation=[["relu", "hard_swish"]],
        stackwise_padding=[[1, 1]],
        output_num_filters=16,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=16,
        input_num_filters=8,
        image_shape=(32, 32, 3),
    ),
    "resnet": lambda: M.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(16, 16, 3),
    ),
}
# What makes the hidden units of the feed-forward part of a block; two layers where it is gated.
FEED_FORWARD = {
    "gemma": ("ffw_gating", 12),
    "t5": ("input_projector", 12),
    "vit": ("dense_1", 12),
    "mobilenet": ("block_1_0_conv1", 8),
    "resnet": ("stack0_block0_1_conv", 64),
}
QUICK = ("bert", "gemma", "llama", "vit")
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in sorted(BACKBONES)
]


def made(name: str) -> keras.Model:
    model = BACKBONES[name]()
    generator = np.random.default_rng(0)
    for weight in model.weights:
        low, high = (0.5, 1.5) if "variance" in weight.path else (-0.5, 0.5)
        if keras.backend.is_float_dtype(weight.dtype):
            weight.assign(generator.uniform(low, high, weight.shape))
    return model


def batch(model: keras.Model, length: int) -> Any:
    generator = np.random.default_rng(length)

    def array(name: str, tensor: Any) -> np.ndarray:
        shape = (2, *(size or length for size in tensor.shape[1:]))
        if "mask" in name:
            return (np.arange(shape[1]) < [[shape[1]], [shape[1] - 2]]).astype(tensor.dtype)
        if "int" in tensor.dtype:
            return generator.integers(0, 2 if "segment" in name else 40, shape).astype("int32")
        return generator.standard_normal(shape).astype(tensor.dtype)

    if not isinstance(model.input, dict):
        return array("", model.input)
    return {name: array(name, tensor) for name, tensor in model.input.items()}


def predicted(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    outputs = keras.tree.flatten(model(inputs, training=False))
    return [keras.ops.convert_to_numpy(output) for output in outputs]


def difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_is_the_same_function_in_layers_of_keras_alone(name: str) -> None:
    model = made(name)
    twin = copy_model(model)
    for length in (5, 9):
        inputs = batch(model, length)
        assert difference(predicted(twin, inputs), predicted(model, inputs)) <= 1e-6
    assert twin.count_params() == model.count_params()
    kinds = {operation.kind for operation in read(model).operations.values()}
    assert not {kind for kind in kinds if kind.startswith("keras_hub")}


@pytest.mark.parametrize("name", NAMES)
def test_the_hidden_units_of_a_backbones_blocks_can_be_cut(name: str) -> None:
    layer, units = FEED_FORWARD.get(name, ("feedforward_intermediate_dense", 12))
    groups = {group.name: group for group in channel_groups(made(name))}
    group = next(g for g in groups.values() if layer in g.layers_made)
    assert group.size == units and group.free.all(), group.pinned


@pytest.mark.parametrize("name", NAMES)
def test_cutting_silent_channels_of_a_backbone_changes_nothing(name: str) -> None:
    check = check_cut(made(name), share=0.5, readers=True)
    assert check.cut > 0
    assert check.error <= 1e-5


LOAD = """
import json, sys
import keras, keras_hub, numpy as np
errors = {}
for path in sys.argv[1:]:
    model = keras.models.load_model(path)
    data = np.load(path.replace(".keras", ".npz"))
    inputs = {k[2:]: data[k] for k in data.files if k.startswith("x_")}
    inputs = inputs["x"] if set(inputs) == {"x"} else inputs
    outputs = keras.tree.flatten(model.predict(inputs, verbose=0))
    errors[path] = max(
        float(np.abs(y - data[f"y_{i}"]).max() / np.abs(y).max()) for i, y in enumerate(outputs)
    )
assert "saikei" not in sys.modules
print(json.dumps(errors))
"""


@pytest.mark.slow
def test_cut_backbones_load_without_saikei(tmp_path: Path) -> None:
    paths = []
    for name in sorted(BACKBONES):
        model = made(name)
        small = sk.PruneChannels(0.5)(model)
        assert small.count_params() < model.count_params()
        inputs = batch(model, 7)
        path = tmp_path / f"{name}.keras"
        small.save(path)
        named = inputs if isinstance(inputs, dict) else {"x": inputs}
        arrays = {f"x_{key}": value for key, value in named.items()}
        outputs = keras.tree.flatten(small.predict(inputs, verbose=0))
        arrays |= {f"y_{i}": value for i, value in enumerate(outputs)}
        np.savez(tmp_path / f"{name}.npz", **arrays)
        paths.append(str(path))
    run = subprocess.run(
        [sys.executable, "-c", LOAD, *paths], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    errors = json.loads(run.stdout.splitlines()[-1])
    assert len(errors) == len(paths) and max(errors.values()) <= 1e-5
