"""Saikei: the best Keras model that fits a budget, by pruning, distilling and fusing."""

from saikei.budget import Budget
from saikei.channels import channel_groups
from saikei.edits import DropChannels, PruneChannels, Recipe
from saikei.errors import SaikeiError
from saikei.profile import profile

__all__ = [
    "Budget",
    "DropChannels",
    "PruneChannels",
    "Recipe",
    "SaikeiError",
    "channel_groups",
    "profile",
]
