"""A teacher that gives its inner features, and the start of training to be like them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.dataset_batches import first_batch
from saikei.distilling.distances import FeatureMatch
from saikei.distilling.distiller import FeatureDistiller
from saikei.distilling.features import Pair
from saikei.distilling.teacher_batches import stored_batches
from saikei.graph import TensorRef, build, check_runs_as_read, read
from saikei.training.loop import seed_random_layers
from saikei.training.prepared import Prepared

# Above this the teacher's features are not stored, and it runs at every step instead.
MOST_STORED_BYTES = 256 * 2**20
_SAMPLES = 512
_MOST_SAMPLE_BYTES = 64 * 2**20


def feature_distiller(
    student: keras.Model,
    teacher: keras.Model,
    pairs: Sequence[Pair],
    ready: Prepared,
    soft: Any,
    alpha: float,
    weight: float,
    batch_size: int,
    seed: int,
    stored: bool | None = None,
) -> tuple[FeatureDistiller, Any]:
    """A distiller that compares features, and the batches that it takes.

    Args:
        student: Will be trained in place.
        teacher: Is not changed.
        pairs: What is compared.
        ready: The training data.
        soft: The distance between the outputs.
        alpha: Share of the loss on the true labels in the loss of the outputs, from 0 to 1.
        weight: The weight of the features.
        batch_size: Samples a step, for arrays.
        seed: The seed of the order of the samples, and of those that training starts from.
        stored: Whether the teacher runs once over the data, before training, rather than on every
            batch; `None` stores with arrays and features of at most 256 MiB in all.

    Raises:
        DataError: When the teacher's outputs or features cannot be learnt from.
        ModelError: When the student is or holds a class with a `call` of its own.
    """
    check_runs_as_read(read(student), student)
    shown = _showing(teacher, [pair.teacher.ref for pair in pairs])
    match = _started(student, shown, pairs, _some_inputs(ready, pairs, seed), seed)
    if stored is None:
        stored = ready.arrays is not None and _storable(pairs, len(ready.arrays))
    batches: Any
    if stored:
        batches = stored_batches(shown, ready, "teacher", batch_size, seed)
    else:
        batches = ready.batches(batch_size, seed)
    live = None if stored else shown
    return FeatureDistiller(student, pairs, match, soft, alpha, weight, live), batches


def _showing(model: keras.Model, refs: Sequence[TensorRef]) -> keras.Model:
    """A copy of a model that gives `{"outputs": […], "features": […]}`."""
    graph = read(model)
    return build(replace(graph, outputs={"outputs": graph.output_refs(), "features": list(refs)}))


def _started(
    student: keras.Model, shown: keras.Model, pairs: Sequence[Pair], x: Any, seed: int
) -> FeatureMatch:
    match = FeatureMatch(pairs)
    # As in training: what normalisation has gathered is not right for a model that was just cut,
    # and projectors that undo its scale would be far off from the first step on.
    probe = _showing(student, [pair.student.ref for pair in pairs])
    seed_random_layers(probe, seed)
    match.start(probe(x, training=True)["features"], shown(x, training=False)["features"])
    return match


def _some_inputs(ready: Prepared, pairs: Sequence[Pair], seed: int) -> Any:
    each = sum(_bytes_per_sample(pair) or 0 for pair in pairs)
    count = min(_SAMPLES, max(1, _MOST_SAMPLE_BYTES // max(1, each)))
    if ready.arrays is None:
        x = first_batch(ready.dataset, "train", labels=False).x
        return tree.map_structure(lambda leaf: leaf[:count], x)
    # Not the first ones: arrays may be sorted by class.
    rows = np.random.default_rng(seed).permutation(len(ready.arrays))[:count]
    return tree.map_structure(lambda leaf: leaf[np.sort(rows)], ready.arrays.x)


def _storable(pairs: Sequence[Pair], samples: int) -> bool:
    each = [pair.teacher.bytes_per_sample() for pair in pairs]
    known = [size for size in each if size is not None]
    return len(known) == len(each) and samples * sum(known) <= MOST_STORED_BYTES


def _bytes_per_sample(pair: Pair) -> int | None:
    ours, theirs = pair.student.bytes_per_sample(), pair.teacher.bytes_per_sample()
    return None if ours is None or theirs is None else ours + theirs
