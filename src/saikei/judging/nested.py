"""`nested_score`: how good a fusion is on rows that its own fit has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from keras import tree

from saikei.arguments import checked
from saikei.batches import Array
from saikei.data import gathered
from saikei.errors import FusionError
from saikei.fusion.base import Fusion, Head, OutputFusion
from saikei.fusion.evidence import Evidence, gather
from saikei.fusion.members import AnyMembers, Members
from saikei.scoring.predictions import predict_all
from saikei.scoring.score import Score
from saikei.training.folds import Fold, Indices, class_numbers, make_folds


@dataclass(frozen=True, eq=False)
class NestedScore:
    """The score of a fusion that was fitted anew for each fold, on the other folds.

    Args:
        score: The score over the rows of all folds, with its 95 % interval.
        losses: The loss of each of these rows (nats or squared error) times the row's weight,
            float64 `(rows,)`; their mean is the loss.
        rows: Indices of these rows in the data, ascending.
        outputs: The fusion's predictions of these rows, one array for each output.
        heads: What was fitted for each fold, in the order of the folds; empty for a fusion that is
            no function of its members' outputs.
    """

    score: Score
    losses: Array = field(repr=False)
    rows: Indices = field(repr=False)
    outputs: tuple[Array, ...] = field(repr=False)
    heads: tuple[Head, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The score, JSON-ready."""
        return self.score.to_dict()


@checked
def nested_score(
    fusion: Fusion,
    members: AnyMembers,
    data: Any = None,
    folds: Any = None,
    *,
    seed: int = 0,
    allow_in_sample: bool = False,
) -> NestedScore:
    """Fit a fusion on all folds but one and score it on that one, for each fold.

    The members stay as they are, so with models and held-out data no row has any part in what
    predicts it. With what `cross_fit` gives, a row that is scored was trained on by the members
    of other folds, whose predictions the fusion is fitted to; no member predicts its own rows.

    Args:
        fusion: Any fusion; an `OutputFusion` is fitted to stored predictions, others are built and
            run for every fold.
        members: Two or more models, or what `cross_fit` gives.
        data: Held-out `(x, y)` or a dataset; `None` with what `cross_fit` gives.
        folds: The number of folds or a scikit-learn splitter; `None` takes five, or those of
            `cross_fit`. Give a `TimeSeriesSplit` again where rows are ordered in time.
        seed: Seed of the folds.
        allow_in_sample: Score even on rows that a member was trained on.

    Raises:
        FusionError: As the fusion does, and when a fusion that needs models gets predictions.
        DataError: When the data does not fit the members, or a class is missing from a fold.
    """
    nest = Nest.of([fusion], members, data, folds, seed, allow_in_sample)
    return nest.score(fusion)


@dataclass(frozen=True, eq=False)
class Nest:
    """Evidence and folds, on which several fusions can be scored alike.

    Args:
        evidence: Labels and predictions of the members.
        folds: The folds, as indices of its rows.
        data: The data as arrays; `None` for what `cross_fit` gives and for stored predictions.
        allow_in_sample: Whether fusions may be fitted to rows that a member was trained on.
    """

    evidence: Evidence
    folds: tuple[Fold, ...]
    data: Any
    allow_in_sample: bool

    @classmethod
    def of(
        cls,
        fusions: Sequence[Fusion],
        given: AnyMembers,
        data: Any,
        folds: Any,
        seed: int,
        allow_in_sample: bool,
    ) -> Nest:
        """Predict the data once for all fusions."""
        members = Members.of(given)
        # Gathered once: a dataset may come in another order at each pass.
        held = gathered(data).parts if data is not None else None
        parts = {part for one in fusions if isinstance(one, OutputFusion) for part in one.parts}
        evidence = gather(members, held, allow_in_sample, parts)
        return cls(evidence, _folds(evidence, folds, seed), held, allow_in_sample)

    @classmethod
    def stored(cls, evidence: Evidence, seed: int) -> Nest:
        """Five folds over stored predictions (`Evidence.stored`); no model is run.

        Raises:
            DataError: When there are fewer rows than folds, or a class is missing from a fold.
        """
        return cls(evidence, _folds(evidence, None, seed), None, False)

    def score(self, fusion: Fusion) -> NestedScore:
        """Score one fusion."""
        heads: list[Head] = []
        if isinstance(fusion, OutputFusion):
            fusion = fusion.ready(self.evidence)
            heads = [fusion.fit_head(self.evidence.take(fold.train)) for fold in self.folds]
            each: list[Sequence[Array]] = [
                head.predict(self.evidence.take(fold.test).predictions)
                for head, fold in zip(heads, self.folds, strict=True)
            ]
        else:
            each = [self._by_model(fusion, fold) for fold in self.folds]
        rows = np.concatenate([fold.test for fold in self.folds])
        order = np.argsort(rows, kind="stable")
        outputs = tuple(np.concatenate(parts)[order] for parts in zip(*each, strict=True))
        labelled = self.evidence.labelled.take(rows[order])
        return NestedScore(
            score=labelled.score(outputs),
            losses=labelled.losses(outputs),
            rows=rows[order],
            outputs=outputs,
            heads=tuple(heads),
        )

    def _by_model(self, fusion: Fusion, fold: Fold) -> Sequence[Array]:
        members = self.evidence.members
        if members.cross_fit is not None or members.stored:
            source = "of cross_fit" if members.cross_fit is not None else "that are stored"
            raise FusionError(
                f"{type(fusion).__name__} needs models and cannot be scored on predictions {source}"
                ": give members and held-out data."
            )
        train, test = (_take(self.data, rows) for rows in (fold.train, fold.test))
        model = fusion(members, train, allow_in_sample=self.allow_in_sample)
        return predict_all(model, test).outputs


def _folds(evidence: Evidence, folds: Any, seed: int) -> tuple[Fold, ...]:
    classes = None
    if len(evidence.tasks) == 1:
        classes = class_numbers(evidence.tasks[0], evidence.labels[0])
    made = evidence.members.cross_fit
    if folds is None and made is not None:
        number = made.fold_of
        folds = [(number != one, number == one) for one in np.unique(number)]
    counted = evidence.labels[0].counted
    needed = [] if classes is None else np.unique(classes[counted]).tolist()
    chosen = 5 if folds is None else folds
    return make_folds(chosen, len(evidence), classes, seed=seed, needed=needed)


def _take(data: Any, rows: Indices) -> Any:
    return tree.map_structure(lambda leaf: leaf[rows], data)
