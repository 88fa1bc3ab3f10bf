"""The race: candidates are trained in rungs, and the most useful ones go on."""

from saikei.search.race.plan import Plan, RungResult, RungTask

__all__ = ["Plan", "RungResult", "RungTask"]
