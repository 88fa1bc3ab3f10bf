"""Keras models as meta-learners: the caller's own, or one hidden layer fitted by scikit-learn."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils.validation import has_fit_parameter

from saikei.batches import Array
from saikei.errors import FusionError
from saikei.fusion.evidence import MemberOutputs
from saikei.fusion.stack.columns import View
from saikei.fusion.stack.linear import LinearMap, Scaling, from_coefficients
from saikei.fusion.stack.metas import KerasMeta, best_of
from saikei.fusion.stack.targets import StackLabels, folds_of
from saikei.graph import copy_model, fresh_model
from saikei.scoring.links import link_of
from saikei.scoring.task import Task
from saikei.training.fit import fit

_EPOCHS, _PATIENCE, _LEARNING_RATE = 60, 5, 3e-3


def fit_keras(
    meta: keras.Model,
    view: View,
    predictions: MemberOutputs,
    target: StackLabels,
    folds: int,
    seed: int,
) -> tuple[float, KerasMeta]:
    """Train a Keras model on all folds but one, and keep the weights that are best on that one.

    Args:
        meta: An architecture, whose weights are drawn anew.
        view: The columns that it reads.
        predictions: The members' predictions.
        target: The labels to fit to.
        folds: The number of parts that the rows are split into; one of them is held out.
        seed: Seed of the split, the new weights and the order of the rows.

    Returns:
        The held-out loss, and the meta-learner.

    Raises:
        FusionError: When the architecture does not fit the columns or the outputs.
    """
    fold = folds_of(target, folds, seed)[0]
    x = view.matrix(predictions)
    scaling = Scaling.of(x[fold.train], view.of_one_scale(predictions))
    model = _behind_scaling(meta, view.task, x.shape[1], scaling, seed)
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


def _data(x: Array, target: StackLabels) -> tuple[Any, ...]:
    weights, numbers = target.row_weights, x.astype(np.float32)
    if weights is None:
        return numbers, target.labels.values
    return numbers, target.labels.values, weights.astype(np.float32)


def _behind_scaling(
    meta: keras.Model, task: Task, columns: int, scaling: Scaling, seed: int
) -> keras.Model:
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


_HIDDEN = 32
_MLP_STEPS = 200
# Factors of the sum of squared weights in the loss.
_DECAYS = (0.01, 0.1, 1.0, 10.0)


def fit_mlp(
    view: View, predictions: MemberOutputs, target: StackLabels, folds: int, seed: int
) -> tuple[float, KerasMeta]:
    """Fit an MLP with the weight decay of the lowest out-of-fold loss.

    Returns:
        The out-of-fold loss, and the meta-learner.
    """
    x = view.matrix(predictions)
    scaling = Scaling.of(x, view.of_one_scale(predictions))
    x = scaling(x)
    parts = folds_of(target, folds, seed)
    tried = []
    for decay in _DECAYS:
        loss = 0.0
        for fold in parts:
            hidden, output = _fitted_mlp(x[fold.train], target.take(fold.train), decay, seed)
            scores = output(np.maximum(hidden(x[fold.test]), 0))
            loss += target.loss(scores, fold.test) * len(fold.test) / len(x)
        tried.append((loss, decay))
    decay = best_of(tried)
    hidden, output = _fitted_mlp(x, target, decay, seed)
    return min(tried)[0], KerasMeta(view, _network(scaling.folded(hidden), output, view), {})


def _fitted_mlp(
    x: Array, target: StackLabels, decay: float, seed: int
) -> tuple[LinearMap, LinearMap]:
    regression = target.task.kind == "regression"
    model: Any = (MLPRegressor if regression else MLPClassifier)(
        (_HIDDEN,), solver="lbfgs", alpha=decay, max_iter=_MLP_STEPS, random_state=seed % 2**32
    )
    with warnings.catch_warnings():
        # Stopping early is intended; cross-validation judges the result.
        warnings.simplefilter("ignore", ConvergenceWarning)
        y = target.y[:, 0] if regression and target.y.shape[1] == 1 else target.y
        model.fit(x, y, **_weighted(model, target))
    (first, last), (offset, bias) = model.coefs_, model.intercepts_
    return LinearMap(first, offset), from_coefficients(
        last.T, bias, target.task.kind == "multiclass"
    )


def _weighted(model: Any, target: StackLabels) -> dict[str, Any]:
    if target.row_weights is None:
        return {}
    if not has_fit_parameter(model, "sample_weight"):
        raise FusionError(
            "meta='mlp' takes sample weights with scikit-learn 1.7 or later: install that, or use "
            "meta='auto'."
        )
    return {"sample_weight": target.row_weights}


def _network(hidden: LinearMap, output: LinearMap, view: View) -> keras.Model:
    link = None if view.task.from_logits else link_of(view.task.kind)
    columns, units = hidden.kernel.shape
    model = keras.Sequential(
        [
            keras.Input((columns,)),
            keras.layers.Dense(units, activation="relu", dtype="float32", name="hidden"),
            keras.layers.Dense(
                output.kernel.shape[1], activation=link, dtype="float32", name="output"
            ),
        ],
        name="mlp",
    )
    arrays = (hidden.kernel, hidden.bias, output.kernel, output.bias)
    model.set_weights([np.float32(array) for array in arrays])
    return model
