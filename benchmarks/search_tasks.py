"""What `search.py` searches on: data, networks of any width, and how a network is trained alone."""

from __future__ import annotations

import bisect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import saikei as sk
from saikei.data import Arrays
from saikei.datasets import fashion_mnist
from saikei.models import CascadeModel

# The learning rates that a network from scratch is trained with; the best on validation counts.
RATES = (1e-3, 3e-3, 1e-2)


@dataclass(frozen=True)
class Task:
    """Data, and a network of any width for it.

    Args:
        name: Name of the task.
        train: Training data.
        validation: Data that every choice is made on.
        test: Data that each result is scored on once.
        network: Makes an untrained network from a multiple of its width and a seed.
        epochs: Epochs of the given network's training.
        batch_size: Rows a step of every training.
    """

    name: str
    train: Arrays
    validation: Arrays
    test: Arrays
    network: Callable[[float, int], keras.Model]
    epochs: int
    batch_size: int


def mnist1d(seed: int, rows: int = 8_000) -> Task:
    """Signals of MNIST-1D, made on this machine (Greydanus, 2020), and a ResNet-1D."""
    from mnist1d.data import get_dataset_args, make_dataset

    arguments = get_dataset_args()
    count = rows + 8_000
    arguments.num_samples, arguments.seed, arguments.train_split = count, seed, 1.0
    made = make_dataset(arguments)
    x, y = made["x"][..., None].astype("float32"), made["y"].astype("int64")
    ends = (0, rows), (rows, rows + 2_000), (rows + 2_000, count)
    parts = [(x[a:b], y[a:b]) for a, b in ends]
    return Task("mnist1d", *parts, resnet_1d, epochs=30, batch_size=rows // 125)


def fashion(seed: int) -> Task:
    """10,000 images of Fashion-MNIST, and the network of the documentation."""
    data = fashion_mnist(5_000)
    assert data.validation is not None
    assert data.test is not None
    rows = np.random.default_rng(seed).permutation(len(data.train[0]))[:10_000]
    train = data.train[0][rows], data.train[1][rows]
    return Task("fashion", train, data.validation, data.test, small_cnn, epochs=15, batch_size=64)


TASKS = {"mnist1d": mnist1d, "mnist1d-4000": partial(mnist1d, rows=4_000), "fashion": fashion}


def resnet_1d(width: float, seed: int) -> keras.Model:
    """Three residual blocks on signals of 40 samples; 0.33 million MACs at width 1."""
    keras.utils.set_random_seed(seed)
    tensor = keras.Input((40, 1))

    def convolution(x: keras.KerasTensor, filters: int, size: int, stride: int = 1) -> object:
        x = layers.Conv1D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    wide = [max(1, round(width * filters)) for filters in (24, 24, 48, 48)]
    x = layers.ReLU()(convolution(tensor, wide[0], 5, 2))
    for number, filters in enumerate(wide[1:]):
        stride = 2 if number == 1 else 1
        short = convolution(x, filters, 1, stride) if number == 1 else x
        y = layers.ReLU()(convolution(x, filters, 3, stride))
        x = layers.ReLU()(layers.Add()([short, convolution(y, filters, 3)]))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(tensor, layers.Dense(10, activation="softmax")(x))


def small_cnn(width: float, seed: int) -> keras.Model:
    """Three convolutions and two dense layers."""
    keras.utils.set_random_seed(seed)
    a, b = (max(1, round(width * filters)) for filters in (32, 64))
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(a, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(b, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(b, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(b, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def macs(model: keras.Model) -> int:
    """Multiply-accumulates for one sample."""
    return int(sk.profile(model, latency=False).macs)


def mean_macs(model: keras.Model, x: np.ndarray) -> float:
    """Multiply-accumulates for one row, of a cascade in the mean over some rows."""
    if not isinstance(model, CascadeModel):
        return macs(model)
    _, stages = model.predict_stages(x, 500)
    each = [macs(member) for member in model.members]
    return float(sum(cost * np.mean(stages >= stage) for stage, cost in enumerate(each)))


def narrow(task: Task, limit: float, seed: int) -> keras.Model:
    """The widest network whose MACs are within a limit, untrained."""
    widths = [number / 96 for number in range(1, 145)]
    found = bisect.bisect_right(widths, limit, key=lambda width: macs(task.network(width, seed)))
    if not found:
        raise SystemExit("No width is within the limit.")
    return task.network(widths[found - 1], seed)


def trained(
    task: Task,
    make: Callable[[int], keras.Model],
    epochs: int,
    seed: int,
    rates: Sequence[float] = RATES,
    teacher: keras.Model | None = None,
    folder: Path | None = None,
) -> keras.Model:
    """The best on validation of one network trained with each learning rate.

    Args:
        task: Data.
        make: Makes the network from a seed.
        epochs: Epochs of each training, over which the rate falls along a cosine.
        seed: Seed of weights and of the order of rows.
        rates: Learning rates.
        teacher: A network to learn from as well; `None` for labels alone.
        folder: Where the network of each rate is kept, so that none is trained again; `None` keeps
            nothing.
    """

    def each() -> Iterator[tuple[float, keras.Model]]:
        for rate in rates:
            path = None if folder is None else folder / f"{rate:g}.keras"
            if path is not None and path.exists():
                model = keras.saving.load_model(path)
                yield accuracy(model, task.validation), model
                continue
            model = make(seed)
            settings = {
                "epochs": epochs,
                "batch_size": task.batch_size,
                "learning_rate": rate,
                "seed": seed,
                "progress": False,
            }
            if teacher is None:
                sk.fit(model, task.train, task.validation, **settings)
            else:
                sk.distill(model, teacher, task.train, task.validation, **settings)
            found = accuracy(model, task.validation)
            print(f"    rate {rate:g}: {100 * found:.2f} % on validation", file=sys.stderr)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                model.save(path)
            yield found, model

    return max(each(), key=lambda pair: pair[0])[1]


def accuracy(model: keras.Model, data: Arrays) -> float:
    """The share of right classes."""
    return float(np.mean(predictions(model, data).argmax(axis=1) == data[1]))


def predictions(model: keras.Model, data: Arrays) -> np.ndarray:
    """Probabilities of the classes, `(n, classes)`."""
    return np.asarray(model.predict(data[0], batch_size=500, verbose=0))
