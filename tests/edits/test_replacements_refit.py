"""With data, replaced activations, kernels and pooling are made up for by the layers behind."""

import keras
import numpy as np
import pytest

from saikei import ReplaceActivation, ReplaceKernel, ReplacePooling
from saikei.edits import Edit

layers = keras.layers


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((12, 12, 2))
    y = layers.Conv2D(8, 5, padding="same", activation="relu")(x)
    y = layers.MaxPooling2D()(y)
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(y)
    y = layers.Flatten()(layers.AveragePooling2D(2)(y))
    return keras.Model(x, layers.Dense(4)(layers.Dense(12, activation="relu")(y)))


@pytest.mark.parametrize(
    ("edit", "arguments"),
    [
        (ReplaceActivation, {"old": "relu", "new": "elu"}),
        (ReplaceActivation, {"old": "relu", "new": "prelu", "alpha": 0.3}),
        (ReplaceKernel, {"old": 5, "new": 3}),
        (ReplacePooling, {"new": "average", "old": "max"}),
    ],
)
def test_the_refit_comes_closer_on_samples_that_it_has_not_seen(
    model: keras.Model, edit: type[Edit], arguments: dict[str, object]
) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((600, 12, 12, 2)).astype("float32")
    seen, unseen = x[:400], x[400:]
    wanted = keras.ops.convert_to_numpy(model(unseen, training=False))
    errors = []
    for compensate in (False, True):
        value = edit(**arguments, compensate=compensate)
        edited = value(model, (seen, np.zeros(len(seen))))
        found = keras.ops.convert_to_numpy(edited(unseen, training=False))
        errors.append(float(np.square(found - wanted).mean()))
    assert errors[1] < 0.8 * errors[0]
