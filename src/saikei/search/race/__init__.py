"""The race: candidates are trained in rungs, and the most useful ones go on."""

from saikei.search.race.driver import Driver, Part
from saikei.search.race.plan import Entry, Plan, RungResult, RungTask
from saikei.search.race.promotion import Racer, Value, small_unproven
from saikei.search.race.race import RIVAL, race, race_repeats, race_rivals
from saikei.search.race.rung import Shared, has_learned, overfits, run_rung, trained
from saikei.search.race.schedule import (
    DEFAULT_EFFORT,
    Rung,
    Schedule,
    branch,
    finalists,
    trial_epochs,
)
from saikei.search.race.settings import Space, space_of

__all__ = [
    "DEFAULT_EFFORT",
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
    "overfits",
    "race",
    "race_repeats",
    "race_rivals",
    "run_rung",
    "small_unproven",
    "space_of",
    "trained",
    "trial_epochs",
]
