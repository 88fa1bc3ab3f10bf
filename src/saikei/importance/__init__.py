"""How much each channel matters: one file per criterion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saikei.calibration.samples import Samples
from saikei.channels import ChannelMap
from saikei.importance.activation import activation, apoz
from saikei.importance.bn_scale import bn_scale
from saikei.importance.geometric_median import geometric_median
from saikei.importance.hessian import hessian
from saikei.importance.magnitude import l1, magnitude
from saikei.importance.random_scores import random_scores
from saikei.importance.reconstruction import reconstruction
from saikei.importance.taylor import taylor

Scores: TypeAlias = NDArray[np.float64]
# A criterion of a user's own is such a function too.
ScoreFunction: TypeAlias = Callable[[ChannelMap, np.random.Generator, Samples | None], Scores]


@dataclass(frozen=True)
class Criterion:
    """A way to score channels.

    Args:
        score: from a graph with its channels, a generator and samples to one number for each
            channel; the higher, the more it matters.
        needs: what it needs to be given.
        error: whether scores are errors in one unit for all groups, so that it makes sense to
            weigh them against what a channel costs. Other scores say how a channel compares
            with those of its own group.
    """

    score: ScoreFunction
    needs: Literal["nothing", "inputs", "labels"] = "nothing"
    error: bool = False


CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        "activation": Criterion(activation, "inputs"),
        "apoz": Criterion(apoz, "inputs"),
        "bn_scale": Criterion(bn_scale),
        "geometric_median": Criterion(geometric_median),
        "hessian": Criterion(hessian, "labels"),
        "l1": Criterion(l1),
        "magnitude": Criterion(magnitude),
        "random": Criterion(random_scores),
        "reconstruction": Criterion(reconstruction, "inputs", error=True),
        "taylor": Criterion(taylor, "labels"),
    }
)

__all__ = ["CRITERIA", "Criterion", "ScoreFunction", "Scores"]
