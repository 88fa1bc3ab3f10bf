"""`explain_model`: what the parts of one model contribute, and what it looks at in its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import tree
from numpy.typing import NDArray

from saikei.batches import ArrayData
from saikei.calibration.affordable import fewer
from saikei.calibration.samples import Samples, calibration_samples
from saikei.channels import map_channels
from saikei.errors import InputError
from saikei.graph import Graph, read
from saikei.judging.explaining.attention import Maps, maps_of
from saikei.judging.explaining.sensitivity import rows_for, sensitivities
from saikei.runs.explained import Agreement, Attention, Feature, ModelExplanation, SampleMaps
from saikei.runs.pictures import as_image, overlay, picture
from saikei.scoring.inference import infer_tasks
from saikei.scoring.labelled import Labelled
from saikei.scoring.observed import counted_labels
from saikei.scoring.task import Task
from saikei.training.targets import Targets

# Samples whose maps are compared, images that are shown, and numbers of inputs that are shown.
_COMPARED, _SHOWN, _FEATURES = 64, 8, 20

Array = NDArray[Any]


def explain_model(
    model: keras.Model,
    data: Any,
    *,
    original: keras.Model | None = None,
    metric: Literal["loss", "accuracy"] = "loss",
    class_names: Sequence[str] = (),
) -> ModelExplanation:
    """Explain one model: the importance of its channel groups, and what it looks at.

    Args:
        model: A built model; it is not changed.
        data: `(x, y)` arrays or a dataset. Without labels, the predictions of the original, or
            else of the model, take their place.
        original: A model with the same inputs and outputs, such as the one that `model` was made
            from, whose maps are shown beside those of `model`.
        metric: `"loss"`, log-loss or squared error, summed over outputs; or `"accuracy"`, of one
            output with classes.
        class_names: Names of the classes, in the order of their numbers.

    Raises:
        InputError: When the two models do not take the same inputs and outputs, or the metric is
            not one of the task.
        DataError: When the data does not fit the model.
        ModelError: When the model cannot be read.
    """
    channel_map = map_channels(read(model))
    rows, shares = rows_for(channel_map)
    samples = calibration_samples(channel_map.graph, data, rows)
    samples = fewer(channel_map.graph, samples, tensors=6)
    judged = _judged(model, original, samples)
    if metric == "accuracy" and judged[-1].scores.tasks[0].metric != "accuracy":
        raise InputError(
            "metric='accuracy' is for one output with classes: leave it out for this model."
        )
    # Gradients of the loss need labels other than the model's own predictions.
    criterion = "activation" if samples.labels is None else "taylor"
    last = judged[-1]
    return ModelExplanation(
        models=tuple(one.name for one in judged),
        scores=tuple(one.scores.score(one.outputs) for one in judged),
        metric=_metric_name(last.scores.tasks, metric),
        criterion=criterion,
        rows=len(samples),
        groups=sensitivities(channel_map, samples, criterion, last.loss(metric), shares),
        attention=_attention(judged, samples, class_names),
    )


def attention_of(
    model: keras.Model,
    data: Any,
    original: keras.Model | None = None,
    class_names: Sequence[str] = (),
) -> Attention:
    """What a model looks at, beside what its original looks at; as in `explain_model`."""
    samples = calibration_samples(read(model), data, _COMPARED)
    return _attention(_judged(model, original, samples), samples, class_names)


def _attention(
    judged: Sequence[_Judged], samples: Samples, class_names: Sequence[str]
) -> Attention:
    maps = [one.maps(samples, judged[0]) for one in judged]
    return Attention(
        models=tuple(one.name for one in judged),
        agreement=tuple(_agreements(*maps)) if len(maps) == 2 else (),
        features=_features(maps),
        samples=tuple(_pictures(samples, judged[0], maps, class_names)),
    )


@dataclass(frozen=True, eq=False)
class _Judged:
    """A model with the labels of the rows and its outputs for them."""

    name: str
    model: keras.Model
    scores: Labelled
    outputs: tuple[Array, ...]

    def loss(self, metric: str) -> Any:
        if metric == "accuracy":
            return lambda outputs: 1 - self.scores.score(outputs).value
        return self.scores.loss

    def maps(self, samples: Samples, reference: _Judged) -> Maps:
        """Its maps of the first rows, about what the reference predicts for them."""
        taken = samples.take(np.arange(min(_COMPARED, len(samples))))
        pairs = zip(reference.scores.tasks, reference.outputs, strict=True)
        about = [_weights(task, output[: len(taken)]) for task, output in pairs]
        return maps_of(self.model, self.scores.tasks, taken.inputs, about)


def _judged(
    model: keras.Model, original: keras.Model | None, samples: Samples
) -> tuple[_Judged, ...]:
    """The original, if there is one, and the model."""
    if original is not None:
        _check_alike(original, model)
    first = original or model
    labels, judged = samples.labels, list[_Judged]()
    if labels is None:
        labels = Targets.of(first, first).labels(samples.inputs, hard=True)
    for name, one in (("original", original), (model.name, model)):
        if one is None:
            continue
        outputs = Labelled((), (), x=samples.inputs).predict(one)
        tasks = infer_tasks(one, labels)
        data = ArrayData(samples.inputs, labels, samples.weights)
        scores = Labelled.of(tasks, counted_labels(one, tasks, data), outputs)
        judged.append(_Judged(name, one, scores, outputs))
    return tuple(judged)


def _check_alike(original: keras.Model, model: keras.Model) -> None:
    one, other = (_interface(read(each)) for each in (original, model))
    if one != other:
        raise InputError(
            f"The original '{original.name}' has inputs and outputs of shapes {one}, and "
            f"'{model.name}' of {other}: give the model that '{model.name}' was made from."
        )


def _interface(graph: Graph) -> list[list[tuple[int | None, ...]]]:
    sides = (graph.input_refs(), graph.output_refs())
    return [[tuple(graph.spec(ref).shape[1:]) for ref in side] for side in sides]


def _weights(task: Task, output: Array) -> Array:
    """Weights of the logits or numbers of an output: the evidence for what is predicted."""
    if task.kind == "regression":
        return np.ones(output.shape, "float32")
    middle = 0.0 if task.from_logits else 0.5
    if task.kind != "multiclass":
        return np.where(output > middle, 1.0, -1.0).astype("float32")
    chosen = output.argmax(axis=-1)[..., None] == np.arange(output.shape[-1])
    return np.asarray(chosen - 1.0 / output.shape[-1], dtype="float32")


def _metric_name(tasks: Sequence[Task], metric: str) -> str:
    if metric == "accuracy":
        return "error rate"
    if len(tasks) > 1:
        return "loss"
    return "squared error" if tasks[0].kind == "regression" else "log-loss"


def _agreements(one: Maps, other: Maps) -> Iterator[Agreement]:
    for name, first in one.gradients.items():
        second = other.gradients[name]
        images = first.ndim == 4
        maps = [each.sum(axis=-1) if images else each for each in (first, second)]
        several = f" of {name}" if len(one.gradients) > 1 else ""
        yield from _agreement(f"gradient × input{several}", *maps)
    if one.cam is not None and other.cam is not None:
        size = tuple(max(pair) for pair in zip(one.cam.shape, other.cam.shape, strict=True))[1:]
        yield from _agreement("Grad-CAM", *(_resized(each.cam, size) for each in (one, other)))


def _agreement(method: str, first: Array, second: Array) -> Iterator[Agreement]:
    """The correlation of the maps, where there are at least two samples whose maps vary."""
    flat = [each.reshape(len(each), -1).astype(np.float64) for each in (first, second)]
    flat = [each - each.mean(axis=1, keepdims=True) for each in flat]
    norms = [np.linalg.norm(each, axis=1) for each in flat]
    varied = (norms[0] > 0) & (norms[1] > 0)
    if varied.sum() < 2:
        return
    a, b = (each[varied] / norm[varied, None] for each, norm in zip(flat, norms, strict=True))
    same, mixed = (a * b).sum(axis=1), (a * np.roll(b, 1, axis=0)).sum(axis=1)
    yield Agreement(method, float(same.mean()), float(mixed.mean()))


def _features(maps: Sequence[Maps]) -> tuple[Feature, ...]:
    """The numbers of inputs without positions, by the mean over the models."""
    found: dict[str, list[float]] = {}
    for one in maps:
        total = sum(float(np.abs(each).sum()) for each in one.gradients.values()) or 1.0
        for name, each in one.gradients.items():
            if each.ndim != 2:
                continue
            for column, value in enumerate(np.abs(each).sum(axis=0) / total):
                label = name if each.shape[1] == 1 else f"{name}[{column}]"
                found.setdefault(label, []).append(float(value))
    ordered = sorted(found.items(), key=lambda pair: -sum(pair[1]))
    return tuple(Feature(name, tuple(shares)) for name, shares in ordered[:_FEATURES])


def _pictures(
    samples: Samples, reference: _Judged, maps: Sequence[Maps], classes: Sequence[str]
) -> Iterator[SampleMaps]:
    """The images among the inputs with the maps of each model."""
    arrays = tree.flatten(samples.inputs)
    images = [array for array in arrays if as_image(array, 0) is not None]
    if len(images) != 1 or len(maps[0].gradients) != 1:
        return
    (gradients,) = zip(*(one.gradients.values() for one in maps), strict=True)
    for row in range(min(_SHOWN, len(images[0]))):
        pixels = as_image(images[0], row)
        assert pixels is not None
        sides = pixels.shape[:2]
        cams = [None if m.cam is None else _resized(m.cam[row : row + 1], sides)[0] for m in maps]
        yield SampleMaps(
            row=row,
            about=_class_of(reference, row, classes, reference.outputs[0]),
            label="" if samples.labels is None else _label_of(reference, row, classes),
            picture=picture(pixels),
            gradients=tuple(overlay(pixels, _flat_map(each[row], sides)) for each in gradients),
            cams=tuple(overlay(pixels, each, 1.0) for each in cams if each is not None),
        )


def _flat_map(values: Array, sides: tuple[int, ...]) -> Array:
    return np.asarray(values.reshape(*sides, -1).sum(axis=-1))


def _class_of(one: _Judged, row: int, classes: Sequence[str], outputs: Array) -> str:
    """The class that has the highest output; empty if the task has no single class."""
    task = one.scores.tasks[0]
    values = np.asarray(outputs[row])
    if task.kind == "multiclass" and values.ndim == 1:
        return _name(int(values.argmax()), classes)
    if task.kind == "binary" and values.size == 1:
        return _name(int(values.reshape(-1)[0] > (0.0 if task.from_logits else 0.5)), classes)
    return ""


def _label_of(one: _Judged, row: int, classes: Sequence[str]) -> str:
    task, values = one.scores.tasks[0], np.asarray(one.scores.labels[0].values)[row]
    if task.kind not in ("multiclass", "binary") or np.ndim(values) > 1:
        return ""
    if task.kind == "multiclass" and not task.sparse:
        return _name(int(np.argmax(values)), classes)
    return _name(int(np.reshape(values, -1)[0].round()), classes) if np.size(values) == 1 else ""


def _name(number: int, classes: Sequence[str]) -> str:
    return classes[number] if number < len(classes) else str(number)


def _resized(maps: Array | None, sides: Sequence[int]) -> Array:
    """Maps `(rows, height, width)` in another size, bilinear."""
    assert maps is not None
    for axis, size in ((1, sides[0]), (2, sides[1])):
        old = maps.shape[axis]
        at = ((np.arange(size) + 0.5) * old / size - 0.5).clip(0, old - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, old - 1)
        part = (at - low).reshape((1, -1, 1) if axis == 1 else (1, 1, -1))
        maps = maps.take(low, axis) * (1 - part) + maps.take(high, axis) * part
    return maps
