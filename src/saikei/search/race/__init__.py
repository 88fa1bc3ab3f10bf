"""The race: candidates are trained in rungs, and the most useful ones go on."""

from saikei.search.race.driver import Driver, Part
from saikei.search.race.plan import Entry, Plan, RungResult, RungTask
from saikei.search.race.promotion import Racer, Value
from saikei.search.race.race import RIVAL, race, race_repeats, race_rivals
from saikei.search.race.rung import LONG, Shared, has_learned, run_rung, trained
from saikei.search.race.schedule import DEFAULT_EFFORT, Rung, Schedule, branch, finalists
from saikei.search.race.settings import Space, space_of

__all__ = [
    "DEFAULT_EFFORT",
    "LONG",
    "RIVAL",
    "Driver",
    "Entry",
    "Part",
    "Plan",
    "Racer",
    "Rung",
    "RungResult",
    "RungTask",
    "Schedule",
    "Shared",
    "Space",
    "Value",
    "branch",
    "finalists",
    "has_learned",
    "race",
    "race_repeats",
    "race_rivals",
    "run_rung",
    "space_of",
    "trained",
]
