"""Small members for averages of any kind, and averages for them."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers
from scipy import special

from saikei.fusion import Average
from saikei.scoring import infer_task
from saikei.scoring.outputs import read_outputs
from saikei.scoring.score import sample_losses

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 6)).astype("float32")
TABLE = ((0.2, 0.3, 0.5), (0.0, 1.0, 0.0), (0.6, 0.4, 0.0))
AXES = {
    "logit": Average((0.2, 0.3, 0.5), space="logit"),
    "median": Average(how="median"),
    "median-of-logits": Average(how="median", space="logit"),
    "table": Average(TABLE),
    "learned": Average("learn", space="logit"),
    "greedy": Average("greedy", space="logit", rounds=5),
    "calibrated": Average(calibrate=True),
    "calibrated-median": Average(how="median", calibrate=True),
    "all": Average("learn", space="logit", per_class=True, calibrate=True),
    "classes": Average("learn", per_class=True),
}


def classifier(seed, activation="softmax", classes=3, sharp=3.0, dtype=None):
    keras.utils.set_random_seed(seed)
    net = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, activation="relu", dtype=dtype),
            layers.Dense(classes, activation=activation, dtype=dtype),
        ],
        name=f"net_{seed}",
    )
    net.layers[-1].kernel.assign(sharp * net.layers[-1].kernel)
    return net


def make_members(activation="softmax", **options):
    return [classifier(seed, activation, **options) for seed in range(3)]


def predict(model, x=X):
    x = keras.tree.map_structure(lambda part: np.asarray(part, "float32"), x)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x, training=False))


def labels_of(member, x=X, seed=1):
    """Labels drawn from what a member means by its outputs."""
    rng, p = np.random.default_rng(seed), predict(member, x)
    activation = read_outputs(member).each[0].activation
    if activation == "sigmoid":
        return (rng.random(p.shape) < p).astype("int64")
    p = p if activation == "softmax" else special.softmax(p, -1)
    return np.array([rng.choice(p.shape[1], p=row / row.sum()) for row in p.astype("float64")])


def two_outputs(seed):
    keras.utils.set_random_seed(seed)
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    joined = layers.Dense(5, activation="relu")(layers.Concatenate()([a, b]))
    return keras.Model(
        {"a": a, "b": b},
        {
            "kind": layers.Dense(3, activation="softmax", name="kind")(joined),
            "size": layers.Dense(2, name="size")(joined),
        },
    )


TWO_X = {"a": X[:, :3], "b": X[:, 3:]}
TWO_Y = {"kind": RNG.integers(0, 3, 80), "size": RNG.normal(size=(80, 2))}


def loss_of(model, y, x=X):
    """The log-loss of a model, without the price of tracing a predict function."""
    return sample_losses(infer_task(model, y), y, predict(model, x)).mean()


FIRST, LAST = slice(0, 50), slice(50, 80)
