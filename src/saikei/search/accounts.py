"""What each method offered to a run, what was tried, and why it was kept or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from saikei.edits import DropChannels, Edit, PruneChannels
from saikei.edits.base import edit_classes
from saikei.runs import numbers
from saikei.runs.candidate import Candidate
from saikei.runs.front import goodness
from saikei.runs.record import MethodRecord
from saikei.scoring.labelled import Labelled, Outputs
from saikei.search.library import Library, Measured
from saikei.search.methods import FUSIONS, Methods, word_of


@dataclass(frozen=True)
class Accounts:
    """All that the records of the methods are made of.

    Args:
        methods: The methods that took part.
        libraries: The library of each original that structures were made from.
        considered: Number of sets of members that were scored, for each fusion.
        notes: Reasons that the search has noted itself, by method, such as why int8 was not tried.
        candidates: All candidates.
        outputs: Their outputs on validation, by name.
        judge: Scores outputs on validation.
        axis: The cost that options are compared on.
    """

    methods: Methods
    libraries: Mapping[str, Library] = field(repr=False)
    considered: Mapping[str, int]
    notes: Mapping[str, str]
    candidates: Sequence[Candidate] = field(repr=False)
    outputs: Mapping[str, Outputs] = field(repr=False)
    judge: Labelled = field(repr=False)
    axis: str

    def records(self, chosen: Candidate) -> tuple[MethodRecord, ...]:
        """One record for each method.

        Args:
            chosen: The candidate to ship.
        """
        return tuple(self._record(name, chosen) for name in self.methods.names)

    def _record(self, name: str, chosen: Candidate) -> MethodRecord:
        by_name = {c.name: c for c in self.candidates}
        using = [c for c in self.candidates if name in methods_of(c, by_name)]
        offered = self._offered(name, using)
        kept = chosen in using
        if kept:
            reason = f"{chosen.name} uses it."
        elif name in self.notes:
            reason = self.notes[name]
        elif using:
            reason = self._behind(using, chosen)
        elif offered and name not in FUSIONS:
            reason = self._too_dear(name)
        elif name in FUSIONS:
            reason = "No two candidates keep the budget together in this way."
        else:
            reason = "No place in the model allows it."
        return MethodRecord(name, offered, len(using), kept, reason)

    def _offered(self, name: str, using: Sequence[Candidate]) -> int:
        if name in FUSIONS:
            return self.considered.get(name, len(using))
        entries = [e for one in self.libraries.values() for e in one.entries]
        return sum(e.option.method == name for e in entries) or len(using)

    def _behind(self, using: Sequence[Candidate], chosen: Candidate) -> str:
        """How the best candidate that uses a method compares with the shipped one."""
        best = max(using, key=lambda c: (c.fits, goodness(c.validation), c.name))
        name = best.validation.name
        gap = self.judge.difference(self.outputs[best.name], self.outputs[chosen.name])
        over = "" if best.fits else " and is over the budget"
        return (
            f"Its best candidate {best.name} has {numbers.score(best.validation)}{over}; the "
            f"difference to the shipped {chosen.name} is {numbers.difference(name, gap)}."
        )

    def _too_dear(self, name: str) -> str:
        """What the options of a method lose for what they save, against the other methods."""
        rates = [
            (rate, entry)
            for one in self.libraries.values()
            for entry in one.entries
            if (rate := _rate(entry, one, self.axis)) is not None
        ]
        ours = [pair for pair in rates if pair[1].option.method == name]
        others = [pair for pair in rates if pair[1].option.method != name]
        label = numbers.COSTS["macs" if self.axis == "latency" else self.axis]
        if not ours:
            return f"None of its options saves {label}."
        least, entry = min(ours, key=lambda pair: pair[0])
        unit = next(iter(self.libraries.values())).unit
        lead = (
            f"Its best option ({entry.option.site}: {entry.option.change}) loses {least:.2g} "
            f"{unit} for each percent of the {label} that it saves"
        )
        if not others:
            return f"{lead}; no structure within the budget needed it."
        lowest, other = min(others, key=lambda pair: pair[0])
        return f"{lead}, the best of {other.option.method} {lowest:.2g}."


def methods_of(candidate: Candidate, by_name: Mapping[str, Candidate]) -> frozenset[str]:
    """The methods that a candidate uses, those of its members included.

    Args:
        candidate: The candidate.
        by_name: All candidates by name.
    """
    found = set(_edits_of(candidate))
    if candidate.kind == "fused":
        found |= {candidate.family, *(("multimodal",) if candidate.plan.get("multimodal") else ())}
    if candidate.kind == "quantized":
        found.add("quantize")
    for member in candidate.members:
        found |= methods_of(by_name[member], by_name)
    return frozenset(found)


def _edits_of(candidate: Candidate) -> Iterable[str]:
    """The methods of the edits in a candidate's recipe."""
    kinds: dict[str, type[Edit]] = {**edit_classes(), DropChannels.__name__: PruneChannels}
    for edit in (candidate.recipe or {}).get("edits", ()):
        yield word_of(kinds[edit["edit"]])


def _rate(entry: Measured, library: Library, axis: str) -> float | None:
    """The divergence for each percent of the costs that an option saves."""
    # A latency is measured on built models alone; MACs stand for it.
    axis = "macs" if axis == "latency" else axis
    whole = float(getattr(library.original, axis))
    saved = 100 * (1 - float(getattr(entry.costs, axis)) / whole) if whole else 0.0
    return entry.loss / saved if saved > 0.01 else None
