"""Keras classes of Saikei's own that saved models can hold: importing this registers them."""

from saikei.models.cascade import CascadeModel
from saikei.models.exits import Combine, Confidence, Exits

__all__ = ["CascadeModel", "Combine", "Confidence", "Exits"]
