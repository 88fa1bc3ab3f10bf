"""The record of a run: candidates, scores, costs and decisions, as values."""

from saikei.runs.record import Candidate, Run

__all__ = [
    "Candidate",
    "Run",
]
