"""Merging as NumPy functions of a list of arrays: one tensor of each model, and perhaps a base's.

Each kernel works in blocks that stay in the processor's cache, on as many threads as help, and
gives the same bits however the work was divided. float16, bfloat16 and float32 are summed in
float64; float64 in what the machine has beyond it.
"""

from saikei.merging.kernels.deltas import Consensus, dare, merge_deltas, ties
from saikei.merging.kernels.means import fisher, linear, model_stock, slerp
from saikei.merging.kernels.threshold import magnitude_thresholds

__all__ = [
    "Consensus",
    "dare",
    "fisher",
    "linear",
    "magnitude_thresholds",
    "merge_deltas",
    "model_stock",
    "slerp",
    "ties",
]
