"""Ensembles of candidates, found by their stored validation predictions, without training."""

from saikei.search.compose.build import Built, build, teacher
from saikei.search.compose.ensemble import Ensemble, Member
from saikei.search.compose.ensembles import METHODS, Composition, ensembles, is_better
from saikei.search.compose.gains import Gain, gains
from saikei.search.compose.trained import TrainedEnsemble, trained_ensembles

__all__ = [
    "METHODS",
    "Built",
    "Composition",
    "Ensemble",
    "Gain",
    "Member",
    "TrainedEnsemble",
    "build",
    "ensembles",
    "gains",
    "is_better",
    "teacher",
    "trained_ensembles",
]
