"""One hidden layer as meta-learner: fitted by scikit-learn, made of Keras's layers."""

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
from saikei.fusion.evidence import Said
from saikei.fusion.stacking.forms import View
from saikei.fusion.stacking.linear import Linear, Scaling, from_coefficients, link_of
from saikei.fusion.stacking.metas import KerasMeta, best_of
from saikei.fusion.stacking.targets import Target, folds_of

_HIDDEN = 32
_MOST_STEPS = 200
# Weights on the squares of the weights.
_DECAYS = (0.01, 0.1, 1.0, 10.0)


def fit_mlp(
    view: View, said: Said, target: Target, folds: int, seed: int
) -> tuple[float, KerasMeta]:
    """Fit an MLP under the weight decay that validates.

    Args:
        view: the columns.
        said: by the members.
        target: labels.
        folds: of the cross-validation.
        seed: of its folds and of the first weights.

    Returns:
        The out-of-fold loss, and the meta-learner.
    """
    x = view.matrix(said)
    scaling = Scaling.of(x, view.of_one_scale(said))
    x = scaling(x)
    parts = folds_of(target, folds, seed)
    tried = []
    for decay in _DECAYS:
        loss = 0.0
        for fold in parts:
            hidden, output = _fitted(x[fold.train], target.take(fold.train), decay, seed)
            scores = output(np.maximum(hidden(x[fold.test]), 0))
            loss += target.loss(scores, fold.test) * len(fold.test) / len(x)
        tried.append((loss, decay))
    decay = best_of(tried)
    hidden, output = _fitted(x, target, decay, seed)
    return min(tried)[0], KerasMeta(view, _model(scaling.folded(hidden), output, view), {})


def _fitted(x: Array, target: Target, decay: float, seed: int) -> tuple[Linear, Linear]:
    regression = target.task.kind == "regression"
    model: Any = (MLPRegressor if regression else MLPClassifier)(
        (_HIDDEN,), solver="lbfgs", alpha=decay, max_iter=_MOST_STEPS, random_state=seed % 2**32
    )
    with warnings.catch_warnings():
        # Stopping early is wanted; cross-validation judges what came out.
        warnings.simplefilter("ignore", ConvergenceWarning)
        y = target.y[:, 0] if regression and target.y.shape[1] == 1 else target.y
        model.fit(x, y, **_weighted(model, target))
    (first, last), (offset, bias) = model.coefs_, model.intercepts_
    return Linear(first, offset), from_coefficients(last.T, bias, target.task.kind == "multiclass")


def _weighted(model: Any, target: Target) -> dict[str, Any]:
    if target.row_weights is None:
        return {}
    if not has_fit_parameter(model, "sample_weight"):
        raise FusionError(
            "meta='mlp' takes sample weights with scikit-learn 1.7 or later: install that, or use "
            "meta='auto'."
        )
    return {"sample_weight": target.row_weights}


def _model(hidden: Linear, output: Linear, view: View) -> keras.Model:
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
