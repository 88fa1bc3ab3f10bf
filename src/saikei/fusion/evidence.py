"""What members say of data that they were not trained on: what a fusion is fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import keras
import numpy as np

from saikei.batches import Array, for_keras
from saikei.data import gathered
from saikei.errors import DataError, FusionError
from saikei.fusion.agreement import check_agreement
from saikei.fusion.features import penultimate
from saikei.fusion.members import check_members, check_models, mean_model, side_by_side
from saikei.graph import read
from saikei.scoring.counted import Labels
from saikei.scoring.inference import infer_tasks
from saikei.scoring.masks import shared_masks
from saikei.scoring.observed import counted_labels
from saikei.scoring.outputs import read_outputs
from saikei.scoring.predictions import predict_all
from saikei.scoring.task import Task, labels_for
from saikei.tensors import to_floats
from saikei.training.cross_fit import CrossFit
from saikei.training.digests import Digests, digest_data, digest_rows
from saikei.training.provenance import check_digests_held_out

Members: TypeAlias = Sequence[keras.Model] | CrossFit


@dataclass(frozen=True, eq=False)
class Said:
    """What members say: arrays of `(n, …)`, or symbolic tensors while a graph is made.

    Args:
        outputs: for each member its outputs, flattened.
        features: for each member what its last layer with weights reads, `(n, width)`; empty
            where it was not asked for.
        raw: the inputs, each flattened to `(n, width)`; empty where they were not asked for.
    """

    outputs: tuple[tuple[Any, ...], ...]
    features: tuple[tuple[Any, ...], ...] = ()
    raw: tuple[Any, ...] = ()

    def map(self, change: Callable[[Any], Any]) -> Said:
        """The same with every array changed."""
        return Said(
            tuple(tuple(change(one) for one in member) for member in self.outputs),
            tuple(tuple(change(one) for one in member) for member in self.features),
            tuple(change(one) for one in self.raw),
        )


@dataclass(frozen=True, eq=False)
class Evidence:
    """Labels, and what members say of the same rows.

    Args:
        tasks: what each output learns.
        labels: of each output, with what counts of them.
        said: by the members.
        digests: of the rows; they are not in the order of the labels where data is a dataset.
        activations: the last one of each output.
    """

    tasks: tuple[Task, ...]
    labels: tuple[Labels, ...] = field(repr=False)
    said: Said = field(repr=False)
    digests: Digests = field(repr=False)
    activations: tuple[str, ...]

    def __post_init__(self) -> None:
        pairs = zip(self.tasks, self.labels, strict=True)
        object.__setattr__(self, "labels", tuple(labels_for(*pair) for pair in pairs))

    def __len__(self) -> int:
        return len(self.labels[0])

    def take(self, rows: Any) -> Evidence:
        """Some of the rows."""
        labels = tuple(part[rows] for part in self.labels)
        return replace(self, labels=labels, said=self.said.map(lambda array: array[rows]))


class Combiner(Protocol):
    """A fusion that has been fitted: makes one output of what members say."""

    def predict(self, said: Said) -> tuple[Array, ...]:
        """One array for each output."""
        ...

    def connect(self, said: Said, name: str) -> tuple[Any, ...]:
        """The same in a graph, in layers of this name: one symbolic tensor for each output."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """What was fitted, JSON-ready."""
        ...


def gather(
    members: Members,
    data: Any = None,
    allow_in_sample: bool = False,
    *,
    features: bool = False,
    raw: bool = False,
) -> Evidence:
    """Let members speak on data, in one pass, or take their out-of-fold predictions.

    Args:
        members: models, or what `cross_fit` gives.
        data: held-out `(x, y)` arrays or a dataset; `None` with what `cross_fit` gives.
        allow_in_sample: take data that a member was trained on too.
        features: whether the members' features are wanted.
        raw: whether the inputs are wanted.

    Raises:
        FusionError: when the members do not fit each other, were trained on some of the data, or
            there is no data; for features, when they come from `cross_fit`.
        DataError: when the data does not fit the members, or a prediction is not finite.
    """
    if isinstance(members, CrossFit):
        return _out_of_fold(members, data, features, raw)
    check_members(members)
    if data is None:
        raise FusionError(
            "A fit needs held-out data: call it with (members, (x, y)), or with what cross_fit "
            "gives."
        )
    digests = digest_data(data)
    if not allow_in_sample:
        _check_held_out(members, data, digests)
    # A dataset may come in another order each time: one pass serves all.
    inputs, said = connect(members, features, raw)
    together = keras.Model(
        inputs, keras.tree.flatten((said.outputs, said.features, said.raw)), name="members"
    )
    predicted = predict_all(together, data)
    waiting = iter(predicted.outputs)
    told = said.map(lambda _: next(waiting))
    _check_finite(told, [f"Member {n} ('{m.name}')" for n, m in enumerate(members, start=1)])
    tasks = infer_tasks(members[0], predicted.y)
    masks = shared_masks(predicted.masks, len(said.outputs), len(tasks))
    flat = counted_labels(members[0], tasks, replace(predicted, masks=masks))
    check_agreement(members, tasks, flat, told.outputs, data)
    return Evidence(tasks, flat, told, digests, _activations(members[0]))


def _check_held_out(members: Sequence[keras.Model], data: Any, digests: Digests) -> None:
    """Each member is asked about what it takes of a row."""
    taken = [read(member).inputs for member in members]
    names = {name for one in taken if isinstance(one, dict) for name in one}
    if all(names == set(one) for one in taken if isinstance(one, dict)):
        check_digests_held_out(members, digests)
        return
    x = gathered(data).x
    for number, (member, own) in enumerate(zip(members, taken, strict=True), start=1):
        known = digest_rows({name: x[name] for name in own})
        check_digests_held_out([member], known, first=number)


def connect(models: Sequence[keras.Model], features: bool, raw: bool) -> tuple[Any, Said]:
    """Copies of models on one set of new inputs, and what they say, as symbolic tensors."""
    inputs, tensors = side_by_side(models, penultimate if features else None)
    count = len(models[0].outputs)
    said = Said(
        outputs=tuple(tuple(parts[:count]) for parts in tensors),
        features=tuple(tuple(parts[count:]) for parts in tensors) if features else (),
        raw=_flattened(inputs) if raw else (),
    )
    return inputs, said


def deployed(members: Members) -> tuple[keras.Model, ...]:
    """The models that a fused model is made of.

    Args:
        members: models, or what `cross_fit` gives: of each name the model that was trained on all
            rows, or else the mean of the folds' models.
    """
    if not isinstance(members, CrossFit):
        check_models(members)
        return members if isinstance(members, keras.Model) else tuple(members)
    if members.refitted:
        return tuple(members.refitted.values())
    return tuple(
        folds[0] if len(folds) == 1 else mean_model(folds) for folds in members.members.values()
    )


def _out_of_fold(made: CrossFit, data: Any, features: bool, raw: bool) -> Evidence:
    if data is not None:
        raise FusionError(
            "Data is given beside what cross_fit gives, which holds its own: leave it out."
        )
    if features:
        raise FusionError(
            "Features of models from cross_fit mean something else in each fold: use on='outputs', "
            "or give members and held-out data."
        )
    if len(made.members) < 2:
        raise FusionError(
            "A fusion needs at least two members, got one from cross_fit: give it several, "
            "cross_fit({'a': …, 'b': …}, data)."
        )
    models = [folds[0] for folds in made.members.values()]
    check_members(models)
    inputs: tuple[Array, ...] = ()
    if raw:
        tensors, _ = side_by_side(models[:1])
        flat = keras.Model(tensors, list(_flattened(tensors))).predict(for_keras(made.x), verbose=0)
        inputs = tuple(to_floats(part) for part in keras.tree.flatten(flat))
    said = Said(tuple(made.predictions.values()), raw=inputs)
    _check_finite(said, [f"Member '{name}'" for name in made.members])
    return Evidence(made.tasks, made.labels, said, made.digests, _activations(models[0]))


def _activations(member: keras.Model) -> tuple[str, ...]:
    return tuple(output.activation for output in read_outputs(member).each)


def _flattened(inputs: Any) -> tuple[Any, ...]:
    flat = []
    for tensor in keras.tree.flatten(inputs):
        if tensor.dtype == "string":
            raise FusionError(f"Input '{tensor.name}' is text, which cannot be passed through.")
        numbers = keras.ops.cast(tensor, keras.config.floatx())
        if len(tensor.shape) == 1:
            numbers = keras.ops.expand_dims(numbers, -1)
        flat.append(keras.layers.Flatten()(numbers) if len(numbers.shape) > 2 else numbers)
    if any(part.shape[-1] is None for part in flat):
        raise FusionError("An input of unknown size cannot be passed through: fix its size.")
    return tuple(flat)


def _check_finite(said: Said, names: Sequence[str]) -> None:
    for name, outputs in zip(names, said.outputs, strict=True):
        if not all(np.isfinite(array).all() for array in outputs):
            raise DataError(f"{name} predicts NaN or infinite numbers: check it.")
