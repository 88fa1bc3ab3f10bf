"""What a search ships is compiled as the given model is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from saikei.graph import copy_model
from saikei.search.folder import RunFolder, compiled_like


def own_loss(truth: Any, predicted: Any) -> Any:
    return keras.ops.mean((truth - predicted) ** 2, axis=-1)


@pytest.mark.parametrize("own", [False, True])
def test_the_shipped_file_has_the_loss_of_the_original(own: bool, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    original = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=0)
    original.compile(keras.optimizers.Adam(0.02), own_loss if own else loss)
    folder = RunFolder(tmp_path, {})
    candidate: Any = SimpleNamespace(name="cut")
    (folder.candidates / candidate.name).mkdir(parents=True)
    copy_model(original).save(folder.candidates / "cut" / "model.keras")
    folder.promote("cut", [original])
    # A loss that no file can name is left out of it, so that it loads anywhere.
    shipped = keras.saving.load_model(folder.best)
    assert shipped.compiled is not own
    best = compiled_like([original], folder.load(folder.best))
    x, y = np.ones((6, 4), "float32"), np.array([0, 1, 2, 0, 1, 2])
    if not own:
        assert float(shipped.optimizer.learning_rate) == pytest.approx(0.02)
        best_loss, file_loss, expected = (
            one.evaluate(x, y, verbose=0) for one in (best, shipped, original)
        )
        assert best_loss == pytest.approx(expected) == file_loss
    assert best.loss is not None
