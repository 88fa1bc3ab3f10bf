"""Fit an edited graph to what the original computed on a few samples, without training."""

from saikei.calibration.refit import refit
from saikei.calibration.samples import calibration_inputs

__all__ = ["calibration_inputs", "refit"]
