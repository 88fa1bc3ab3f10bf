"""Teams of candidates, found by their stored validation predictions, without training."""

from saikei.search.compose.build import Built, build, teacher
from saikei.search.compose.gains import Gain, gains
from saikei.search.compose.team import Member, Team
from saikei.search.compose.teams import METHODS, Composition, is_better, teams
from saikei.search.compose.trained import TrainedTeam, trained_teams

__all__ = [
    "METHODS",
    "Built",
    "Composition",
    "Gain",
    "Member",
    "Team",
    "TrainedTeam",
    "build",
    "gains",
    "is_better",
    "teacher",
    "teams",
    "trained_teams",
]
