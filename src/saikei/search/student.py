"""The network that learns from the best ensemble: the winner of the race, or the given model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from saikei.runs import numbers
from saikei.runs.candidate import Cost
from saikei.scoring.labelled import Labelled, Outputs
from saikei.scoring.score import Score
from saikei.search.compose import Ensemble
from saikei.search.context import RunContext
from saikei.search.race import Plan, Racer, Space
from saikei.search.sizes import derived_seed

STUDENT, FURTHER = "student", "trained-further"
_SEED_OF_FURTHER = 3_000_000


@dataclass(frozen=True, eq=False)
class Learner:
    """A network that is to be trained on, and what it is before.

    Args:
        plan: How it is trained, whoever teaches it.
        cost: Its costs.
        score: Its score on validation.
        outputs: Its predictions of validation.
    """

    plan: Plan
    cost: Cost
    score: Score
    outputs: Outputs = field(repr=False)

    def learns_from(self, ensemble: Ensemble, judge: Labelled) -> bool:
        """Whether an ensemble is better on validation.

        A given model that has learned its rows gains more from labels alone than from a teacher
        that is no better: for it, an ensemble has to be ahead by more than one standard error.
        """
        if self.plan.name != FURTHER:
            return judge.merit(ensemble.outputs) > judge.merit(self.outputs)
        ahead = judge.difference(ensemble.outputs, self.outputs)
        sign = 1 if self.score.greater_is_better else -1
        return sign * ahead.value > ahead.standard_error

    def plan_of(self, teacher: str | None, ensemble: Ensemble | None) -> Plan:
        """The plan with a teacher: an ensemble, the run's own, or `None` for labels alone."""
        plan = replace(self.plan, teacher=teacher)
        return plan if ensemble is None else replace(plan, family=f"{STUDENT} of {teacher}")

    def reason(self, teacher: str | None, ensemble: Ensemble | None, epochs: int) -> str:
        """Why it has this teacher, or none, and for how many epochs it was trained."""
        metric, parent = self.score.name, self.plan.parent
        shown = numbers.metric_value(metric, self.score.value)
        trained = f"It was trained on for {epochs} epoch{'' if epochs == 1 else 's'}"
        if ensemble is None:
            clearly = "clearly " if self.plan.name == FURTHER else ""
            reason = f"No ensemble is {clearly}better on validation than {parent} alone ({shown})."
            alone = "" if teacher else ", on labels alone: its own predictions teach it little"
            return f"{reason} {trained}{alone}." if epochs else reason
        return (
            f"The {metric.replace('_', ' ')} on validation of {teacher} "
            f"({', '.join(ensemble.members)}) is "
            f"{numbers.metric_value(metric, ensemble.score.value)}, that of {parent} {shown}. "
            f"{trained} with that teacher."
        )


def winner_of(racer: Racer) -> Learner:
    """The winner of the race as a learner."""
    parent, result = racer.plan.name, racer.result
    plan = replace(
        racer.plan, name=STUDENT, parent=parent, recipe=None, via=None, step=None, weights="kept"
    )
    return Learner(plan, result.cost, result.score, result.outputs)


def given_of(context: RunContext, space: Space) -> Learner:
    """The best given model as a learner, from its weights.

    Args:
        context: Models, data and budget of the run.
        space: The training settings of the run.
    """
    given = context.originals.baseline
    plan = Plan(
        name=FURTHER,
        family="trained further",
        parent=given.name,
        recipe=None,
        weights="kept",
        teacher=None,
        settings=space.settings(space.first(1)[0], "kept"),
        seed=derived_seed(context.seed, _SEED_OF_FURTHER),
        raises_rate=space.raises_rate,
    )
    outputs = context.originals.outputs[given.name]
    return Learner(plan, given.cost, given.validation, outputs)
