"""Fuse several models into one."""

from saikei.fusion.average import Average
from saikei.fusion.average.class_weights import ClassWeights
from saikei.fusion.average.greedy import Selection, select_weights
from saikei.fusion.average.pooling import CalibratedFit
from saikei.fusion.average.weights import FittedWeights, fit_weights
from saikei.fusion.base import Fitted, FittedHead, Fusion, OutputFusion, TrainedFusion, connected
from saikei.fusion.best_member import BestMember
from saikei.fusion.boost import Boost
from saikei.fusion.cascade import Cascade
from saikei.fusion.cascade.fitting import CascadeFit
from saikei.fusion.chain import Chain
from saikei.fusion.evidence import Evidence, MemberOutputs
from saikei.fusion.members import Members
from saikei.fusion.multimodal import Multimodal, MultimodalFit
from saikei.fusion.multimodal.inputs import fill_missing
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
    "Evidence",
    "Fitted",
    "FittedHead",
    "FittedWeights",
    "Fusion",
    "MemberOutputs",
    "Members",
    "Multimodal",
    "MultimodalFit",
    "OutputFusion",
    "Selection",
    "Soup",
    "SoupFit",
    "Stack",
    "TrainedFusion",
    "connected",
    "fill_missing",
    "fit_weights",
    "select_weights",
]
