"""How much each channel matters, by criteria that look at weights, data or gradients."""

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
from saikei.importance.from_gradients import hessian, taylor
from saikei.importance.from_weights import (
    bn_scale,
    geometric_median,
    l1,
    magnitude,
    random_scores,
)
from saikei.importance.reconstruction import reconstruction

Scores: TypeAlias = NDArray[np.float64]
# Users can give a function of this kind as a criterion.
ScoreFunction: TypeAlias = Callable[[ChannelMap, np.random.Generator, Samples | None], Scores]


@dataclass(frozen=True)
class Criterion:
    """A function that scores channels, and what it needs.

    Args:
        score: Takes a graph with its channels, a generator and samples, and returns one number
            for each channel; the higher, the more the channel matters.
        needs: The data that it needs: none, inputs, or inputs with labels.
        error: Whether scores are errors in one unit for all groups, so that it makes sense to
            weigh them against what a channel costs. Other scores compare a channel with the
            others of its group only.
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
