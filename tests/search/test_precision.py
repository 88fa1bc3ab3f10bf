"""int8 versions compete where bytes are limited, and what is shipped is what was scored."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import saikei as sk
from saikei.exporting import int8_available
from saikei.exporting.runtimes import open_litert
from tests.search.small import LEAST, convolutional, data, search

pytestmark = pytest.mark.skipif(not int8_available(), reason="int8 files need ai-edge-quantizer")


@pytest.mark.long
def test_a_limit_on_bytes_ships_an_int8_version_that_was_scored_as_it_runs(tmp_path: Path) -> None:
    model = convolutional()
    changes = {**LEAST, "methods": ["prune", "quantize"], "effort": 6}
    result = search(model, tmp_path / "run", budget=sk.Budget(bytes=0.55), **changes)
    quantized = [c for c in result.candidates if c.kind == "quantized"]
    assert quantized
    for c in quantized:
        assert c.cost.bytes <= 0.55 * result.baseline.cost.bytes
        place = tmp_path / "run" / "candidates" / c.name
        loaded = keras.saving.load_model(place / "model.keras")
        file = place / "model.tflite"
        x, y = data().validation
        outputs = open_litert(file, loaded)(x)[0] if file.exists() else loaded.predict(x, verbose=0)
        assert (outputs.argmax(1) == y).mean() == pytest.approx(c.validation.value)
        if file.exists():
            assert c.cost.bytes == file.stat().st_size
    account = next(m for m in result.run.methods if m.name == "quantize")
    assert account.tried == len(quantized)
    if result.chosen.name.endswith("litert"):
        assert result.int8_file is not None


@pytest.mark.long
def test_a_limit_on_bytes_is_kept_where_int8_does_not_reach(tmp_path: Path) -> None:
    """Recurrent layers stay in float: a structure that is small enough itself is trained."""
    rng = np.random.default_rng(0)
    x = rng.integers(1, 20, size=(90, 6))
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Embedding(20, 8, mask_zero=True),
            layers.LSTM(12, return_sequences=True),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    changes = {**LEAST, "methods": ["prune", "quantize"], "train": (x[:50], x[:50] % 3)}
    changes |= {"validation": (x[50:], x[50:] % 3), "test": None}
    result = search(model, tmp_path / "run", budget=sk.Budget(bytes=0.6), **changes)
    assert sk.profile(result.best).bytes <= 0.6 * sk.profile(model).bytes
