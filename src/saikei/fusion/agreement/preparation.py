"""Whether a model was trained on inputs that were prepared in another way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, for_keras
from saikei.fusion.agreement.preprocessing import Way, can_change, changed, ways
from saikei.fusion.agreement.skill import KNOWS, rightness, skills, tempered_loss
from saikei.scoring.counted import as_labels
from saikei.scoring.labelled import Labelled
from saikei.scoring.score import standard_error
from saikei.scoring.task import Task
from saikei.tensors import to_floats

# Standard errors, and rows.
CERTAIN = 4.0
FEWEST = 20
# Above the loss at the best temperature.
TOLERANCE = 1.05
_ROWS = 2048


@dataclass(frozen=True)
class Preparation:
    """What a model seems to want done to its inputs.

    Args:
        way: that suits it best.
        losses: mean loss as the inputs are, and prepared in that way.
        right: the same for the share of the rows that is right; `None` for regression.
    """

    way: Way
    losses: tuple[float, float]
    right: tuple[float, float] | None


def other_preparation(
    model: keras.Model,
    tasks: Sequence[Task],
    x: Any,
    labels: Sequence[Any],
    best: float,
    seed: int = 0,
) -> Preparation | None:
    """The common preparation of inputs that makes a model better by far, if there is one.

    Inputs of another scale often leave the order of the classes alone and ruin their
    probabilities. So does a model that is too sure or too unsure of itself, which is no matter
    of inputs: a preparation has to do what the best temperature would, at least.

    Args:
        model: a built model.
        tasks: what each output learns.
        x: its inputs, arrays nested as it takes them.
        labels: of each output: arrays or `Labels`.
        best: the mean skill of the best member.
        seed: of the rows that are tried, 2,048 at most.
    """
    inputs = [np.asarray(one) for one in tree.flatten(x)]
    if not any(map(can_change, inputs)) or any(one.dtype.kind not in "biuf" for one in inputs):
        # Tokens are prepared in no way, and text is none of the arrays that Keras predicts from.
        return None
    count = len(inputs[0])
    rows = np.random.default_rng(seed).permutation(count)[:_ROWS]
    x = tree.map_structure(lambda part: np.asarray(part)[rows], x)
    outputs = _predicted(model, x)
    labelled = Labelled.of(tasks, [as_labels(part)[rows] for part in labels], outputs)
    plain = _Trial(labelled, outputs)
    bound = max(KNOWS, (best + max(plain.skill, 0.0)) / 2)
    each = zip(labelled.tasks, labelled.labels, plain.outputs, strict=True)
    tempered = sum(tempered_loss(*one) for one in each)
    found: tuple[Way, _Trial] | None = None
    for way in ways(x):
        trial = _Trial(labelled, _predicted(model, changed(way, x)))
        if found is not None and not trial.skill > found[1].skill:
            continue
        suits = trial.skill >= bound and trial.loss <= TOLERANCE * tempered
        if suits and _is_sure(plain.losses - trial.losses):
            found = way, trial
    if found is None:
        return None
    way, trial = found
    return Preparation(way, (plain.loss, trial.loss), plain.share_right(trial))


class _Trial:
    """How good a model is on rows that are prepared in some way."""

    def __init__(self, labelled: Labelled, outputs: Sequence[Array]) -> None:
        # Where a way does not suit a model, its outputs may overflow.
        self.outputs = [np.nan_to_num(one) for one in outputs]
        self.losses = labelled.losses(self.outputs)
        self.loss = float(self.losses.mean())
        self.skill = float(skills(labelled, self.outputs).mean())
        self.right = rightness(labelled.tasks, labelled.labels, self.outputs)

    def share_right(self, other: _Trial) -> tuple[float, float] | None:
        if self.right is None or other.right is None:
            return None
        return float(self.right.mean()), float(other.right.mean())


def _predicted(model: keras.Model, x: Any) -> list[Array]:
    outputs = tree.flatten(model.predict(for_keras(x), batch_size=256, verbose=0))
    return [to_floats(one) for one in outputs]


def _is_sure(gains: Array) -> bool:
    """Whether the mean gain is over four standard errors above 0, of at least twenty rows."""
    if len(gains) < FEWEST:
        return False
    return bool(gains.mean() > CERTAIN * standard_error(gains))
