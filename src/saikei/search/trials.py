"""The trials of a search: ask for an architecture, make its candidates, store the result."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from saikei.errors import BudgetError, DiskError, EditError, WorkError
from saikei.runs import numbers
from saikei.runs.candidate import Candidate
from saikei.runs.front import cost_axis, goodness
from saikei.runs.record import Decision
from saikei.search.execute import RunContext, run_plan
from saikei.search.plan import CandidatePlan, Effort, derived_seed, edit_for, plans_for
from saikei.search.progress import SearchProgress
from saikei.search.space import Point, first_points, space
from saikei.search.study import Study


@dataclass(frozen=True)
class TrialResults:
    """The results of all trials.

    Args:
        candidates: Candidates in the order of their plans.
        decisions: Which candidates were left out, and why.
        earlier: Seconds of training in earlier sessions.
    """

    candidates: tuple[Candidate, ...]
    decisions: tuple[Decision, ...]
    earlier: float


def run_trials(
    context: RunContext, trials: int, effort: Effort, progress: SearchProgress
) -> TrialResults:
    """Try architectures; candidates of an earlier session are used again.

    Args:
        context: Models and data to make candidates from.
        trials: Number of architectures to try.
        effort: Settings that all trainings share.
        progress: Display of the progress.
    """
    parents = list(context.originals)
    path = context.folder.path / "study.db"
    runner = _TrialRunner(context, effort, progress)
    first = [point.to_dict() for point in first_points(parents)]
    with closing(Study(path, space(parents), first, effort.seed)) as study:
        for number in range(trials):
            point = Point(**study.ask(number))
            result = runner.run(number, point, study.notes(number))
            if number >= study.count:
                _store(study, point, result, cost_axis(context.budget))
    return TrialResults(tuple(runner.candidates), tuple(runner.decisions), runner.earlier)


def _store(study: Study, point: Point, result: _TrialResult, axis: str) -> None:
    """Store the score and cost of an architecture's best candidate, and what was left out."""
    outcome = None
    if result.candidates:
        best = max(result.candidates, key=lambda c: goodness(c.validation))
        outcome = goodness(best.validation), best.cost.on(axis)
    study.tell(point.to_dict(), outcome, result.left_out)


def _kept_as_cut(candidate: Candidate) -> Decision:
    training, before = candidate.training, candidate.validation
    assert training is not None
    losses = training.curves.get("val_loss", ())
    after = f", and {min(losses):.4g} at best after it" if losses else ""
    return Decision(
        f"weights of {candidate.name}",
        "as after the cut, untrained",
        f"Training did not improve them, down to a learning rate of {training.learning_rate:.2g}: "
        f"the loss on validation was {before.loss:.4g} before training{after}. The {before.name} "
        f"is {numbers.metric_value(before.name, before.value)}.",
    )


@dataclass(frozen=True)
class _TrialResult:
    """The result of one architecture.

    Args:
        candidates: The candidates that were made.
        left_out: The reason for each planned candidate that was not made, by name.
    """

    candidates: tuple[Candidate, ...]
    left_out: Mapping[str, str]


class _TrialRunner:
    """Runs trials, and collects their candidates and decisions."""

    def __init__(self, context: RunContext, effort: Effort, progress: SearchProgress) -> None:
        self.candidates: list[Candidate] = []
        self.decisions: list[Decision] = []
        self.earlier = 0.0
        self._context = context
        self._effort = effort
        self._progress = progress

    def run(self, number: int, point: Point, known: Mapping[str, str]) -> _TrialResult:
        """Make the candidates of one architecture.

        Args:
            number: Number of the architecture.
            point: The architecture, and how to train it.
            known: Candidates that an earlier session left out, with reasons; not tried again.
        """
        context, seed = self._context, derived_seed(self._effort.seed, number, 2)
        edit = edit_for(point, context.budget, context.whole, seed)
        # One candidate without a teacher is enough to measure what the teacher gains.
        ablate = not any(c.kind == "labels" for c in self.candidates)
        made: list[Candidate] = []
        left_out: dict[str, str] = {}
        for plan in plans_for(number, point, edit, self._effort, ablate):
            if plan.like in left_out:
                continue
            try:
                if plan.name in known:
                    left_out[plan.name] = known[plan.name]
                else:
                    made.append(self._finished_or_run(plan))
            except DiskError:
                # Not the fault of the candidate: the next session makes it.
                raise
            except (BudgetError, EditError, WorkError) as error:
                left_out[plan.name] = str(error)
        share = f"1/{point.siblings} of the budget" if point.siblings > 1 else "the budget"
        self.decisions += [_kept_as_cut(one) for one in made if one.unimproved]
        for name, reason in left_out.items():
            topic = f"{name}, {point.parent} cut to {share}"
            self.decisions.append(Decision(topic, "left out", reason))
        self.candidates.extend(made)
        return _TrialResult(tuple(made), left_out)

    def _finished_or_run(self, plan: CandidatePlan) -> Candidate:
        self._progress.working_on(plan.name)
        candidate = self._context.folder.finished(plan.name, plan.to_dict())
        if candidate is None:
            bar = self._progress.epochs(plan.name, plan.epochs)
            candidate = run_plan(plan, self._context, [bar])
        elif candidate.training is not None:
            self.earlier += candidate.training.seconds
        self._progress.done(f"{candidate.name}: {numbers.score(candidate.validation)}")
        return candidate
