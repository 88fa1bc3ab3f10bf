"""`Cascade`: members in order of size; later ones run only on rows that earlier ones pass on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import keras

from saikei.errors import FusionError
from saikei.fusion.base import Fusion
from saikei.fusion.cascade.classifiers import check_costs, exits_by, member_costs, open_exits
from saikei.fusion.cascade.fitting import (
    CascadeFit,
    ExitCombiner,
    fit_exits,
    make_stage_table,
    measure_exits,
)
from saikei.fusion.cascade.policies import Goal
from saikei.fusion.evidence import Evidence, Members, deployed, gather
from saikei.fusion.members import check_members
from saikei.graph import copy_model
from saikei.limits import check_seed
from saikei.models import CascadeModel, Combine, Confidence, Exits
from saikei.models.exits import check_choice, check_thresholds
from saikei.training.cross_fit import CrossFit
from saikei.training.provenance import record_rows

_DEFAULT_TARGET = 0.99
_AIMS = ("target", "cost", "thresholds")


@dataclass(frozen=True)
class Cascade(Fusion):
    """Members in order, small ones first: a row goes on until one of them is confident of it.

    The best thresholds of all stages are searched jointly, on held-out data: those of the lowest
    mean cost that keep an accuracy, or of the highest accuracy that keep a mean cost. On the rows
    that chose them thresholds look better than they are. So, unless `certainty` is `None`, one
    half of the rows proposes thresholds and the other half tests them: the probability that the
    goal is missed on new rows is at most `1 - certainty`.

    Wang et al., "Wisdom of Committees" (2022).

    Args:
        target: the accuracy to keep, as a share of the last member's; 0.99 when neither `cost`
            nor `thresholds` is given.
        absolute: whether `target` is an accuracy instead of a share.
        cost: the mean cost to keep, as a share of the last member's.
        thresholds: fixed thresholds, one for each member but the last; 0 lets every row leave, a
            number above 1 none. `None` to choose them on data.
        confidence: how confidence is measured, see `saikei.models.Exits`.
        combine: `"last"` for the output of the last member that has run, `"average"` for the mean
            of all that have.
        certainty: the probability with which the goal is kept on new rows, between 0 and 1; `None`
            to choose by all rows, without a guarantee for new rows.
        costs: the cost of each member, in any unit; MACs when not given.
        seed: seed of the split into halves.

    Example:
        >>> Cascade(target=0.98, confidence="margin").to_dict()["target"]
        0.98
    """

    target: float | None = None
    absolute: bool = False
    cost: float | None = None
    thresholds: tuple[float, ...] | None = None
    confidence: Confidence = "max_probability"
    combine: Combine = "last"
    certainty: float | None = 0.9
    costs: tuple[float, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_choice("confidence", self.confidence, get_args(Confidence))
        check_choice("combine", self.combine, get_args(Combine))
        given = [name for name in _AIMS if getattr(self, name) is not None]
        if len(given) > 1:
            raise FusionError(f"Cascade takes one of {' and '.join(given)}: leave the rest out.")
        for name in ("target", "cost"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise FusionError(f"Cascade({name}={value}): give a number above 0.")
        if self.absolute and not 0 < (self.target or 0) < 1:
            raise FusionError(
                f"Cascade(target={self.target}, absolute=True): an accuracy is between 0 and 1."
            )
        if self.certainty is not None and not 0 < self.certainty < 1:
            raise FusionError(
                f"Cascade(certainty={self.certainty}): use a number between 0 and 1, or None."
            )
        for name in ("thresholds", "costs"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(float(number) for number in value))

    def __call__(
        self, members: Members, data: Any = None, *, allow_in_sample: bool = False
    ) -> CascadeModel:
        """Fuse the members into one model that runs no more of them than it needs.

        Args:
            members: two or more built classifiers with the same inputs and the same one output,
                in the order in which they run; they are copied, never changed. Or the result of
                `cross_fit`, instead of members and data.
            data: held-out `(x, y)` or a dataset. With given thresholds it only measures how many
                rows each member will see, and may be left out.
            allow_in_sample: fit even on rows that a member was trained on.

        Returns:
            A `saikei.models.CascadeModel`, which is a Keras model.

        Raises:
            FusionError: when the members do not fit each other or the fusion, there is no data,
                a member was trained on some of it, or no thresholds keep the target.
            DataError: when the data does not fit the members.
        """
        models = deployed(members)
        check_members(models)
        if self.thresholds is not None and data is None and not isinstance(members, CrossFit):
            exits = open_exits(models, None, self.confidence, self.combine)
            return _model(models, replace(exits, thresholds=self.thresholds), None)
        evidence = gather(members, data, allow_in_sample)
        found = self._found(models, evidence, data)
        fused = _model(models, found.exits, found.shares)
        record_rows(fused, evidence.digests, "Cascade")
        return fused

    def fit(
        self, members: Members, data: Any = None, *, allow_in_sample: bool = False
    ) -> CascadeFit:
        """Choose the thresholds, and report accuracy and cost.

        Args:
            members: as for a call.
            data: as for a call, but not left out.
            allow_in_sample: fit even on rows that a member was trained on.
        """
        models = deployed(members)
        check_members(models)
        return self._found(models, gather(members, data, allow_in_sample), data)

    @property
    def complexity(self) -> int:
        """One number for each member but the last."""
        return 2

    def ready(self, members: Members) -> Cascade:
        """The same cascade with the members' MACs as its costs, where none are given.

        Args:
            members: as for a call.

        Raises:
            FusionError: when the members do not fit each other, or MACs cannot be counted.
        """
        models = deployed(members)
        check_members(models)
        return replace(self, costs=member_costs(models, self.costs))

    def combiner(self, evidence: Evidence) -> ExitCombiner:
        """Choose the thresholds by stored predictions.

        Args:
            evidence: labels, and the members' predictions.

        Raises:
            FusionError: when no thresholds keep the target, the members are no classifiers, or
                their costs are not known.
            DataError: when there are too few rows to split.
        """
        exits = exits_by(evidence, self.confidence, self.combine)
        if self.costs is None:
            raise FusionError(
                "The costs of the members are not known from their predictions: give "
                "Cascade(costs=(…)), or count MACs with Cascade(…).ready(members)."
            )
        check_costs(self.costs, len(evidence.said.outputs))
        table = make_stage_table(exits, evidence, self.costs)
        if self.thresholds is not None:
            check_thresholds(self.thresholds, len(evidence.said.outputs))
            given = replace(exits, thresholds=self.thresholds)
            return ExitCombiner(measure_exits(given, table, self.costs, None))
        goal = self._goal()
        return ExitCombiner(fit_exits(exits, table, goal, self.costs, self.certainty, self.seed))

    def _found(self, models: Sequence[keras.Model], evidence: Evidence, data: Any) -> CascadeFit:
        # Checked on the models, so that an error names them.
        open_exits(models, evidence.tasks, self.confidence, self.combine)
        counted = replace(self, costs=member_costs(models, self.costs, data))
        return counted.combiner(evidence).fitted

    def _goal(self) -> Goal:
        if self.cost is not None:
            return Goal("cost", self.cost)
        target = _DEFAULT_TARGET if self.target is None else self.target
        return Goal("accuracy" if self.absolute else "share", target)

    def to_dict(self) -> dict[str, Any]:
        """The arguments, JSON-ready."""
        record = asdict(self)
        for name in ("thresholds", "costs"):
            record[name] = None if record[name] is None else list(record[name])
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Cascade:
        """The inverse of `to_dict`."""
        return cls(**record)


def _model(
    models: Sequence[keras.Model], exits: Exits, shares: tuple[float, ...] | None
) -> CascadeModel:
    copies = [copy_model(model, f"member_{number}") for number, model in enumerate(models, start=1)]
    return CascadeModel(copies, exits, shares)
