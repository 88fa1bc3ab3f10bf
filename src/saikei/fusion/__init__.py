"""Fuse several models into one."""

from saikei.fusion.average import Average
from saikei.fusion.base import Fusion
from saikei.fusion.boost import Boost
from saikei.fusion.chain import Chain
from saikei.fusion.greedy import Selection, select_weights
from saikei.fusion.weights import FittedWeights, fit_weights

__all__ = [
    "Average",
    "Boost",
    "Chain",
    "FittedWeights",
    "Fusion",
    "Selection",
    "fit_weights",
    "select_weights",
]
