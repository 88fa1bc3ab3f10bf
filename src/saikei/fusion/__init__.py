"""Fuse several models into one."""

from saikei.fusion.average import Average
from saikei.fusion.weights import FittedWeights, fit_weights

__all__ = ["Average", "FittedWeights", "fit_weights"]
