"""What a fusion is fitted to: the members' predictions of held-out data, and the labels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import keras
import numpy as np

from saikei.batches import Array, predict_arrays
from saikei.data import gathered
from saikei.errors import DataError, FusionError
from saikei.fusion.agreement import check_agreement
from saikei.fusion.members import AnyMembers, Members, side_by_side
from saikei.graph import Graph, TensorRef
from saikei.scoring.inference import infer_tasks
from saikei.scoring.labelled import Labelled
from saikei.scoring.labels import Labels
from saikei.scoring.links import link_of_task
from saikei.scoring.masks import shared_masks
from saikei.scoring.observed import counted_labels
from saikei.scoring.outputs import Output, Outputs
from saikei.scoring.predictions import predict_all
from saikei.scoring.task import Task
from saikei.tensors import to_floats
from saikei.training.digests import Digests, digest_data, digest_rows
from saikei.training.provenance import check_digests_held_out

Part: TypeAlias = Literal["features", "inputs"]


@dataclass(frozen=True, eq=False)
class MemberOutputs:
    """What a fusion head is computed from: arrays `(n, …)`, or symbolic tensors in a graph.

    Args:
        outputs: For each member its outputs, flattened.
        features: For each member the inputs of its last layer with weights, `(n, width)`; empty
            where they are not needed.
        raw: The inputs of the members, each flattened to `(n, width)`; empty where they are not
            needed.
    """

    outputs: tuple[tuple[Any, ...], ...]
    features: tuple[tuple[Any, ...], ...] = ()
    raw: tuple[Any, ...] = ()

    def map(self, change: Callable[[Any], Any]) -> MemberOutputs:
        """A copy with every array changed."""
        return MemberOutputs(
            tuple(tuple(change(one) for one in member) for member in self.outputs),
            tuple(tuple(change(one) for one in member) for member in self.features),
            tuple(change(one) for one in self.raw),
        )


@dataclass(frozen=True, eq=False)
class Evidence:
    """Labels, and the members' predictions of the same rows.

    Args:
        labelled: The labels of the rows; they score predictions.
        predictions: Outputs of the members, and their features and inputs where these are needed.
        digests: Digests of the rows, of a dataset in another order than the labels.
        members: The members, read.
        data: The data as it was given; `None` for predictions from `cross_fit`.
    """

    labelled: Labelled
    predictions: MemberOutputs = field(repr=False)
    digests: Digests = field(repr=False)
    members: Members = field(repr=False)
    data: Any = field(default=None, repr=False)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What each output learns."""
        return self.labelled.tasks

    @property
    def labels(self) -> tuple[Labels, ...]:
        """The labels of each output, with how much each of them counts."""
        return self.labelled.labels

    @classmethod
    def without_rows(cls, members: Members) -> Evidence:
        """Evidence for a fusion that needs no data: it holds the members alone.

        Args:
            members: Members with equal inputs and outputs.
        """
        return cls(Labelled((), ()), MemberOutputs(()), np.empty(0, np.uint64), members)

    @classmethod
    def stored(cls, labelled: Labelled, predictions: Sequence[Sequence[Array]]) -> Evidence:
        """Evidence from predictions that were made before, without any model.

        Fusions of outputs can be fitted to it and scored on it; `Cascade` needs `costs`, and what
        reads features or inputs is refused.

        Args:
            labelled: The labels of the rows.
            predictions: For each member one array `(n, …)` for each of its outputs.

        Raises:
            DataError: When predictions are not finite.
        """
        outputs = tuple(tuple(member) for member in predictions)
        names = [f"Member {number}" for number in range(1, len(outputs) + 1)]
        _check_finite(MemberOutputs(outputs), names)
        shapes = [(None, *one.shape[1:]) for one in outputs[0]]
        each = zip(shapes, labelled.tasks, strict=True)
        known = Outputs(list(shapes), tuple(Output(s, link_of_task(task)) for s, task in each))
        members = Members((), (), stored=(known,) * len(outputs))
        return cls(labelled, MemberOutputs(outputs), np.empty(0, np.uint64), members)

    def __len__(self) -> int:
        return len(self.labelled)

    def take(self, rows: Any) -> Evidence:
        """Some of the rows."""
        predictions = self.predictions.map(lambda array: array[rows])
        return replace(self, labelled=self.labelled.take(rows), predictions=predictions)


def gather(
    members: AnyMembers,
    data: Any = None,
    allow_in_sample: bool = False,
    parts: Collection[Part] = (),
) -> Evidence:
    """Predict data with all members in one pass, or take their out-of-fold predictions.

    Args:
        members: Models, or what `cross_fit` gives.
        data: Held-out `(x, y)` arrays or a dataset; `None` with what `cross_fit` gives.
        allow_in_sample: Take data that a member was trained on too.
        parts: What is needed beside the outputs: `"features"` of the members, `"inputs"`.

    Raises:
        FusionError: When the members do not fit each other, were trained on some of the data, or
            there is no data; for features, when they come from `cross_fit`.
        DataError: When the data does not fit the members, or a prediction is not finite.
    """
    members = Members.of(members)
    if members.cross_fit is not None:
        return _out_of_fold(members, data, parts)
    members.check_alike()
    if data is None:
        raise FusionError(
            "A fit needs held-out data: call it with (members, (x, y)), or with what cross_fit "
            "gives."
        )
    digests = digest_data(data)
    if not allow_in_sample:
        _check_held_out(members, data, digests)
    # A dataset may come in another order each time: one pass serves all.
    inputs, symbolic = connect(members, parts)
    together = keras.Model(
        inputs,
        keras.tree.flatten((symbolic.outputs, symbolic.features, symbolic.raw)),
        name="members",
    )
    predicted = predict_all(together, data, labels_of=members.models[0])
    waiting = iter(predicted.outputs)
    predictions = symbolic.map(lambda _: next(waiting))
    _check_finite(
        predictions, [f"Member {n} ('{one.name}')" for n, one in enumerate(members.models, start=1)]
    )
    first, outputs = members.models[0], members.outputs[0]
    tasks = infer_tasks(first, predicted.y, outputs=outputs)
    masks = shared_masks(predicted.masks, len(members), len(tasks))
    labels = counted_labels(first, tasks, replace(predicted, masks=masks), outputs)
    check_agreement(members, tasks, labels, predictions.outputs, data)
    return Evidence(Labelled(tasks, labels), predictions, digests, members, data)


def _check_held_out(members: Members, data: Any, digests: Digests) -> None:
    """Compare with each member's training rows those inputs of a row that it takes."""
    taken = [graph.inputs for graph in members.graphs]
    names = {name for one in taken if isinstance(one, dict) for name in one}
    if all(names == set(one) for one in taken if isinstance(one, dict)):
        check_digests_held_out(members.models, digests)
        return
    x = gathered(data).x
    for number, (member, own) in enumerate(zip(members.models, taken, strict=True), start=1):
        known = digest_rows({name: x[name] for name in own})
        check_digests_held_out([member], known, first=number)


def connect(members: Members, parts: Collection[Part] = ()) -> tuple[Any, MemberOutputs]:
    """Copies of the members on one set of new inputs, and their outputs as symbolic tensors."""
    features = "features" in parts
    inputs, tensors = side_by_side(members, _penultimate if features else None)
    count = len(members.outputs[0].each)
    outputs = MemberOutputs(
        outputs=tuple(tuple(one[:count]) for one in tensors),
        features=tuple(tuple(one[count:]) for one in tensors) if features else (),
        raw=_flattened(inputs) if "inputs" in parts else (),
    )
    return inputs, outputs


def _out_of_fold(members: Members, data: Any, parts: Collection[Part]) -> Evidence:
    made = members.cross_fit
    assert made is not None
    if data is not None:
        raise FusionError(
            "Data is given beside what cross_fit gives, which holds its own: leave it out."
        )
    if "features" in parts:
        raise FusionError(
            "Features of models from cross_fit mean something else in each fold: use on='outputs', "
            "or give members and held-out data."
        )
    members.check_alike()
    raw: tuple[Array, ...] = ()
    if "inputs" in parts:
        inputs, _ = side_by_side(members.take([0]))
        flat = predict_arrays(keras.Model(inputs, list(_flattened(inputs))), made.x, 256)
        raw = tuple(to_floats(part) for part in keras.tree.flatten(flat))
    predictions = MemberOutputs(tuple(made.predictions.values()), raw=raw)
    _check_finite(predictions, [f"Member '{name}'" for name in made.members])
    return Evidence(Labelled(made.tasks, made.labels), predictions, made.digests, members)


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


def _check_finite(predictions: MemberOutputs, names: Sequence[str]) -> None:
    for name, outputs in zip(names, predictions.outputs, strict=True):
        if not all(np.isfinite(array).all() for array in outputs):
            raise DataError(f"{name} predicts NaN or infinite numbers: check it.")


def _penultimate(graph: Graph) -> list[TensorRef]:
    """The tensors that the last layers with weights read, on the way to every output.

    Raises:
        FusionError: When there is no such layer, or its features are no vectors.
    """
    found: dict[TensorRef, None] = {}
    waiting = list(reversed(graph.output_refs()))
    while waiting:
        call = graph.calls[waiting.pop().call]
        if not graph.operations[call.operation].weights:
            waiting += reversed(call.inputs())
            continue
        for ref in call.inputs():
            _check_vector(graph, ref, call.operation)
            found[ref] = None
    if not found:
        raise FusionError(f"Model '{graph.name}' has no layer with weights, so it has no features.")
    return list(found)


def _check_vector(graph: Graph, ref: TensorRef, layer: str) -> None:
    spec = graph.spec(ref)
    shape = (*spec.shape[:1], *spec.steps, *spec.shape[1:])
    if len(shape) != 2 or shape[1] is None:
        raise FusionError(
            f"Layer '{layer}' of model '{graph.name}' reads features of shape {shape}, no vectors: "
            "end the model in a pooling or Flatten before its last layer, or use on='outputs'."
        )
