"""Fuse several models into one."""

from saikei.fusion.average import Average
from saikei.fusion.averaging.class_weights import ClassWeights
from saikei.fusion.averaging.greedy import Selection, select_weights
from saikei.fusion.averaging.pooling import CalibratedFit
from saikei.fusion.averaging.weights import FittedWeights, fit_weights
from saikei.fusion.base import Fusion
from saikei.fusion.best_member import BestMember
from saikei.fusion.boost import Boost
from saikei.fusion.cascade import Cascade
from saikei.fusion.cascade.fitting import CascadeFit
from saikei.fusion.chain import Chain
from saikei.fusion.compact import compact
from saikei.fusion.modalities.naming import fill_missing
from saikei.fusion.multimodal import Multimodal, MultimodalFit
from saikei.fusion.soup import Soup
from saikei.fusion.soup.barrier import Barrier
from saikei.fusion.soup.merge_members import SoupFit
from saikei.fusion.stack import Stack

__all__ = [
    "Average",
    "Barrier",
    "BestMember",
    "Boost",
    "CalibratedFit",
    "Cascade",
    "CascadeFit",
    "Chain",
    "ClassWeights",
    "FittedWeights",
    "Fusion",
    "Multimodal",
    "MultimodalFit",
    "Selection",
    "Soup",
    "SoupFit",
    "Stack",
    "compact",
    "fill_missing",
    "fit_weights",
    "select_weights",
]
