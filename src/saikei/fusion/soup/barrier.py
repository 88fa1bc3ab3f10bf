"""The loss on the line between the weights of two networks: whether their mean is usable.

Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", 2020. Moving
statistics are measured anew at each point, since those of a mean are no mean of the members'
(Jordan et al., "REPAIR", 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from saikei.codec import ToDict
from saikei.fusion.soup.architecture import Tensors, WeightName
from saikei.fusion.soup.scorer import WeightScorer
from saikei.merging.kernels import linear
from saikei.scoring.score import standard_error

# As a share of the members' gain over constant outputs; a lower barrier is no reason to refuse.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Barrier(ToDict):
    """The loss on the line between the weights of two members.

    Args:
        members: The numbers of both members, from 1.
        shares: The share of the second member at each point, 0 to 1.
        losses: Mean held-out loss at each point, nats or squared error.
        height: The largest excess of a point's loss over the straight line between the ends'
            losses.
        error: Standard error of the height, paired by row.
        gain: The loss of the best constant outputs minus the mean loss of the ends.
    """

    json_adds: ClassVar[tuple[str, ...]] = ("significant",)
    members: tuple[int, int]
    shares: tuple[float, ...]
    losses: tuple[float, ...]
    height: float
    error: float
    gain: float

    @property
    def significant(self) -> bool:
        """Whether the height is above a tenth of the gain and above two standard errors."""
        return self.height > max(2 * self.error, TOLERANCE * max(self.gain, 0.0))


def measure_barrier(
    scorer: WeightScorer,
    pair: tuple[int, int],
    ends: Sequence[Tensors],
    kept: set[WeightName],
    points: int,
) -> Barrier:
    """Measure the losses on the line between two members.

    Args:
        scorer: Scores weights on held-out data.
        pair: The numbers of both members, from 1.
        ends: The weights of both members.
        kept: Names of weights that are not merged.
        points: How many points are measured, both ends included.
    """
    shares = np.linspace(0, 1, points)
    rows = np.stack([scorer.losses(_at(scorer, ends, kept, float(share))) for share in shares])
    line = np.outer(1 - shares, rows[0]) + np.outer(shares, rows[-1])
    above = (rows - line).mean(axis=1)
    top = int(np.argmax(above))
    return Barrier(
        members=pair,
        shares=tuple(float(share) for share in shares),
        losses=tuple(float(loss) for loss in rows.mean(axis=1)),
        height=float(above[top]),
        error=float(standard_error(rows[top] - line[top])),
        gain=scorer.chance() - float(line.mean()),
    )


def _at(
    scorer: WeightScorer, ends: Sequence[Tensors], kept: set[WeightName], share: float
) -> Tensors:
    if share in (0.0, 1.0):
        return ends[int(share)]
    between = {
        key: array if key in kept else linear([array, ends[1][key]], (1 - share, share))
        for key, array in ends[0].items()
    }
    return scorer.recalibrated(between)
