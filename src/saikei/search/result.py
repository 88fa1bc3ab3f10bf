"""`Result`, which `optimize` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import keras
from rich.console import RenderableType

from saikei import report
from saikei.budget import Budget
from saikei.graph import copy_model
from saikei.runs.candidate import Candidate
from saikei.runs.record import Run
from saikei.search.details import details_of, details_with_files
from saikei.search.folder import RunFolder
from saikei.search.library import Library
from saikei.search.propose import Structure, resolve


@dataclass(frozen=True)
class Front:
    """The Pareto table of a run; `str()` of it is the table for a terminal.

    Args:
        run: A finished run.
    """

    run: Run = field(repr=False)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The Pareto-optimal candidates, cheapest first."""
        return tuple(self.run.candidate(name) for name in self.run.front)

    def __str__(self) -> str:
        return report.render_front(self.run)

    def __rich__(self) -> RenderableType:
        return report.front_table(self.run)

    def _repr_html_(self) -> str:
        return (
            report.front_picture({"run": self.run}) + report.front_columns(self.run)._repr_html_()
        )


@dataclass(frozen=True)
class Resolved:
    """A structure for another budget, which is not trained.

    Args:
        model: The model, uncompiled; train it before use, for example with `saikei.distill`.
        structure: Its edits, its costs, and the divergence from the original that is predicted.
    """

    model: keras.Model = field(repr=False)
    structure: Structure


@dataclass(frozen=True)
class Result:
    """The model to ship, and the record of the search.

    Args:
        best: The model to ship, compiled as the given models are if they all have the same loss.
        run: The record of everything that was tried and decided.
        folder: Folder of the run. Without `out` it is deleted together with this object.
    """

    best: keras.Model
    run: Run = field(repr=False)
    folder: Path

    @property
    def int8_file(self) -> Path | None:
        """The LiteRT file to ship where an int8 version was chosen; `best` is its float model."""
        path = RunFolder(self.folder, {}).best_int8
        return path if path.is_file() else None

    @property
    def front(self) -> Front:
        """The Pareto table: metric with interval, parameters, MACs, latency."""
        return Front(self.run)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates, originals first."""
        return self.run.candidates

    @property
    def baseline(self) -> Candidate:
        """The original that shares of the budget refer to."""
        return self.run.candidate(self.run.baseline)

    @property
    def chosen(self) -> Candidate:
        """The record of `best`."""
        return self.run.candidate(self.run.chosen)

    def resolve(self, budget: Budget, data: Any = None) -> Resolved:
        """The structure for another budget, from what the run has measured; nothing is trained.

        Args:
            budget: The limits; shares are relative to the baseline.
            data: Training data to refit the remaining weights to; `None` leaves them as they are.

        Raises:
            BudgetError: If no structure keeps the budget, with the smallest that can be reached.
            InputError: If the run has no library of its baseline.
        """
        name = self.run.baseline
        folder = RunFolder(self.folder, {})
        original = folder.load(folder.candidates / name / "model.keras")
        structure = resolve(Library.load(folder.library(name)), original, budget, data)
        recipe = structure.recipe
        model = copy_model(original) if recipe is None else recipe(original, data)
        return Resolved(model, structure)

    def report(self, path: str | Path, overwrite: bool = True, files: bool = False) -> Path:
        """Write the report as one HTML file that works offline.

        Args:
            path: The file; its folder must exist.
            overwrite: Whether an existing file may be replaced, as in `keras.Model.save`.
            files: Whether to export the original and the shipped model to LiteRT and ONNX, and to
                show the time of one sample in each file.

        Raises:
            InputError: If the path cannot be written to, or exists and `overwrite` is false.
        """
        folder = RunFolder(self.folder, {})
        details = (details_with_files if files else details_of)(self.run, folder)
        return report.write_html(self.run, path, details, overwrite)

    def __str__(self) -> str:
        return report.render_text(self.run)

    def __rich__(self) -> RenderableType:
        return report.text_report(self.run)

    def _repr_html_(self) -> str:
        headline = report.report_of(self.run).headline
        lead = escape(f"Ship {headline.name} ({headline.kind}). {headline.sentence}")
        return f"<p>{lead}</p>\n{self.front._repr_html_()}"
