"""Teams of candidates, found by their stored validation predictions, without training."""

from saikei.search.compose.team import Lack, Member, Team

__all__ = ["Lack", "Member", "Team"]
