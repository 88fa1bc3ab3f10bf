"""KerasHub's backbones, small and with random weights: read, cut, built, saved, loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.channels import channel_groups
from saikei.graph import copy_model, read
from saikei.testing import check_cut, randomise_statistics

# KerasHub's T5 loses a mask and warns of it; other warnings are of its own imports.
pytestmark = pytest.mark.filterwarnings("ignore")
pytest.importorskip("keras_hub", reason="needs the extra 'kerashub'")
from tests.hub.backbones import BACKBONES, made  # noqa: E402

# What makes the hidden units of the feed-forward part of a block; two layers where it is gated.
FEED_FORWARD = {
    "gemma": ("ffw_gating", 12),
    "gemma3": ("ffw_gating", 24),
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


@pytest.mark.parametrize("name", NAMES)
def test_the_width_of_the_residual_stream_can_be_cut_where_it_is_no_output(name: str) -> None:
    """Normalisations included, which some backbones calculate by themselves from a mean."""
    backbone = made(name)
    outputs = keras.tree.flatten(backbone.output)
    model = keras.Model(backbone.input, [keras.layers.Dense(3)(x) for x in outputs])
    randomise_statistics(model)
    widest = max(channel_groups(model), key=lambda group: len(group.members))
    assert widest.free.all(), widest.pinned
    check = check_cut(model, share=0.5, readers=True)
    assert check.error <= 1e-5 and check.spread > 1e-3
    assert check.cut >= widest.size // 2


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
