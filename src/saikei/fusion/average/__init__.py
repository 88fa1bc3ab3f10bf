"""`Average`: the mean, or the median, of the outputs of the members."""

from saikei.fusion.average.average import Average, Weights

__all__ = ["Average", "Weights"]
