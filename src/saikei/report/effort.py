"""The epochs that a run trained as data: by family of candidates, rung by rung."""

from __future__ import annotations

from dataclasses import dataclass

from saikei.runs import numbers
from saikei.runs.record import EffortRecord, Run

# What the names of families mean to a reader, by how they begin.
_MEANINGS = {
    "knapsack": "the edits that lose least together, by an integer program",
    "uniform": "the same share of channels in every layer",
    "swapped": "knapsack with edits exchanged by what they were measured to lose",
    "depth": "whole blocks removed",
    "no depth": "knapsack without removing blocks",
    "variant": "the best structure with further edits that save nothing",
    "in steps": "cut to a larger structure, trained, and cut again",
    "as given": "the given network as it is",
    "fresh": "a structure with new random weights",
    "rival": "the winner's structure with new random weights, to see whether its weights are worth "
    "keeping",
    "repeat": "the winner once more, with another seed",
    "student": "one network that learns from several together",
    "boost": "a series in which each network corrects those before it",
}


@dataclass(frozen=True)
class EffortRow:
    """Epochs that one family of candidates was trained, rung by rung, as texts and as bars."""

    family: str
    epochs: tuple[str, ...]
    total: str
    bars: tuple[tuple[float, str], ...]


def effort_rows(run: Run) -> tuple[EffortRow, ...]:
    """The epochs of each family of candidates, and the bars that show them."""
    families = dict.fromkeys(one.family for one in run.effort)
    return tuple(
        EffortRow(
            family,
            tuple(
                _epochs([one for one in run.effort if (one.family, one.rung) == (family, rung)])
                for rung in rungs_of(run)
            ),
            str(sum(one.epochs for one in run.effort if one.family == family)),
            _bars(run, family),
        )
        for family in families
    )


def meanings_of(run: Run) -> tuple[tuple[str, str], ...]:
    """The families of a run, each with what its name means."""
    names = dict.fromkeys(one.family for one in run.effort)
    found = {key: text for key, text in _MEANINGS.items() if any(n.startswith(key) for n in names)}
    return tuple(found.items())


def rungs_of(run: Run) -> tuple[int, ...]:
    """The epochs that the rungs of the race ended at, in order."""
    return tuple(sorted({one.rung for one in run.effort}))


def stage_times(run: Run) -> tuple[tuple[str, str], ...]:
    """How long each stage of a run took, each with its name.

    Trainings and measurements of several processes are added up, so that with workers, or in a run
    that was continued, they may take longer than the run itself.
    """
    measuring = sum(one.seconds for one in run.library.values())
    training = sum(c.training.seconds for c in run.candidates if c.training is not None)
    rest = run.seconds - measuring - training
    found = [("measuring every option alone", measuring), ("training all candidates", training)]
    if rest > 0:
        found.append(("all else: scoring, fusing, latencies, files", rest))
    return tuple(
        (name, numbers.duration(one)) for name, one in (*found, ("the whole run", run.seconds))
    )


def _bars(run: Run, family: str) -> tuple[tuple[float, str], ...]:
    """For each rung the length of a bar, in percent of the longest family, and its text."""
    totals = [
        sum(one.epochs for one in run.effort if one.family == name)
        for name in {one.family for one in run.effort}
    ]
    bars = []
    for rung in rungs_of(run):
        found = [one for one in run.effort if (one.family, one.rung) == (family, rung)]
        epochs = sum(one.epochs for one in found)
        candidates = sum(one.candidates for one in found)
        text = f"{family}, to epoch {rung}: {epochs} epochs of {candidates} candidates"
        bars.append((100 * epochs / max(max(totals), 1), text))
    return tuple(bars)


def _epochs(records: list[EffortRecord]) -> str:
    """Epochs and candidates of one cell of the table, such as "6 (3)"."""
    if not records:
        return "–"
    return f"{sum(one.epochs for one in records)} ({sum(one.candidates for one in records)})"
