"""`Schedule`: how many candidates are trained for how many epochs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import product

from saikei.budget import Budget
from saikei.codec import ToDict
from saikei.errors import InputError
from saikei.limits import EPOCHS, check_whole
from saikei.runs.candidate import Cost
from saikei.training.parts import TrainingSettings

DEFAULT_EFFORT = 45
# Epochs of the first three rungs, the most generous first.
_LADDERS = ((1, 3, 9), (1, 2, 4), (1, 2), (1,))
# The share of the candidates' epochs that the finalists have: long trainings gain more than a
# ranking of more candidates does.
_FINAL_SHARE = 0.8
# Steps that show what a candidate is worth. Less moves hardly any weight: of ten steps, an epoch of
# 150 rows, batch normalization alone makes every learning rate look too high.
TRIAL_STEPS = 100
# From this many trials on, two candidates are trained to the end in any case.
_TWO_FINALISTS = 90
# From this many epochs on, the rungs grow.
_LONG = 90
_GENERATION = 6
# From these shares of the original's costs on, ensembles of two or more are likely to be good.
_OF_ENSEMBLES = ((0.7, 3), (0.45, 2))
_OF_CASCADE = 2


@dataclass(frozen=True)
class Rung(ToDict):
    """A number of epochs, and how many candidates are trained to it.

    Args:
        epochs: Epochs that a candidate has at the end of the rung.
        places: Number of candidates.
    """

    epochs: int
    places: int


@dataclass(frozen=True)
class Schedule(ToDict):
    """Where the epochs of a race go.

    Args:
        rungs: The rungs, the shortest first; the last one is the whole training.
        generation: Candidates that begin together; their settings depend on the generations
            before.
        rival: Epochs of the whole pipeline, for which fresh weights of the winner's structure are
            trained as well; 0 for no rivals.
    """

    rungs: tuple[Rung, ...]
    generation: int
    rival: int

    @property
    def full(self) -> int:
        """Epochs of a whole training."""
        return self.rungs[-1].epochs

    @property
    def search(self) -> int:
        """Epochs of all candidates together, without the rival."""
        ends = [0, *(rung.epochs for rung in self.rungs)]
        return sum(
            rung.places * (rung.epochs - begin)
            for rung, begin in zip(self.rungs, ends, strict=False)
        )

    @property
    def effort(self) -> int:
        """Epochs of the candidates and the rivals together."""
        apart = branch(self.full) if self.rival > self.full else 0
        return self.search + self.rival + apart

    @classmethod
    def of(
        cls,
        effort: int = DEFAULT_EFFORT,
        families: int = 3,
        finalists: int = 1,
        rivals: bool = True,
        trial: int = 1,
    ) -> Schedule:
        """The schedule for a total number of epochs.

        With rivals about half of the epochs goes to them. Of the epochs of the candidates, the
        finalists get 80 %.

        Args:
            effort: Number of epochs of all trainings together.
            families: Number of families, each of which keeps a candidate until the third rung,
                where the effort is large enough for that.
            finalists: Number of candidates that are trained to the end, from 1 to 3.
            rivals: Whether fresh weights of the winner's structure are trained for comparison.
            trial: Epochs of the first rung, where the effort is large enough for that; see
                `trial_epochs`.

        Raises:
            InputError: If the effort is no whole number of at least 1.
        """
        check_whole("effort", effort, 1, EPOCHS, InputError)
        for epochs in range(effort // 2 if rivals else effort, 0, -1):
            rungs = _rungs(epochs, families, finalists, trial)
            generation = min(_GENERATION, -(-rungs[0].places // 2))
            alone = cls(rungs, generation, 0)
            schedule = cls(rungs, generation, alone.search) if rivals else alone
            if schedule.effort <= effort:
                return schedule
        return cls((Rung(1, 1),), 1, int(rivals and effort > 1))


def finalists(budget: Budget, whole: Cost, fusions: Collection[str]) -> int:
    """How many candidates are trained to the end: several where an ensemble may keep the budget.

    Args:
        budget: The budget as given.
        whole: The cost that its shares refer to.
        fusions: The fusions that take part.
    """
    if not set(fusions) - {"soup"}:
        return 1
    if budget.count == "mean" and "cascade" in fusions:
        return _OF_CASCADE
    tightest = min(
        limit / max(whole.on(name), 1e-12)
        for name, limit in budget.limits(whole).items()
        if getattr(whole, name) is not None
    )
    return next((count for least, count in _OF_ENSEMBLES if tightest >= least), 1)


def branch(full: int, decay: float = TrainingSettings.decay) -> int:
    """Epochs that the short rival is trained apart from the long one: those of the falling rate.

    Args:
        full: Epochs of the short rival.
        decay: The share of them in which the learning rate falls.
    """
    return full - int((1 - decay) * full)


def trial_epochs(steps: int | None) -> int:
    """Epochs of at least `TRIAL_STEPS` steps.

    Args:
        steps: Steps of an epoch; `None` where the data does not know, which gives one epoch.
    """
    return 1 if steps is None else -(-TRIAL_STEPS // max(1, steps))


def _rungs(epochs: int, families: int, finalists: int, trial: int) -> tuple[Rung, ...]:
    """Rungs that take up to so many epochs."""
    most = max(finalists, 2 if epochs >= _TWO_FINALISTS * trial else 1)
    longest = max(trial, epochs // _LONG)
    ladders = [
        tuple(unit * end for end in ladder)
        for unit, ladder in product(range(longest, 0, -1), _LADDERS)
    ]
    # Where the epochs do not suffice for all, there are fewer finalists or fewer families.
    tried = [
        (count, safe) for count in range(most, 0, -1) for safe in (max(families, count), count)
    ]
    for (count, safe), ladder in product(tried, ladders):
        full = max(1, round(_FINAL_SHARE * epochs / count))
        if 2 * ladder[-1] > full:
            continue
        places = [0, *([safe] * (len(ladder) - 1)), count]
        left = epochs - _epochs(ladder, full, places)
        first, more = _first_two(left, ladder, safe)
        if first >= safe + (len(ladder) > 1):
            places[0] = first
            if len(ladder) > 1:
                places[1] += more
            return tuple(map(Rung, (*ladder, full), places))
    return (Rung(epochs, 1),)


def _epochs(ladder: tuple[int, ...], full: int, places: list[int]) -> int:
    ends = (*ladder, full)
    return sum(
        count * (end - begin) for count, end, begin in zip(places, ends, (0, *ends), strict=False)
    )


def _first_two(left: int, ladder: tuple[int, ...], safe: int) -> tuple[int, int]:
    """The most candidates in the first rung, of which half are in the second, or `safe`."""
    first, more = 0, 0
    for count in range(1, left // ladder[0] + 1):
        extra = max(0, count // 2 - safe) if len(ladder) > 1 else 0
        cost = count * ladder[0] + (extra * (ladder[1] - ladder[0]) if extra else 0)
        if cost <= left:
            first, more = count, extra
    return first, more
