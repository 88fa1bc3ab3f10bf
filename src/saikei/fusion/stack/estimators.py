"""Estimators of scikit-learn as layers: linear ones are read as a kernel and a bias."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.utils.validation import has_fit_parameter

from saikei.batches import Array
from saikei.errors import FusionError
from saikei.fusion.stack.linear import LinearMap, from_coefficients
from saikei.fusion.stack.targets import StackLabels, folds_of
from saikei.scoring.links import link_of, probabilities_of

_TOLERANCE = 1e-6


def is_estimator(meta: object) -> bool:
    """Whether the object is a classifier or regressor of scikit-learn, or follows its rules."""
    return hasattr(meta, "fit") and hasattr(meta, "get_params") and hasattr(meta, "predict")


def fit_estimator(estimator: Any, x: Array, target: StackLabels) -> LinearMap:
    """Fit a clone, and read it as a linear function.

    Any estimator that computes a linear function will do, pipelines and searches over parameters
    too: its kernel and bias are its values at zero and at one for each column, and the linear
    function is compared with it on all rows.

    Args:
        estimator: An unfitted estimator; it is not changed.
        x: Columns, `(n, columns)`.
        target: The labels to fit to.

    Raises:
        FusionError: When the estimator is of the wrong kind or is not linear.
    """
    name = type(estimator).__name__
    regression = target.task.kind == "regression"
    if not (is_regressor if regression else is_classifier)(estimator):
        raise FusionError(
            f"meta={name} is no {'regressor' if regression else 'classifier'}, which the members' "
            f"task ({target.task.kind}) needs: give one."
        )
    y = target.y[:, 0] if regression and target.y.shape[1] == 1 else target.y
    fitted = clone(estimator).fit(x, y, **_weighted(estimator, target))
    scores = getattr(fitted, "predict" if regression else "decision_function", None)
    if scores is None or not (regression or hasattr(fitted, "predict_proba")):
        raise _not_linear(name)
    bias, *rows = np.asarray(scores(np.eye(x.shape[1] + 1, x.shape[1], k=-1)), dtype=np.float64)
    # Two classes give one score, several give one each.
    kernel = np.reshape(rows, (x.shape[1], -1)) - np.reshape(bias, (1, -1))
    multiclass = target.task.kind == "multiclass"
    linear = from_coefficients(kernel.T, np.reshape(bias, -1), multiclass)
    _check_same(name, linear, fitted, x, target)
    return linear


def _weighted(estimator: Any, target: StackLabels) -> dict[str, Any]:
    """The sample weights as an argument of `fit`; empty where all rows count alike."""
    if target.row_weights is None:
        return {}
    steps = getattr(estimator, "steps", None)
    last, prefix = (steps[-1][1], f"{steps[-1][0]}__") if steps else (estimator, "")
    if not has_fit_parameter(last, "sample_weight"):
        raise FusionError(
            f"meta={type(estimator).__name__} takes no sample weights, which the data has: give "
            "an estimator whose fit takes sample_weight, such as LogisticRegression or Ridge."
        )
    return {f"{prefix}sample_weight": target.row_weights}


def out_of_fold_loss(estimator: Any, x: Array, target: StackLabels, folds: int, seed: int) -> float:
    """Mean loss of an estimator on folds that it was not fitted on."""
    total = 0.0
    for fold in folds_of(target, folds, seed):
        linear = fit_estimator(estimator, x[fold.train], target.take(fold.train))
        total += target.loss(linear(x[fold.test]), fold.test) * len(fold.test)
    return total / len(x)


def _check_same(name: str, linear: LinearMap, fitted: Any, x: Array, target: StackLabels) -> None:
    if target.task.kind == "regression":
        expected = np.asarray(fitted.predict(x)).reshape(len(x), -1)
    else:
        expected = np.asarray(fitted.predict_proba(x))
    given = probabilities_of(linear(x), link_of(target.task.kind))
    if target.task.kind == "binary":
        expected = expected[:, 1:]
    scale = max(1.0, float(np.abs(expected).max()))
    if expected.shape != given.shape or np.abs(expected - given).max() > _TOLERANCE * scale:
        raise _not_linear(name)


def _not_linear(name: str) -> FusionError:
    return FusionError(
        f"meta={name} is not linear (its probabilities must be the softmax or sigmoid of a linear "
        "function), so it cannot become layers of one graph: give a linear one, such as "
        "LogisticRegression or Ridge, meta='mlp', or a Keras model."
    )
