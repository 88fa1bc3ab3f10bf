"""How much each channel matters: one file per criterion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from saikei.channels import ChannelMap
from saikei.importance.magnitude import magnitude
from saikei.importance.random_scores import random_scores

Scores: TypeAlias = NDArray[np.float64]
Criterion: TypeAlias = Callable[[ChannelMap, np.random.Generator], Scores]

CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {"magnitude": magnitude, "random": random_scores}
)

__all__ = ["CRITERIA", "Criterion", "Scores"]
