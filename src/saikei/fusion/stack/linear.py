"""Linear meta-learners along a path of regularisation, chosen by cross-validation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import optimize, special
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from saikei.batches import Array
from saikei.fusion.stack.targets import StackLabels, folds_of

# From strong to weak regularisation, each started from the one before.
STRENGTHS = tuple(10.0**power for power in range(-4, 5))
_MOST_STEPS = 2000


@dataclass(frozen=True, eq=False)
class LinearMap:
    """Scores `x @ kernel + bias`.

    Args:
        kernel: The weights, `(columns, outputs)`.
        bias: The bias, `(outputs,)`.
    """

    kernel: Array = field(repr=False)
    bias: Array = field(repr=False)

    def __call__(self, x: Array) -> Array:
        """Logits, or the numbers themselves in regression."""
        return np.asarray(x @ self.kernel + self.bias)


@dataclass(frozen=True, eq=False)
class Scaling:
    """Standardisation of columns, to be folded into the weights behind it.

    Args:
        shift: Subtracted from each column, `(columns,)`.
        scale: Each column is divided by it afterwards, `(columns,)`.
    """

    shift: Array
    scale: Array

    @classmethod
    def of(cls, x: Array, left_alone: Array) -> Scaling:
        """The scaling that standardises columns `(n, columns)`; those of `left_alone` stay."""
        spread = np.where(left_alone, 1.0, x.std(axis=0))
        # Nearly constant columns would get weights that are huge for the first row that differs.
        floor = 1e-3 * float(spread.max(initial=0.0)) or 1.0
        return cls(np.where(left_alone, 0.0, x.mean(axis=0)), np.maximum(spread, floor))

    def __call__(self, x: Array) -> Array:
        """The scaled columns."""
        return np.asarray((x - self.shift) / self.scale)

    def folded(self, linear: LinearMap) -> LinearMap:
        """The linear map of unscaled columns that equals `linear` of scaled ones."""
        kernel = linear.kernel / self.scale[:, None]
        return LinearMap(kernel, linear.bias - self.shift @ kernel)


Path = Callable[[Array, StackLabels], Iterator[LinearMap]]


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """A path that was cross-validated.

    Args:
        losses: Mean out-of-fold loss at each strength that was reached.
        path: The meta-learner that was tried.
    """

    losses: tuple[float, ...]
    path: Path

    @property
    def best(self) -> int:
        """The index of the best strength."""
        return int(np.argmin(self.losses))

    def fitted(self, x: Array, target: StackLabels) -> LinearMap:
        """Fit with the best strength on all rows."""
        steps = self.path(x, target)
        return [next(steps) for _ in range(self.best + 1)][-1]


def cross_validated(
    path: Path, x: Array, target: StackLabels, folds: int, seed: int
) -> CrossValidated:
    """Follow a path in all folds at once, until the loss has risen twice in a row.

    Args:
        path: Fits a linear map for each strength.
        x: Standardised columns, `(n, columns)`.
        target: The labels to fit to.
        folds: The number of folds.
        seed: Seed of the folds.
    """
    parts = folds_of(target, folds, seed)
    walks = [path(x[fold.train], target.take(fold.train)) for fold in parts]
    losses: list[float] = []
    for steps in zip(*walks, strict=True):
        each = [
            target.loss(linear(x[fold.test]), fold.test) * len(fold.test)
            for linear, fold in zip(steps, parts, strict=True)
        ]
        losses.append(float(sum(each)) / sum(len(fold.test) for fold in parts))
        if len(losses) > 2 and losses[-1] > losses[-2] > losses[-3]:
            break
    return CrossValidated(tuple(losses), path)


def logistic(x: Array, target: StackLabels) -> Iterator[LinearMap]:
    """Multinomial or binary logistic regression; for several labels one binary model each."""
    if target.task.kind != "multilabel":
        yield from _one_logistic(x, target.y, target.task.kind == "multiclass", target.row_weights)
        return
    walks = [
        _one_logistic(x, column, False, _column(target.weights, c))
        for c, column in enumerate(target.y.T)
    ]
    for each in zip(*walks, strict=True):
        yield LinearMap(
            np.concatenate([one.kernel for one in each], axis=1),
            np.concatenate([one.bias for one in each]),
        )


def ridge(x: Array, target: StackLabels) -> Iterator[LinearMap]:
    """Least squares with a penalty on the squares of the weights."""
    weights = target.weights
    for strength in STRENGTHS:
        if weights is None or weights.ndim == 1:
            model = Ridge(alpha=1.0 / strength).fit(x, target.y, sample_weight=weights)
            yield LinearMap(np.atleast_2d(model.coef_).T, np.atleast_1d(model.intercept_))
            continue
        each = [
            Ridge(alpha=1.0 / strength).fit(x, y, sample_weight=own)
            for y, own in zip(target.y.T, weights.T, strict=True)
        ]
        kernel = np.stack([one.coef_ for one in each], axis=1)
        yield LinearMap(kernel, np.array([one.intercept_ for one in each]))


def pooled(members: int) -> Path:
    """One weight for each member and one bias for each class, over log-probabilities.

    `log p(c) = Σ wₘ log pₘ(c) + b(c) - log Z`, the logarithmic opinion pool; a common factor of
    the weights is a temperature. The penalty pulls towards equal weights of sum 1.

    Args:
        members: The number of members; columns are their log-probabilities, member by member.
    """

    def path(x: Array, target: StackLabels) -> Iterator[LinearMap]:
        classes = target.task.outputs
        given = x.reshape(len(x), members, classes)
        truth = np.eye(classes)[target.y]
        counts = target.labels.rows()[:, None]
        start = np.concatenate([np.full(members, 1.0 / members), np.zeros(classes)])
        found = start
        for strength in STRENGTHS:
            penalty = 1.0 / (strength * len(x))
            args = (given, truth * counts, start, penalty)
            found = optimize.minimize(_pool_loss, found, args, "L-BFGS-B", jac=True).x
            kernel = np.kron(found[:members, None], np.eye(classes))
            yield LinearMap(kernel, found[members:])

    return path


def _pool_loss(
    numbers: Array, given: Array, truth: Array, centre: Array, penalty: float
) -> tuple[float, Array]:
    members = given.shape[1]
    scores = np.einsum("nmc,m->nc", given, numbers[:members]) + numbers[members:]
    log_p = special.log_softmax(scores, axis=1)
    off = (np.exp(log_p) * truth.sum(axis=1, keepdims=True) - truth) / len(given)
    away = numbers - centre
    slope = np.concatenate([np.einsum("nmc,nc->m", given, off), off.sum(axis=0)])
    loss = -float((truth * log_p).sum()) / len(given) + penalty * float(away @ away) / 2
    return loss, slope + penalty * away


def _column(weights: Array | None, c: int) -> Array | None:
    return weights if weights is None or weights.ndim == 1 else np.asarray(weights[:, c])


def _one_logistic(
    x: Array, y: Array, multiclass: bool, weights: Array | None
) -> Iterator[LinearMap]:
    if weights is not None and not weights.all():
        x, y, weights = x[weights > 0], y[weights > 0], weights[weights > 0]
    classes = np.unique(y)
    if len(classes) == 1:
        # A label that never changes: a constant, its smoothed frequency.
        odds = (y.sum() + 0.5) / (len(y) - y.sum() + 0.5)
        constant = LinearMap(np.zeros((x.shape[1], 1)), np.array([np.log(odds)]))
        yield from [constant] * len(STRENGTHS)
        return
    model: Any = LogisticRegression(warm_start=True, max_iter=_MOST_STEPS)
    for strength in STRENGTHS:
        with warnings.catch_warnings():
            # Separable classes under weak regularisation; cross-validation judges the result.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=strength).fit(x, y, sample_weight=weights)
        yield from_coefficients(model.coef_, model.intercept_, multiclass)


def from_coefficients(coefficients: Array, intercept: Array, multiclass: bool) -> LinearMap:
    """scikit-learn's coefficients `(outputs, columns)` as logits of every class.

    Of two classes scikit-learn keeps one row, the logit of the second.
    """
    kernel, bias = np.atleast_2d(coefficients).T, np.atleast_1d(intercept)
    if multiclass and kernel.shape[1] == 1:
        kernel = np.concatenate([np.zeros_like(kernel), kernel], axis=1)
        bias = np.concatenate([np.zeros_like(bias), bias])
    return LinearMap(kernel, bias)


def strengths_of(losses: Sequence[float]) -> dict[str, float]:
    """Losses by strength, JSON-ready."""
    return {f"{s:g}": loss for s, loss in zip(STRENGTHS, losses, strict=False)}
