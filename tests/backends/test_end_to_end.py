"""What the README promises, on whichever backend is in use, from a model to a file of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import saikei as sk
from tests.search.small import data, dense, search, state_of

pytestmark = pytest.mark.backends


def network() -> keras.Model:
    """Convolutions, normalisation, a residual sum and dropout."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(momentum=0.8, name="norm")(x))
    y = layers.Conv2D(12, 3, padding="same", activation="relu", name="branch1")(x)
    y = layers.Conv2D(8, 3, padding="same", name="branch2")(y)
    x = layers.Activation("relu", name="joined")(layers.Add(name="sum")([x, y]))
    x = layers.Conv2D(16, 3, 2, padding="same", activation="relu", name="down")(x)
    x = layers.Dropout(0.1, seed=0, name="drop")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(image, layers.Dense(10, activation="softmax", name="classes")(x), name="net")


def arguments(epochs: int) -> dict[str, object]:
    return {"epochs": epochs, "batch_size": 20, "learning_rate": 0.01, "progress": False}


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    model = network()
    sk.fit(model, data().train, data().validation, **arguments(6))
    return model


LOAD = """
import sys
import keras, numpy as np
sys.modules["saikei"] = None
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
print(keras.backend.backend())
"""


def predicted_elsewhere(model: keras.Model, x: np.ndarray, folder: Path) -> np.ndarray:
    """What a process that cannot import Saikei makes of the model's file."""
    files = [folder / name for name in ("model.keras", "x.npy", "y.npy")]
    model.save(files[0])
    np.save(files[1], x)
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, files)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == keras.backend.backend()
    found: np.ndarray = np.load(files[2])
    return found


# A rate for fresh weights may make the cut one worse, which gives a warning and is undone.
@pytest.mark.filterwarnings("ignore::saikei.errors.TrainingWarning")
@pytest.mark.long
def test_a_model_is_cut_trained_taught_joined_saved_and_used_without_saikei(
    trained: keras.Model, tmp_path: Path
) -> None:
    before, splits = state_of(trained), data()
    small = sk.PruneChannels(0.5, importance="taylor")(trained, splits.train)
    assert small.count_params() < 0.6 * trained.count_params()
    sk.fit(small, splits.train, splits.validation, **arguments(1))
    history = sk.distill(
        small, trained, splits.train, splits.validation, features="auto", **arguments(3)
    ).history
    assert history["loss"][-1] < history["loss"][0]
    fused = sk.Average()([trained, small])
    assert state_of(trained) == before
    x = splits.test[0]
    members = [model.predict(x, verbose=0) for model in (trained, small)]
    assert fused.predict(x, verbose=0) == pytest.approx(np.mean(members, axis=0), abs=1e-5)
    for model in (small, fused):
        # Ten classes: far better than guessing.
        assert sk.evaluate(model, splits.test).value > 0.5
    found = predicted_elsewhere(fused, x, tmp_path)
    assert found == pytest.approx(fused.predict(x, verbose=0), abs=1e-5)


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "hessian"])
def test_channels_are_cut_by_importance_from_weights_and_gradients(
    trained: keras.Model, importance: str
) -> None:
    edit, (x, y) = sk.PruneChannels(0.6, importance=importance), data().train
    first, again = (edit(trained, (x[:64], y[:64])) for _ in range(2))
    assert first.count_params() < trained.count_params()
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.long
def test_the_same_seed_gives_the_same_student(trained: keras.Model) -> None:
    students = [sk.PruneChannels(0.5)(trained) for _ in range(2)]
    x, y = data().train
    for student in students:
        sk.distill(student, trained, (x[:60], y[:60]), features="auto", seed=3, **arguments(2))
    first, again = (student.get_weights() for student in students)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="tests/search is run on TensorFlow"
)
def test_a_search_finds_models_within_the_budget(tmp_path: Path) -> None:
    model = dense()
    sk.fit(model, data().train, epochs=2, progress=False)
    result = search(model, tmp_path / "run", effort=3)
    assert sk.profile(result.best, latency=False).macs <= 0.3 * sk.profile(model).macs
    run = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert f"{keras.backend.backend()} (backend)" in run["versions"]
    again = search(model, tmp_path / "run", effort=3)
    assert again.best.get_config() == result.best.get_config()
