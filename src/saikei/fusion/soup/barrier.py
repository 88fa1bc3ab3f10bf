"""The loss along the line between two networks: whether they lie in one valley.

Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", 2020. Moving
statistics are measured anew at each point, since those of a mean are no mean of the members'
(Jordan et al., "REPAIR", 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saikei.fusion.soup.architecture import Place, Tensors
from saikei.fusion.soup.scorer import Trial
from saikei.merging.kernels import linear
from saikei.scoring.score import standard_error

# Of what the members gain over constant outputs; a wall that costs less is no reason to refuse.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Barrier:
    """The loss on the way from one member to another.

    Args:
        members: their numbers, from 1.
        shares: of the second at each point, 0 to 1.
        losses: mean held-out loss at each point, nats or squared error.
        height: the most that a point lies above the straight line between the ends' losses.
        error: standard error of the height, paired by row.
        gain: how much lower the ends' mean loss is than that of the best constant outputs.
    """

    members: tuple[int, int]
    shares: tuple[float, ...]
    losses: tuple[float, ...]
    height: float
    error: float
    gain: float

    @property
    def stands(self) -> bool:
        """Whether it costs a tenth of the gain or more, beyond two standard errors."""
        return self.height > max(2 * self.error, TOLERANCE * max(self.gain, 0.0))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "members": list(self.members),
            "shares": list(self.shares),
            "losses": list(self.losses),
            "height": self.height,
            "error": self.error,
            "gain": self.gain,
            "stands": self.stands,
        }


def measure_barrier(
    trial: Trial,
    pair: tuple[int, int],
    ends: Sequence[Tensors],
    kept: set[Place],
    points: int,
) -> Barrier:
    """The losses on the line between two members.

    Args:
        trial: on held-out data.
        pair: their numbers, from 1.
        ends: their weights.
        kept: places that are not merged.
        points: how many, both ends among them.
    """
    shares = np.linspace(0, 1, points)
    rows = np.stack([trial.losses(_at(trial, ends, kept, float(share))) for share in shares])
    line = np.outer(1 - shares, rows[0]) + np.outer(shares, rows[-1])
    above = (rows - line).mean(axis=1)
    top = int(np.argmax(above))
    return Barrier(
        members=pair,
        shares=tuple(float(share) for share in shares),
        losses=tuple(float(loss) for loss in rows.mean(axis=1)),
        height=float(above[top]),
        error=float(standard_error(rows[top] - line[top])),
        gain=trial.chance() - float(line.mean()),
    )


def _at(trial: Trial, ends: Sequence[Tensors], kept: set[Place], share: float) -> Tensors:
    if share in (0.0, 1.0):
        return ends[int(share)]
    between = {
        place: array if place in kept else linear([array, ends[1][place]], (1 - share, share))
        for place, array in ends[0].items()
    }
    return trial.settled(between)
