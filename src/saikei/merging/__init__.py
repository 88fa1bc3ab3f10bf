"""Merge arrays of weights and files of weights, without a Keras model."""

from saikei.merging.cutting import cut_checkpoint
from saikei.merging.methods import (
    Dare,
    Ema,
    Fisher,
    Greedy,
    Linear,
    ModelStock,
    Slerp,
    TaskArithmetic,
    Ties,
)
from saikei.merging.stacking import stack_blocks
from saikei.merging.streaming import MergedFile, merge_files

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
    "cut_checkpoint",
    "merge_files",
    "stack_blocks",
]
