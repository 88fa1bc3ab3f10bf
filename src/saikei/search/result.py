"""What `optimize` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import keras

from saikei import report
from saikei.runs.candidate import Candidate
from saikei.runs.record import Run


@dataclass(frozen=True)
class Front:
    """The Pareto table of a run; `str()` of it is what a terminal shows.

    Args:
        run: the run.
    """

    run: Run = field(repr=False)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The Pareto-optimal ones, cheapest first."""
        return tuple(self.run.candidate(name) for name in self.run.front)

    def __str__(self) -> str:
        return report.render_front(self.run)


@dataclass(frozen=True)
class Result:
    """The model to ship, and why.

    Args:
        best: the model to ship, uncompiled.
        run: the record of everything that was tried and decided.
        folder: where it all is; without `out`, only for as long as this object lives.
    """

    best: keras.Model
    run: Run = field(repr=False)
    folder: Path

    @property
    def front(self) -> Front:
        """The Pareto table: metric with interval, parameters, MACs, latency."""
        return Front(self.run)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Everything that was considered, originals first."""
        return self.run.candidates

    @property
    def baseline(self) -> Candidate:
        """The original that shares of the budget are of."""
        return self.run.candidate(self.run.baseline)

    @property
    def chosen(self) -> Candidate:
        """The record of `best`."""
        return self.run.candidate(self.run.chosen)

    def report(self, path: str | Path, overwrite: bool = True) -> Path:
        """Write the report as one HTML file that works offline.

        Args:
            path: the file.
            overwrite: whether a file may be replaced, as in `keras.Model.save`.

        Returns:
            The path.

        Raises:
            InputError: when the place to write to is wrong.
            DiskError: when the disk does not take it.
        """
        return report.write_html(self.run, path, overwrite)

    def __str__(self) -> str:
        return report.render_text(self.run)
