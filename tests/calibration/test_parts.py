"""Samples in parts give what all at once give, and take memory for a part of them."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from saikei.calibration import parts, refit
from saikei.calibration.samples import calibration_samples
from saikei.calibration.surviving_outputs import kept_outputs
from saikei.channels import map_channels
from saikei.edits.cut import cut
from saikei.graph import build, read
from saikei.importance.reconstruction import reconstruction
from saikei.testing import random_mask
from tests.calibration.nets import NETS, data_for, made, outputs_of


@pytest.mark.sampled
@pytest.mark.parametrize("name", NETS)
def test_small_parts_fit_and_rank_as_all_samples_at_once_do(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(name)
    data = data_for(model)
    channel_map = map_channels(read(model))
    keep = random_mask(channel_map, 0.4, np.random.default_rng(0))
    edited, kept = cut(channel_map, keep), kept_outputs(channel_map, keep)

    def found() -> list[np.ndarray]:
        samples = calibration_samples(channel_map.graph, data, 64)
        scores = reconstruction(channel_map, np.random.default_rng(0), samples)
        fitted = refit(channel_map.graph, edited, data, kept=kept, samples=64)
        return [scores, *outputs_of(build(fitted), data[0][:16])]

    whole = found()
    monkeypatch.setattr(parts, "KEPT_BYTES", 0)
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    monkeypatch.setattr(parts, "FEWEST", 9)
    for one, other in zip(whole, found(), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3 * np.abs(one).max())


PROGRAM = """
import json, sys
from pathlib import Path
import keras, numpy as np
import saikei as sk

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

L, tokens, length, width = keras.layers, 8000, 64, 64
def model(tokens):
    x = inputs = keras.Input((length,), dtype="int32")
    x = L.Embedding(tokens, width)(x)
    for _ in range(2):
        normal = L.LayerNormalization()(x)
        x = x + L.MultiHeadAttention(4, width // 4)(normal, normal, use_causal_mask=True)
        x = x + L.Dense(width)(L.Dense(4 * width, "gelu")(L.LayerNormalization()(x)))
    return keras.Model(inputs, L.Dense(tokens)(x))

edit = sk.PruneChannels(0.5, scope="uniform")
x = np.random.default_rng(0).integers(0, 16, (128, length))
edit(model(16), x[:8])
large = model(tokens)
found = {"logits": length * tokens * 4}
for count in (32, 32, 128):
    Path("/proc/self/clear_refs").write_text("5")
    edit(large, x[:count])
    found[str(count)] = peak()
print(json.dumps(found))
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's process status")
def test_memory_does_not_grow_with_the_logits_of_all_sequences() -> None:
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout.splitlines()[-1])
    # 96 more sequences have 197 MB of logits.
    assert found["128"] - found["32"] < 32 * found["logits"]
