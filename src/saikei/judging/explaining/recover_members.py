"""The members of a fused model, recovered from its graph, and what the fusion computes of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import Array
from saikei.errors import DataError, FusionError
from saikei.fusion.evidence import MemberOutputs, connect
from saikei.fusion.members import Members
from saikei.graph import Graph, TensorRef, build, read
from saikei.graph.internals import use_assigned_statistics
from saikei.graph.own_functions import found_functions, named_functions
from saikei.graph.state import carry_state
from saikei.judging.explaining.coalitions import (
    CascadeCoalitions,
    Coalitions,
    ImputedCoalitions,
    MeanCoalitions,
)
from saikei.models import CascadeModel
from saikei.scoring.inference import infer_tasks
from saikei.scoring.labelled import Labelled
from saikei.scoring.labels import Labels
from saikei.scoring.masks import shared_masks
from saikei.scoring.observed import counted_labels
from saikei.scoring.outputs import mean_terms
from saikei.scoring.predictions import predict_all
from saikei.scoring.task import Task
from saikei.tensors import to_floats
from saikei.training.digests import digest_data
from saikei.training.provenance import rows_in_sample, training_rows

_MEMBER = re.compile(r"member_\d+")
_BATCH = 4096

MakeCoalitions = Callable[[MemberOutputs, tuple[Array, ...]], Coalitions]
Explained = tuple[tuple[Task, ...], tuple[Labels, ...], Coalitions, list[str]]


@dataclass(frozen=True, eq=False)
class Parts:
    """The members that were found in a fused model, and what the fusion computes from them.

    Args:
        heads: A model from the fused model's inputs to the members' outputs, flattened.
        names: The names of the members.
        outputs: The members' outputs as symbolic tensors.
        coalitions: Makes coalitions of the members' predictions and the prior.
        logits: For each output whether members give logits of what is a probability in the fused
            model; empty where none does.
    """

    heads: keras.Model
    names: list[str]
    outputs: MemberOutputs
    coalitions: MakeCoalitions
    logits: tuple[bool, ...] = ()


def recover_members(
    fused: keras.Model, parts: Parts, data: Any, allow_in_sample: bool
) -> Explained:
    """Predict data with the members of a fused model in one pass.

    Args:
        fused: A model that a fusion made.
        parts: Its members, as `find_members` gives them.
        data: Held-out `(x, y)` arrays or a dataset.
        allow_in_sample: Take rows too that a part of the model was trained on.

    Returns:
        Tasks, labels, coalitions, and the names of the members.

    Raises:
        FusionError: When a member was trained on some of the data.
        DataError: When the data does not fit the model, or a prediction is not finite.
    """
    if not allow_in_sample:
        check_held_out(fused, data)
    predicted = predict_all(parts.heads, data, labels_of=fused)
    waiting = iter(predicted.outputs)
    predictions = parts.outputs.map(lambda _: next(waiting))
    for name, member in zip(parts.names, predictions.outputs, strict=True):
        if not all(np.isfinite(one).all() for one in member):
            raise DataError(f"Member '{name}' predicts NaN or infinite numbers: check it.")
    tasks = infer_tasks(fused, predicted.y)
    if parts.logits:
        pairs = zip(tasks, parts.logits, strict=True)
        tasks = tuple(replace(task, from_logits=True) if raw else task for task, raw in pairs)
    masks = shared_masks(predicted.masks, len(predictions.outputs), len(tasks))
    truth = counted_labels(fused, tasks, replace(predicted, masks=masks))
    coalitions = parts.coalitions(
        predictions, Labelled.of(tasks, truth).prior(predictions.outputs[0])
    )
    return tasks, truth, coalitions, parts.names


def check_held_out(fused: keras.Model, data: Any) -> None:
    """Refuse rows that a part of a model was trained on."""
    known = training_rows(fused)
    count = int(rows_in_sample(fused, digest_data(data)).sum()) if known else 0
    if count:
        by = ", ".join(dict.fromkeys(rows.by for rows in known))
        raise FusionError(
            f"Model '{fused.name}' or a member of it was trained on {count:,} of these rows (by "
            f"{by}), where it looks better than it is: give rows that no part of it has seen, or "
            "override with allow_in_sample=True."
        )


def find_members(model: keras.Model) -> Parts | None:
    """The members of a fused model; `None` where no two on the same inputs are found.

    Args:
        model: A built model.

    Raises:
        FusionError: When the members correct each other, so that none predicts alone.
    """
    if isinstance(model, CascadeModel):
        return _of_cascade(model)
    return _of_mean(model) or _of_nested(model)


def _of_cascade(fused: CascadeModel) -> Parts:
    inputs, outputs = connect(Members.of(fused.members))
    return Parts(
        heads=keras.Model(inputs, _flat(outputs)),
        names=[member.name for member in fused.members],
        outputs=outputs,
        coalitions=lambda predictions, prior: CascadeCoalitions(predictions, fused.exits, prior),
    )


def _of_mean(fused: keras.Model) -> Parts | None:
    """Recover the members and weights of a weighted mean from its graph, even after edits."""
    graph = read(fused)
    before = [_before_activation(graph, ref) for ref in graph.output_refs()]
    each = [mean_terms(graph, ref) for ref in before]
    first = each[0]
    if first is None or len(first) < 2:
        return None
    weights = tuple(weight for _, weight in first)
    if any(terms is None or tuple(w for _, w in terms) != weights for terms in each):
        return None
    members = [
        tuple(terms[index][0] for terms in each if terms is not None) for index in range(len(first))
    ]
    outputs = MemberOutputs(tuple(members))
    return Parts(
        heads=build(replace(graph, outputs=_flat(outputs)), "members"),
        names=[f"member_{number}" for number in range(1, len(first) + 1)],
        outputs=outputs,
        coalitions=lambda predictions, prior: MeanCoalitions(predictions, weights, prior),
        logits=tuple(a != b for a, b in zip(before, graph.output_refs(), strict=True)),
    )


def _before_activation(graph: Graph, ref: TensorRef) -> TensorRef:
    """The tensor before a last softmax or sigmoid, which is where a mean in logit space ends."""
    call = graph.calls[ref.call]
    operation = graph.operations[call.operation]
    named = (operation.config or {}).get("activation")
    squashes = operation.kind == "Activation" and named in ("softmax", "sigmoid")
    return call.inputs()[0] if squashes else ref


def _of_nested(fused: keras.Model) -> Parts | None:
    """Recover members that are nested models, called on the inputs of the fused model."""
    # Layers and calls are in an order in which the graph can run, which may be another.
    names = sorted((layer.name for layer in fused.layers if _is_member(layer)), key=_number)
    if len(names) < 2:
        return None
    copy, calls = _copy_with_calls(fused)
    inputs = {id(tensor) for tensor in copy.inputs}
    own = sorted(
        (call for call in calls if call.name in names), key=lambda call: _number(call.name)
    )
    side_by_side = all(id(tensor) in inputs for call in own for tensor in call.taken)
    shapes = [tensor.shape for tensor in copy.outputs]
    alike = all([one.shape for one in call.given[: len(shapes)]] == shapes for call in own)
    if len(own) != len(names) or not (side_by_side and alike):
        return None
    if _is_sum(copy, own, calls):
        raise FusionError(
            f"Model '{fused.name}' sums its members, each of which corrects the sum of those "
            "before it, as Boost does, so that no member predicts the labels alone. Explain a "
            "fusion of members that each predict the labels."
        )
    around = {id(tensor) for call in calls if call.name not in names for tensor in call.taken}
    outputs = MemberOutputs(
        outputs=tuple(tuple(call.given[: len(shapes)]) for call in own),
        features=tuple(tuple(call.given[len(shapes) :]) for call in own),
        raw=tuple(tensor for tensor in copy.inputs if id(tensor) in around),
    )
    rest = keras.Model(_flat(outputs), list(copy.outputs))
    return Parts(
        heads=keras.Model(copy.input, _flat(outputs)),
        names=names,
        outputs=outputs,
        coalitions=lambda predictions, _: ImputedCoalitions.of(
            predictions, lambda part: _run_head(rest, part)
        ),
    )


def _is_sum(model: keras.Model, own: list[_Call], calls: list[_Call]) -> bool:
    """Whether the output is a sum of members, or of multiples of them, before its activation."""
    terms = {id(tensor) for call in own for tensor in call.given}
    for call in calls:
        scales = isinstance(call.layer, keras.layers.Rescaling)
        # A list of scales is one for each class, of a mean.
        if scales and np.ndim(call.layer.scale) == 0 and id(call.taken[0]) in terms:
            terms.add(id(call.given[0]))
    made_by = {id(tensor): call for call in calls for tensor in call.given}
    last = [made_by[id(tensor)] for tensor in model.outputs]
    last = [
        made_by[id(call.taken[0])] if isinstance(call.layer, keras.layers.Activation) else call
        for call in last
    ]
    sums = (call for call in last if isinstance(call.layer, keras.layers.Add))
    return any(all(id(tensor) in terms for tensor in one.taken) for one in sums)


@dataclass(frozen=True, eq=False)
class _Call:
    layer: Any
    taken: list[Any]
    given: list[Any]

    @property
    def name(self) -> str:
        return str(self.layer.name)


def _copy_with_calls(model: keras.Model) -> tuple[keras.Model, list[_Call]]:
    """A copy of a model with the same nesting, and the calls of its layers."""
    calls: list[_Call] = []

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        given = layer(*args, **kwargs)
        taken = [leaf for leaf in tree.flatten((args, kwargs)) if keras.utils.is_keras_tensor(leaf)]
        calls.append(_Call(layer, taken, tree.flatten(given)))
        return given

    with named_functions(model), found_functions(model):
        copy = keras.models.clone_model(model, call_function=call)
    copy.set_weights(model.get_weights())
    use_assigned_statistics(copy)
    carry_state(model, copy)
    return copy, calls


def _run_head(head: keras.Model, predictions: MemberOutputs) -> tuple[Array, ...]:
    """Run the fusion head on stored predictions; `predict_on_batch` avoids predict's start-up."""
    flat = [np.ascontiguousarray(one) for one in _flat(predictions)]
    parts = []
    for start in range(0, len(flat[0]), _BATCH):
        outputs = head.predict_on_batch([one[start : start + _BATCH] for one in flat])
        parts.append([to_floats(output) for output in tree.flatten(outputs)])
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _flat(outputs: MemberOutputs) -> list[Any]:
    return list(tree.flatten((outputs.outputs, outputs.features, outputs.raw)))


def _number(name: str) -> int:
    return int(name.removeprefix("member_"))


def _is_member(layer: Any) -> bool:
    return isinstance(layer, keras.Model) and _MEMBER.fullmatch(layer.name) is not None
