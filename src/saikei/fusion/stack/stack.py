"""`Stack`: a meta-learner over what the members say, in one graph with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from threadpoolctl import threadpool_limits

from saikei.errors import FusionError
from saikei.fusion.average import Average
from saikei.fusion.base import Fusion
from saikei.fusion.compact import compacted
from saikei.fusion.evidence import Evidence, Members, Said, connect, deployed, gather
from saikei.fusion.stack.choose_meta import choose_meta
from saikei.fusion.stack.columns import On, check_flat
from saikei.fusion.stack.estimators import is_estimator
from saikei.fusion.stack.metas import StackCombiner
from saikei.fusion.stack.targets import folds_of, target_of
from saikei.limits import FOLDS, check_seed, check_whole
from saikei.scoring.outputs import read_outputs
from saikei.training.folds import make_folds
from saikei.training.provenance import record_rows

_NAMED = ("auto", "logistic", "ridge", "mlp")


@dataclass(frozen=True)
class Stack(Fusion):
    """A meta-learner over the members' outputs or features (Wolpert, 1992).

    Class outputs are seen as probabilities and as log-probabilities, under a path of
    regularisation; for several classes also with one weight a member (the logarithmic opinion
    pool). What has the lowest loss in cross-validation is kept. What is linear becomes one
    `Dense` layer, with all standardisation folded into it.

    Args:
        meta: `"logistic"` for classes, `"ridge"` for numbers, `"auto"` for what fits each output;
            `"mlp"`, one hidden layer; a Keras model, an architecture whose weights are drawn
            anew, taking the columns and giving the members' outputs; or an unfitted estimator of
            scikit-learn that is linear in effect, pipelines too.
        on: `"outputs"` of the members, or `"features"`, what their last layers with weights read.
        passthrough: whether the inputs, flattened, are columns too.
        folds: of the cross-validation that chooses.
        below: fusions of the members that this one is stacked on, instead of on the members: a
            `Stack` or an `Average`. This one is fitted to their out-of-fold predictions.
        seed: of folds, and of an MLP's first weights.

    Raises:
        FusionError: when an argument is unknown.

    Example:
        >>> Stack(below=(Stack(), Average("learn"))).to_dict()["below"][1]
        {'fusion': 'Average', 'weights': 'learn'}
    """

    meta: Any = "auto"
    on: On = "outputs"
    passthrough: bool = False
    folds: int = 5
    below: tuple[Stack | Average, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        meta: object = self.meta
        named = isinstance(meta, str)
        if (named and meta not in _NAMED) or not (named or _is_learner(meta)):
            raise FusionError(
                f"meta={meta!r} is unknown: use one of {', '.join(_NAMED)}, a Keras model, or an "
                "unfitted estimator of scikit-learn."
            )
        on: object = self.on
        if on not in ("outputs", "features"):
            raise FusionError(f"on={self.on!r} is unknown: use 'outputs' or 'features'.")
        check_whole("folds", self.folds, 2, FOLDS)
        check_seed(self.seed)
        object.__setattr__(self, "below", tuple(self.below))
        _check_below(self)

    def __call__(
        self, members: Members, data: Any = None, *, allow_in_sample: bool = False
    ) -> keras.Model:
        """Fuse the members into one model.

        Args:
            members: two or more built models with the same inputs and outputs; they are copied,
                never changed. Or what `cross_fit` gives, in the place of members and data.
            data: held-out `(x, y)` or a dataset. The fused model counts as trained on it.
            allow_in_sample: fit even on rows that a member was trained on.

        Returns:
            An uncompiled model of plain Keras layers.

        Raises:
            FusionError: when the members do not fit each other or the stack, there is no data,
                or a member was trained on some of it.
            DataError: when the data does not fit the members, or a class has too few rows.
        """
        evidence = self._evidence(members, data, allow_in_sample)
        combiner = self.combiner(evidence)
        models = deployed(members)
        inputs, said = connect(models, *self.needs)
        outputs = list(combiner.connect(said, "stack"))
        fused = compacted(keras.Model(inputs, read_outputs(models[0]).pack(outputs), name="stack"))
        record_rows(fused, evidence.digests, "Stack")
        return fused

    def fit(
        self, members: Members, data: Any = None, *, allow_in_sample: bool = False
    ) -> StackCombiner:
        """Fit the meta-learner without building a model.

        Args:
            members: as for a call.
            data: as for a call.
            allow_in_sample: as for a call.

        Returns:
            What was chosen: its `to_dict` has form, regularisation, weights and all losses.

        Raises:
            FusionError: as for a call.
            DataError: as for a call.
        """
        return self.combiner(self._evidence(members, data, allow_in_sample))

    @property
    def needs(self) -> tuple[bool, bool]:
        """Whether features and raw inputs of the members are needed, here or below."""
        lower = [one.needs for one in self.below if isinstance(one, Stack)]
        features = self.on == "features" or any(need[0] for need in lower)
        return features, self.passthrough or any(need[1] for need in lower)

    @property
    def complexity(self) -> int:
        """A linear meta-learner is simpler than another one, and one level than two."""
        linear = isinstance(self.meta, str) and self.meta != "mlp"
        own = 3 if linear and self.on == "outputs" and not self.passthrough else 4
        return own + max((one.complexity for one in self.below), default=0)

    def combiner(self, evidence: Evidence) -> StackCombiner:
        """Fit to evidence that is there already."""
        # Matrices this small are solved ten times faster without threads, and always alike.
        with threadpool_limits(limits=1, user_api="blas"):
            return self._combiner(evidence)

    def _combiner(self, evidence: Evidence) -> StackCombiner:
        check_flat(evidence.said)
        below = tuple(one.combiner(evidence) for one in self.below)
        seen = self._seen(evidence) if below else evidence
        metas = tuple(
            choose_meta(
                self._meta_for(task.kind),
                seen,
                place,
                self.on,
                self.passthrough,
                self.folds,
                self.seed,
            )
            for place, task in enumerate(evidence.tasks)
        )
        return StackCombiner(metas, below)

    def to_dict(self) -> dict[str, Any]:
        """The arguments, JSON-ready.

        Raises:
            FusionError: when the meta-learner is an estimator of scikit-learn, which has no JSON
                form that could be read safely.
        """
        meta = self.meta
        if isinstance(meta, keras.Model):
            meta = keras.saving.serialize_keras_object(meta)
        elif not isinstance(meta, str):
            raise FusionError(
                f"meta={type(meta).__name__} has no JSON form: keep it in Python, or use "
                "meta='logistic' or 'ridge'."
            )
        return {
            "meta": meta,
            "on": self.on,
            "passthrough": self.passthrough,
            "folds": self.folds,
            "below": [{"fusion": type(one).__name__, **one.to_dict()} for one in self.below],
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Stack:
        """The inverse of `to_dict`."""
        arguments = dict(record)
        if isinstance(arguments["meta"], Mapping):
            arguments["meta"] = keras.saving.deserialize_keras_object(
                arguments["meta"], safe_mode=True
            )
        kinds: dict[str, type[Stack] | type[Average]] = {"Stack": cls, "Average": Average}
        arguments["below"] = tuple(
            kinds[one["fusion"]].from_dict({k: v for k, v in one.items() if k != "fusion"})
            for one in record["below"]
        )
        return cls(**arguments)

    def _evidence(self, members: Members, data: Any, allow_in_sample: bool) -> Evidence:
        features, raw = self.needs
        return gather(members, data, allow_in_sample, features=features, raw=raw)

    def _meta_for(self, kind: str) -> Any:
        if not isinstance(self.meta, str) or self.meta != "auto":
            return self.meta
        return "ridge" if kind == "regression" else "logistic"

    def _seen(self, evidence: Evidence) -> Evidence:
        """Evidence of the level below: what it says of rows that it was not fitted to."""
        if len(evidence.tasks) == 1:
            if evidence.labels[0].counted.all():
                target = target_of(evidence.tasks[0], evidence.labels[0])
                parts = folds_of(target, self.folds, self.seed)
            else:
                # Rows that do not count are of no class.
                parts = make_folds(self.folds, len(evidence), seed=self.seed)
        else:
            parts = make_folds(self.folds, len(evidence), seed=self.seed)
        lower = []
        for one in self.below:
            outputs: list[Any] = [np.zeros(part.shape) for part in evidence.said.outputs[0]]
            for fold in parts:
                told = one.combiner(evidence.take(fold.train)).predict(
                    evidence.take(fold.test).said
                )
                for whole, part in zip(outputs, told, strict=True):
                    whole[fold.test] = part
            lower.append(tuple(outputs))
        said = Said(tuple(lower), (), evidence.said.raw)
        return replace(evidence, said=said)


def _is_learner(meta: object) -> bool:
    return isinstance(meta, keras.Model) or (is_estimator(meta) and not isinstance(meta, type))


def _check_below(stack: Stack) -> None:
    for one in stack.below:
        if not isinstance(one, (Stack, Average)):
            raise FusionError(f"below holds {one!r}: give values of Stack or Average.")
    if len(stack.below) == 1:
        raise FusionError("below holds one fusion: give at least two, or none.")
    if stack.below and stack.on == "features":
        raise FusionError("Fusions below have no features: use on='outputs' with them.")
