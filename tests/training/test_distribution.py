"""Models that keras.distribution spreads over devices are trained, scored, cut and distilled."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("jax", reason="needs the extra 'jax'")

PROGRAM = """
import warnings; warnings.simplefilter("ignore")
import keras, numpy as np
import saikei as sk

devices = keras.distribution.list_devices()
assert len(devices) == 2
x = np.random.default_rng(0).normal(size=(67, 8)).astype("float32")
data = x, (x.sum(axis=1) > 0).astype("int32")
mesh = keras.distribution.DeviceMesh((1, 2), ("batch", "model"), devices)
layout = keras.distribution.LayoutMap(mesh)
layout["hidden/kernel"] = (None, "model")
for distribution in (
    keras.distribution.DataParallel(devices=devices),
    keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch"),
):
    keras.distribution.set_distribution(distribution)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(16, "relu", name="hidden"), keras.layers.Dense(2, "softmax")]
    model = keras.Sequential([keras.Input((8,)), *layers])
    options = {"epochs": 2, "batch_size": 16, "progress": False, "learning_rate": 0.01}
    history = sk.fit(model, data, data, **options).history
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert sk.evaluate(model, data).n == 67
    small = sk.PruneChannels(0.5)(model, data)
    for one in (model, small):
        kernel = next(w for w in one.weights if w.path.endswith("hidden/kernel"))
        assert len(kernel.value.sharding.device_set) == 2
    sk.distill(small, model, data, data, **options)
    assert keras.distribution.distribution() is distribution
print("done")
"""


@pytest.mark.slow
def test_a_distributed_model_is_trained_cut_and_distilled() -> None:
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip().endswith("done")
