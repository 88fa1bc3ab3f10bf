"""Fuse several models into one."""

from saikei.fusion.average import Average
from saikei.fusion.averaging.calibrate import Temperature
from saikei.fusion.averaging.class_weights import ClassWeights
from saikei.fusion.averaging.greedy import Selection, select_weights
from saikei.fusion.averaging.pool_fit import CalibratedFit
from saikei.fusion.averaging.weights import FittedWeights, fit_weights
from saikei.fusion.base import Fusion
from saikei.fusion.best_member import BestMember
from saikei.fusion.boost import Boost
from saikei.fusion.cascade import Cascade
from saikei.fusion.cascades.fitting import CascadeFit
from saikei.fusion.chain import Chain
from saikei.fusion.choose import Choice, Rival, choose
from saikei.fusion.explain import explain, explain_predictions
from saikei.fusion.explaining.explanation import Explanation, MemberPart
from saikei.fusion.modalities.naming import fill_missing
from saikei.fusion.multimodal import Multimodal, MultimodalFit
from saikei.fusion.nested import NestedScore, nested_score
from saikei.fusion.shared_prefix import compact
from saikei.fusion.soup import Soup
from saikei.fusion.soups.barrier import Barrier
from saikei.fusion.soups.fitted import Fisher, Greedy
from saikei.fusion.soups.merge_files import MergedFile, merge_files
from saikei.fusion.soups.methods import (
    Dare,
    Ema,
    Linear,
    ModelStock,
    Slerp,
    TaskArithmetic,
    Ties,
)
from saikei.fusion.soups.pot import SoupFit
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
    "Choice",
    "ClassWeights",
    "Dare",
    "Ema",
    "Explanation",
    "Fisher",
    "FittedWeights",
    "Fusion",
    "Greedy",
    "Linear",
    "MemberPart",
    "MergedFile",
    "ModelStock",
    "Multimodal",
    "MultimodalFit",
    "NestedScore",
    "Rival",
    "Selection",
    "Slerp",
    "Soup",
    "SoupFit",
    "Stack",
    "TaskArithmetic",
    "Temperature",
    "Ties",
    "choose",
    "compact",
    "explain",
    "explain_predictions",
    "fill_missing",
    "fit_weights",
    "merge_files",
    "nested_score",
    "select_weights",
]
