"""Merge arrays of weights and files of weights, without a Keras model."""

from saikei.merging.fitted import Fisher, Greedy
from saikei.merging.merge_files import MergedFile, merge_files
from saikei.merging.methods import Dare, Ema, Linear, ModelStock, Slerp, TaskArithmetic, Ties

__all__ = [
    "Dare",
    "Ema",
    "Fisher",
    "Greedy",
    "Linear",
    "MergedFile",
    "ModelStock",
    "Slerp",
    "TaskArithmetic",
    "Ties",
    "merge_files",
]
