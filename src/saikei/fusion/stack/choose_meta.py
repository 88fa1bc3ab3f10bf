"""The meta-learner of one output: views and regularisations are compared by cross-validation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import keras
import numpy as np

from saikei.errors import FusionError
from saikei.fusion.evidence import Evidence
from saikei.fusion.stack.columns import On, View, views
from saikei.fusion.stack.estimators import fit_estimator, out_of_fold_loss
from saikei.fusion.stack.keras_metas import fit_keras, fit_mlp
from saikei.fusion.stack.linear import (
    STRENGTHS,
    Path,
    Scaling,
    cross_validated,
    logistic,
    pooled,
    ridge,
    strengths_of,
)
from saikei.fusion.stack.metas import KerasMeta, LinearMeta, Meta, best_of
from saikei.fusion.stack.targets import StackLabels, stack_labels


def choose_meta(
    meta: Any, evidence: Evidence, index: int, on: On, passthrough: bool, folds: int, seed: int
) -> Meta:
    """Fit a meta-learner for one output.

    Args:
        meta: `"logistic"`, `"ridge"`, `"mlp"`, a Keras model or an estimator of scikit-learn.
        evidence: Labels, and the members' predictions.
        index: The index of the output.
        on: What is read of the members, `"outputs"` or `"features"`.
        passthrough: Whether the inputs are read too.
        folds: The number of folds of the cross-validation.
        seed: Seed of the folds.

    Raises:
        FusionError: When the meta-learner does not fit the task.
        DataError: When a class has too few rows.
    """
    task = evidence.tasks[index]
    counted = evidence.labels[index].counted
    if not counted.all():
        evidence = evidence.take(np.flatnonzero(counted))
    target = stack_labels(task, evidence.labels[index])
    seen = views(task, index, on, passthrough)
    if meta in ("logistic", "ridge"):
        _check_kind(meta, task.kind)
        return _linear(seen, evidence, target, folds, seed)
    if meta == "mlp" or isinstance(meta, keras.Model):
        return _keras(meta, seen, evidence, target, folds, seed)
    return _estimator(meta, seen, evidence, target, folds, seed)


def _check_kind(meta: str, kind: str) -> None:
    if (meta == "ridge") != (kind == "regression"):
        other = "ridge" if kind == "regression" else "logistic"
        raise FusionError(f"meta='{meta}' does not fit a {kind} output: use meta='{other}'.")


def _paths(view: View, evidence: Evidence) -> dict[str, Path]:
    if view.task.kind == "regression":
        return {"ridge": ridge}
    found: dict[str, Path] = {"logistic": logistic}
    shared = view.form == "log-probabilities" and not view.passthrough
    if shared and view.task.kind == "multiclass":
        found["pooled"] = pooled(len(evidence.predictions.outputs))
    return found


def _linear(
    seen: tuple[View, ...], evidence: Evidence, target: StackLabels, folds: int, seed: int
) -> Meta:
    losses: dict[str, Any] = {}
    found = []
    for view in seen:
        x = view.matrix(evidence.predictions)
        scaling = Scaling.of(x, view.of_one_scale(evidence.predictions))
        for name, path in _paths(view, evidence).items():
            tried = cross_validated(path, scaling(x), target, folds, seed)
            losses[f"{name} on {view.form}"] = strengths_of(tried.losses)
            found.append((min(tried.losses), (view, name, tried, scaling, x)))
    view, name, tried, scaling, x = best_of(found)
    linear = scaling.folded(tried.fitted(scaling(x), target))
    chosen = {"meta": name, "strength": STRENGTHS[tried.best]}
    return LinearMeta(view, linear, chosen, losses)


def _estimator(
    meta: Any,
    seen: tuple[View, ...],
    evidence: Evidence,
    target: StackLabels,
    folds: int,
    seed: int,
) -> Meta:
    losses: dict[str, Any] = {}
    for view in seen:
        x = view.matrix(evidence.predictions)
        losses[view.form] = out_of_fold_loss(meta, x, target, folds, seed)
    view = best_of([(losses[view.form], view) for view in seen])
    linear = fit_estimator(meta, view.matrix(evidence.predictions), target)
    return LinearMeta(view, linear, {"meta": type(meta).__name__}, losses)


def _keras(
    meta: Literal["mlp"] | keras.Model,
    seen: tuple[View, ...],
    evidence: Evidence,
    target: StackLabels,
    folds: int,
    seed: int,
) -> Meta:
    tried = [
        fit_mlp(view, evidence.predictions, target, folds, seed)
        if isinstance(meta, str)
        else fit_keras(meta, view, evidence.predictions, target, folds, seed)
        for view in seen
    ]
    losses: dict[str, Any] = {one.view.form: loss for loss, one in tried}
    best: KerasMeta = best_of(tried)
    return replace(best, losses=losses)
