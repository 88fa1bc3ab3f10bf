"""`Cascade`: members in order of size; later ones run only on rows that earlier ones pass on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from saikei.errors import FusionError
from saikei.fusion.base import DataNeed, OutputFusion
from saikei.fusion.cascade.classifiers import member_costs, open_exits
from saikei.fusion.cascade.fitting import (
    ExitHead,
    fit_exits,
    make_stage_table,
    measure_exits,
)
from saikei.fusion.cascade.policies import Goal
from saikei.fusion.evidence import Evidence
from saikei.fusion.members import Members
from saikei.graph import build
from saikei.limits import check_seed, is_number
from saikei.models import CascadeModel, Combine, Confidence
from saikei.models.exits import check_choice, check_thresholds

_DEFAULT_TARGET = 0.99
_AIMS = ("target", "cost", "thresholds")


@dataclass(frozen=True)
class Cascade(OutputFusion[ExitHead]):
    """Members in order, small ones first: a row goes on until one of them is confident of it.

    The best thresholds of all stages are searched jointly, on held-out data: those of the lowest
    mean cost that keep an accuracy, or of the highest accuracy that keep a mean cost. On the rows
    that chose them thresholds look better than they are. So, unless `certainty` is `None`, one
    half of the rows proposes thresholds and the other half tests them: the probability that the
    goal is missed on new rows is at most `1 - certainty`.

    Wang et al., "Wisdom of Committees" (2022).

    Args:
        target: The accuracy to keep, as a share of the last member's; 0.99 when neither `cost`
            nor `thresholds` is given.
        absolute: Whether `target` is an accuracy instead of a share.
        cost: The mean cost to keep, as a share of the last member's.
        thresholds: Fixed thresholds, one for each member but the last; 0 lets every row leave, a
            number above 1 none. `None` to choose them on data.
        confidence: How confidence is measured, see `saikei.models.Exits`.
        combine: `"last"` for the output of the last member that has run, `"average"` for the mean
            of all that have.
        certainty: The probability with which the goal is kept on new rows, between 0 and 1; `None`
            to choose by all rows, without a guarantee for new rows.
        costs: The cost of each member, in any unit; MACs when not given.
        seed: Seed of the split into halves.

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

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        check_seed(self.seed)
        check_choice("confidence", self.confidence, get_args(Confidence))
        check_choice("combine", self.combine, get_args(Combine))
        given = [name for name in _AIMS if getattr(self, name) is not None]
        if len(given) > 1:
            raise FusionError(f"Cascade takes one of {' and '.join(given)}: leave the rest out.")
        for name in ("target", "cost"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and value > 0):
                raise FusionError(f"Cascade({name}={value!r}): give a number above 0.")
        if self.absolute and not 0 < (self.target or 0) < 1:
            raise FusionError(
                f"Cascade(target={self.target}, absolute=True): an accuracy is between 0 and 1."
            )
        certain = self.certainty is None or (is_number(self.certainty) and 0 < self.certainty < 1)
        if not certain:
            raise FusionError(
                f"Cascade(certainty={self.certainty!r}): use a number between 0 and 1, or None."
            )
        for name in ("thresholds", "costs"):
            value = getattr(self, name)
            if value == ():
                raise FusionError(f"Cascade({name}=()): give a tuple of numbers.")
            if value is not None:
                object.__setattr__(self, name, tuple(float(number) for number in value))

    @property
    def data(self) -> DataNeed:
        """Held-out data, to choose the thresholds by where they are not given."""
        return "held_out" if self.thresholds is None else "none"

    @property
    def complexity(self) -> int:
        """One number for each member but the last."""
        return 2

    def ready(self, evidence: Evidence) -> Cascade:
        """The cascade with the members' MACs as its costs, where none are given.

        Args:
            evidence: Holds the members.

        Raises:
            FusionError: When MACs cannot be counted.
        """
        costs = member_costs(evidence.members.deployed, self.costs, evidence.data)
        return replace(self, costs=costs)

    def fit_head(self, evidence: Evidence) -> ExitHead:
        """Choose the thresholds by stored predictions.

        Args:
            evidence: Labels, and the members' predictions.

        Raises:
            FusionError: When no thresholds keep the target, the members are no classifiers, or
                their costs are not known.
            DataError: When there are too few rows to split.
        """
        members = evidence.members
        tasks = evidence.tasks if len(evidence) else None
        exits = open_exits(members, tasks, self.confidence, self.combine)
        if self.thresholds is not None:
            check_thresholds(self.thresholds, len(members))
            exits = replace(exits, thresholds=self.thresholds)
            if not len(evidence):
                return ExitHead(exits, None)
        costs = member_costs(members.deployed, self.costs, evidence.data)
        table = make_stage_table(exits, evidence, costs)
        if self.thresholds is not None:
            return ExitHead(exits, measure_exits(exits, table, costs, None))
        found = fit_exits(exits, table, self._goal(), costs, self.certainty, self.seed)
        return ExitHead(found.exits, found)

    def build(self, members: Members, head: ExitHead) -> CascadeModel:
        """A `saikei.models.CascadeModel` of copies of the members."""
        copies = [
            build(graph, f"member_{number}") for number, graph in enumerate(members.graphs, start=1)
        ]
        shares = None if head.fitted is None else head.fitted.shares
        model = CascadeModel(copies, head.exits, shares)
        if members.compiled is not None:
            members.compiled.compile(model)
        return model

    def _goal(self) -> Goal:
        if self.cost is not None:
            return Goal("cost", self.cost)
        target = _DEFAULT_TARGET if self.target is None else self.target
        return Goal("accuracy" if self.absolute else "share", target)
