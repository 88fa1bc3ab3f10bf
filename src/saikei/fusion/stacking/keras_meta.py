"""The caller's own Keras architecture as meta-learner."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from saikei.batches import Array
from saikei.errors import FusionError
from saikei.fusion.evidence import Said
from saikei.fusion.stacking.forms import View
from saikei.fusion.stacking.linear import Scaling
from saikei.fusion.stacking.metas import KerasMeta
from saikei.fusion.stacking.targets import Target, folds_of
from saikei.graph import copy_model, fresh_model
from saikei.scoring.task import Task
from saikei.training.fit import fit

_EPOCHS, _PATIENCE, _LEARNING_RATE = 60, 5, 3e-3


def fit_keras(
    meta: keras.Model, view: View, said: Said, target: Target, folds: int, seed: int
) -> tuple[float, KerasMeta]:
    """Train a Keras model on all folds but one, and keep the weights that are best on that one.

    Args:
        meta: an architecture, whose weights are drawn anew.
        view: the columns.
        said: by the members.
        target: labels.
        folds: their number; one part is held out.
        seed: of the folds, the first weights and the order of the rows.

    Returns:
        The held-out loss, and the meta-learner.

    Raises:
        FusionError: when the architecture does not fit the columns or the outputs.
    """
    fold = folds_of(target, folds, seed)[0]
    x = view.matrix(said)
    scaling = Scaling.of(x[fold.train], view.of_one_scale(said))
    model = _model(meta, view.task, x.shape[1], scaling, seed)
    model.compile(loss=view.task.loss)
    parts = [_data(x[rows], target.take(rows)) for rows in (fold.train, fold.test)]
    fit(
        model,
        *parts,
        epochs=_EPOCHS,
        patience=_PATIENCE,
        learning_rate=_LEARNING_RATE,
        seed=seed,
        progress=False,
    )
    loss = float(model.evaluate(*parts[1], verbose=0, return_dict=True)["loss"])
    return loss, KerasMeta(view, copy_model(model), {})


def _data(x: Array, target: Target) -> tuple[Any, ...]:
    weights, numbers = target.row_weights, x.astype(np.float32)
    if weights is None:
        return numbers, target.labels.values
    return numbers, target.labels.values, weights.astype(np.float32)


def _model(meta: keras.Model, task: Task, columns: int, scaling: Scaling, seed: int) -> keras.Model:
    _check_fits(meta, task, columns)
    inputs = keras.Input((columns,), name="columns")
    scaled: Any = keras.layers.Normalization(
        mean=scaling.shift, variance=scaling.scale**2, dtype="float32", name="standardised"
    )(inputs)
    return keras.Model(inputs, fresh_model(meta, seed)(scaled))


def _check_fits(meta: keras.Model, task: Task, columns: int) -> None:
    inputs, outputs = [tuple(t.shape) for t in meta.inputs], [tuple(t.shape) for t in meta.outputs]
    if inputs != [(None, columns)] or outputs != [(None, task.outputs)]:
        raise FusionError(
            f"meta='{meta.name}' takes {inputs} and gives {outputs}, but there are {columns} "
            f"columns and {task.outputs} outputs: build it with keras.Input(({columns},)) and "
            f"{task.outputs} units at the end."
        )
