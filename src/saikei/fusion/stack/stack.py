"""`Stack`: a meta-learner on the members' outputs, in one graph with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from saikei.arguments import shown
from saikei.blas import one_thread
from saikei.errors import FusionError
from saikei.fusion.average import Average
from saikei.fusion.base import DataNeed, OutputFusion, connected
from saikei.fusion.evidence import Evidence, MemberOutputs, Part
from saikei.fusion.members import Members
from saikei.fusion.stack.choose_meta import choose_meta
from saikei.fusion.stack.columns import On, check_flat
from saikei.fusion.stack.estimators import is_estimator
from saikei.fusion.stack.metas import StackHead
from saikei.fusion.stack.targets import folds_of, stack_labels
from saikei.limits import FOLDS, check_seed, check_whole
from saikei.training.folds import make_folds

_NAMED = ("auto", "logistic", "ridge", "mlp")


def _meta_to_json(meta: Any) -> Any:
    return keras.saving.serialize_keras_object(meta) if isinstance(meta, keras.Model) else meta


def _meta_from_json(meta: Any) -> Any:
    if isinstance(meta, Mapping):
        return keras.saving.deserialize_keras_object(meta, safe_mode=True)
    return meta


@dataclass(frozen=True)
class Stack(OutputFusion[StackHead]):
    """A meta-learner on the members' outputs or features (Wolpert, 1992).

    Class outputs are read as probabilities and as log-probabilities, with several strengths of
    regularisation; for several classes also with one weight for each member (the logarithmic
    opinion pool). The variant with the lowest loss in cross-validation is kept. A linear
    meta-learner becomes one `Dense` layer, with all standardisation folded into it.

    Args:
        meta: `"logistic"` for classes, `"ridge"` for numbers, `"auto"` for the one that fits each
            output; `"mlp"` for one hidden layer; a Keras model from the columns to the members'
            outputs, whose weights are drawn anew; or an unfitted estimator of scikit-learn that
            computes a linear function, pipelines too.
        on: What the meta-learner reads: `"outputs"` of the members, or `"features"`, the inputs of
            their last layers with weights.
        passthrough: Whether the inputs, flattened, are columns too.
        folds: The number of folds of the cross-validation that chooses.
        below: Fusions of the members that this one reads instead of the members: values of `Stack`
            or `Average`. This one is fitted to their out-of-fold predictions. Empty for none.
        seed: Seed of the folds, and of an MLP's new weights.

    Raises:
        FusionError: When an argument is unknown.

    Example:
        >>> Stack(below=(Stack(), Average("learn"))).to_dict()["below"][1]
        {'fusion': 'Average', 'weights': 'learn'}
    """

    meta: Any = field(
        default="auto",
        metadata={
            "to_json": _meta_to_json,
            "from_json": _meta_from_json,
            "json": "keep it in Python, or use meta='logistic' or 'ridge'",
        },
    )
    on: On = "outputs"
    passthrough: bool = False
    folds: int = 5
    below: tuple[Stack | Average, ...] = field(
        default=(),
        metadata={
            "to_json": lambda below: [{"fusion": type(o).__name__, **o.to_dict()} for o in below],
            "from_json": lambda below: tuple(map(_below_from_json, below)),
        },
    )
    seed: int = 0

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        meta: object = self.meta
        named = isinstance(meta, str)
        if (named and meta not in _NAMED) or not (named or _is_learner(meta)):
            raise FusionError(
                f"meta={shown(meta)} is unknown: use one of {', '.join(_NAMED)}, a Keras model, or "
                "an unfitted estimator of scikit-learn."
            )
        on: object = self.on
        if on not in ("outputs", "features"):
            raise FusionError(f"on={self.on!r} is unknown: use 'outputs' or 'features'.")
        check_whole("folds", self.folds, 2, FOLDS)
        check_seed(self.seed)
        _check_below(self)

    @property
    def data(self) -> DataNeed:
        """Held-out data, to which the meta-learner is fitted."""
        return "held_out"

    @property
    def parts(self) -> frozenset[Part]:
        """Features and inputs of the members, where they are needed here or below."""
        own: set[Part] = {"features"} if self.on == "features" else set()
        if self.passthrough:
            own.add("inputs")
        return frozenset(own).union(*(one.parts for one in self.below))

    @property
    def complexity(self) -> int:
        """A linear meta-learner is simpler than another one, and one level than two."""
        linear = isinstance(self.meta, str) and self.meta != "mlp"
        own = 3 if linear and self.on == "outputs" and not self.passthrough else 4
        return own + max((one.complexity for one in self.below), default=0)

    def fit_head(self, evidence: Evidence) -> StackHead:
        """Fit the meta-learner of each output, and the fusions below."""
        # Matrices this small are solved ten times faster, and reproducibly, without threads.
        with one_thread():
            return self._head(evidence)

    def _head(self, evidence: Evidence) -> StackHead:
        check_flat(evidence.predictions)
        below = tuple(one.fit_head(evidence) for one in self.below)
        seen = self._seen(evidence) if below else evidence
        metas = tuple(
            choose_meta(
                self._meta_for(task.kind),
                seen,
                index,
                self.on,
                self.passthrough,
                self.folds,
                self.seed,
            )
            for index, task in enumerate(evidence.tasks)
        )
        return StackHead(metas, below)

    def build(self, members: Members, head: StackHead) -> keras.Model:
        """The members side by side and the meta-learner."""
        return connected(members, head, "stack", self.parts)

    def _meta_for(self, kind: str) -> Any:
        if not isinstance(self.meta, str) or self.meta != "auto":
            return self.meta
        return "ridge" if kind == "regression" else "logistic"

    def _seen(self, evidence: Evidence) -> Evidence:
        """Evidence of the level below: its out-of-fold predictions."""
        if len(evidence.tasks) == 1:
            if evidence.labels[0].counted.all():
                target = stack_labels(evidence.tasks[0], evidence.labels[0])
                parts = folds_of(target, self.folds, self.seed)
            else:
                # Rows that do not count are of no class.
                parts = make_folds(self.folds, len(evidence), seed=self.seed)
        else:
            parts = make_folds(self.folds, len(evidence), seed=self.seed)
        lower = []
        for one in self.below:
            outputs: list[Any] = [np.zeros(part.shape) for part in evidence.predictions.outputs[0]]
            for fold in parts:
                given = one.fit_head(evidence.take(fold.train)).predict(
                    evidence.take(fold.test).predictions
                )
                for whole, part in zip(outputs, given, strict=True):
                    whole[fold.test] = part
            lower.append(tuple(outputs))
        predictions = MemberOutputs(tuple(lower), (), evidence.predictions.raw)
        return replace(evidence, predictions=predictions)


def _is_learner(meta: object) -> bool:
    return isinstance(meta, keras.Model) or (is_estimator(meta) and not isinstance(meta, type))


def _check_below(stack: Stack) -> None:
    if len(stack.below) == 1:
        raise FusionError("below holds one fusion: give at least two, or none.")
    if stack.below and stack.on == "features":
        raise FusionError("Fusions below have no features: use on='outputs' with them.")


def _below_from_json(record: Mapping[str, Any]) -> Stack | Average:
    kinds: dict[str, type[Stack] | type[Average]] = {"Stack": Stack, "Average": Average}
    return kinds[record["fusion"]].from_dict(
        {key: value for key, value in record.items() if key != "fusion"}
    )
