"""The record of a run: candidates, scores, costs and decisions, as values."""

from saikei.runs.candidate import Candidate
from saikei.runs.record import Run

__all__ = [
    "Candidate",
    "Run",
]
