"""Small models and data, so that a real search takes seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

import saikei as sk
from saikei.data import Splits
from saikei.datasets import digits
from saikei.search import Result

BUDGET = sk.Budget(macs=0.3)
# A handful of candidates, most of them for one or two epochs.
EFFORT = 40
# What a search of a few seconds is asked for, beside what `search` gives. One whole search, of all
# methods and with latencies, is that of the fixture `finished`.
BRIEF: dict[str, Any] = {"effort": 8, "methods": ["prune", "average"], "latency": False}
# And what one that only has to run is asked for.
LEAST: dict[str, Any] = {"effort": 3, "methods": ["prune"], "latency": False, "rivals": False}


@cache
def data() -> Splits:
    """A few hundred digits."""
    whole = digits(0)
    assert whole.validation is not None
    assert whole.test is not None
    (x, y), (xv, yv), (xt, yt) = whole.train, whole.validation, whole.test
    return Splits((x[:400], y[:400]), (xv[:150], yv[:150]), (xt[:150], yt[:150]))


def convolutional() -> keras.Model:
    """A small convolutional network, trained for a moment."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(8, 3, activation="relu", name="conv1"),
            layers.Conv2D(12, 3, activation="relu", name="conv2"),
            layers.Flatten(name="flatten"),
            layers.Dense(10, activation="softmax", name="classes"),
        ],
        name="network",
    )
    sk.fit(model, data().train, epochs=4, batch_size=16, learning_rate=3e-3, progress=False)
    return model


def dense(seed: int = 0, units: int = 24, name: str = "dense") -> keras.Model:
    """A network that trains in a second; untrained."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Flatten(name="flatten"),
            layers.Dense(units, activation="relu", name="hidden"),
            layers.Dense(10, activation="softmax", name="classes"),
        ],
        name=name,
    )


def search(model: Any, out: Path | None, **changes: Any) -> Result:
    """The search that the tests look at."""
    splits = data()
    arguments: dict[str, Any] = {
        "validation": splits.validation,
        "budget": BUDGET,
        "test": splits.test,
        "effort": EFFORT,
        "seed": 4,
        "progress": False,
    }
    arguments |= {"train": splits.train, "out": out} | changes
    return sk.optimize(model, **arguments)


def state_of(model: keras.Model) -> list[bytes]:
    """The bytes of every variable, those of the optimizer too."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else [])]
    return [np.asarray(keras.ops.convert_to_numpy(v)).tobytes() for v in variables]
