"""Whether a model expects other preprocessing: common ways to prepare inputs, tried on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, predict_arrays
from saikei.fusion.agreement.skill import SKILLED, rightness, skills, tempered_loss
from saikei.scoring.labelled import Labelled
from saikei.scoring.labels import as_labels
from saikei.scoring.score import standard_error
from saikei.scoring.task import Task
from saikei.tensors import to_floats

# The mean gain has to be this many standard errors above 0, over this many rows or more.
CERTAIN = 4.0
FEWEST = 20
# The loss may be this many times the loss at the best temperature.
TOLERANCE = 1.05
_ROWS = 2048
_IMAGENET = "keras.applications.imagenet_utils.preprocess_input"


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """A common way to prepare inputs.

    Args:
        done: What is done to the inputs, in words.
        code: Python code that does it in a graph, to the symbolic tensor `x`.
        change: Does the same to an array.
    """

    done: str
    code: str
    change: Callable[[Array], Array]

    def apply(self, x: Any) -> Any:
        """Prepared inputs; whole numbers, such as tokens, stay as they are."""
        return tree.map_structure(lambda one: self.change(one) if _is_numeric(one) else one, x)


@dataclass(frozen=True)
class BetterPreprocessing:
    """Preprocessing under which a model is far better than on the inputs as they are.

    Args:
        preprocessing: The one with the lowest loss.
        losses: The mean loss on the inputs as they are, and on prepared inputs.
        right: The share of right rows on both; `None` for regression.
    """

    preprocessing: Preprocessing
    losses: tuple[float, float]
    right: tuple[float, float] | None


def better_preprocessing(
    model: keras.Model,
    tasks: Sequence[Task],
    x: Any,
    labels: Sequence[Any],
    best: float,
    seed: int = 0,
) -> BetterPreprocessing | None:
    """The common preprocessing that makes a model far better, if there is one.

    Inputs of another scale often keep the order of the classes and ruin their probabilities. So
    does an overconfident or underconfident model, whatever its inputs: the preprocessing has to
    lower the loss at least as far as the best temperature would.

    Args:
        model: A built model.
        tasks: What each output learns.
        x: Inputs of the model, arrays nested as it takes them.
        labels: One array, or `Labels`, for each output.
        best: The mean skill of the best member.
        seed: Seed of the rows that are tried, at most 2,048.
    """
    inputs = [np.asarray(one) for one in tree.flatten(x)]
    if not any(map(_is_numeric, inputs)) or any(one.dtype.kind not in "biuf" for one in inputs):
        # Tokens have no other preprocessing, and Keras predicts from no arrays of text.
        return None
    count = len(inputs[0])
    rows = np.random.default_rng(seed).permutation(count)[:_ROWS]
    x = tree.map_structure(lambda part: np.asarray(part)[rows], x)
    outputs = _predicted(model, x)
    labelled = Labelled.of(tasks, [as_labels(part)[rows] for part in labels], outputs)
    plain = _Tried(labelled, outputs)
    bound = max(SKILLED, (best + max(plain.skill, 0.0)) / 2)
    each = zip(labelled.tasks, labelled.labels, plain.outputs, strict=True)
    tempered = sum(tempered_loss(*one) for one in each)
    found: tuple[Preprocessing, _Tried] | None = None
    for preprocessing in _common(x):
        tried = _Tried(labelled, _predicted(model, preprocessing.apply(x)))
        if found is not None and not tried.skill > found[1].skill:
            continue
        suits = tried.skill >= bound and tried.loss <= TOLERANCE * tempered
        if suits and _is_certain(plain.losses - tried.losses):
            found = preprocessing, tried
    if found is None:
        return None
    preprocessing, tried = found
    return BetterPreprocessing(preprocessing, (plain.loss, tried.loss), plain.share_right(tried))


class _Tried:
    """How good a model is on prepared rows."""

    def __init__(self, labelled: Labelled, outputs: Sequence[Array]) -> None:
        # Outputs may overflow where a preprocessing does not suit the model.
        self.outputs = [np.nan_to_num(one) for one in outputs]
        self.losses = labelled.losses(self.outputs)
        self.loss = float(self.losses.mean())
        self.skill = float(skills(labelled, self.outputs).mean())
        self.right = rightness(labelled.tasks, labelled.labels, self.outputs)

    def share_right(self, other: _Tried) -> tuple[float, float] | None:
        if self.right is None or other.right is None:
            return None
        return float(self.right.mean()), float(other.right.mean())


def _predicted(model: keras.Model, x: Any) -> list[Array]:
    return [to_floats(one) for one in tree.flatten(predict_arrays(model, x, 256))]


def _is_certain(gains: Array) -> bool:
    if len(gains) < FEWEST:
        return False
    return bool(gains.mean() > CERTAIN * standard_error(gains))


def _is_numeric(array: Array) -> bool:
    """Whether an input holds numbers of a scale, and no tokens or text."""
    return array.ndim > 1 and array.dtype.kind == "f"


def _is_coloured(array: Array) -> bool:
    return array.ndim == 4 and array.shape[-1] == 3


def _common(x: Any) -> Iterator[Preprocessing]:
    """The common ways to prepare inputs of these kinds and ranges."""
    inputs = [one for one in tree.flatten(x) if _is_numeric(one)]
    if not inputs:
        return
    low, high = min(one.min() for one in inputs), max(one.max() for one in inputs)
    yield from (one for least, most, one in _RANGES if least <= low and high <= most)
    yield Preprocessing(
        "brought to mean 0 and variance 1",
        "keras.layers.Normalization(mean=…, variance=…)(x) with those of its training data",
        _standardised,
    )
    if all(_is_coloured(one) for one in inputs):
        yield Preprocessing("read as BGR", "keras.ops.flip(x, axis=-1)", lambda one: one[..., ::-1])
        for mode in ("caffe", "torch"):
            yield _as_imagenet(mode)


def _rescaled(done: str, scale: float, offset: float, written: str) -> Preprocessing:
    return Preprocessing(
        done,
        f"keras.layers.Rescaling({written})(x)",
        lambda one: np.asarray(one * scale + offset, dtype=one.dtype),
    )


def _standardised(array: Array) -> Array:
    rest = tuple(range(array.ndim - 1))
    spread = array.std(axis=rest)
    scaled = (array - array.mean(axis=rest)) / np.where(spread > 0, spread, 1.0)
    return np.asarray(scaled, dtype=array.dtype)


def _as_imagenet(mode: str) -> Preprocessing:
    prepare = keras.applications.imagenet_utils.preprocess_input
    return Preprocessing(
        f"prepared as for ImageNet in {mode.capitalize()}",
        f"{_IMAGENET}(x, mode='{mode}')",
        lambda one: np.asarray(prepare(one.copy(), data_format="channels_last", mode=mode)),
    )


# The lowest and highest number of pixels, and a way to prepare them.
_RANGES = (
    (0, 255, _rescaled("divided by 255", 1 / 255, 0.0, "1 / 255")),
    (0, 255, _rescaled("brought from 0…255 to -1…1", 1 / 127.5, -1.0, "1 / 127.5, offset=-1")),
    (0, 1, _rescaled("multiplied by 255", 255.0, 0.0, "255")),
    (0, 1, _rescaled("brought from 0…1 to -1…1", 2.0, -1.0, "2, offset=-1")),
    (-1, 1, _rescaled("brought from -1…1 to 0…1", 0.5, 0.5, "0.5, offset=0.5")),
    (-1, 1, _rescaled("brought from -1…1 to 0…255", 127.5, 127.5, "127.5, offset=127.5")),
)
