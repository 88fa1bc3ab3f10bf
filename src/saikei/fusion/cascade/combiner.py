"""A fitted cascade over predictions that are there already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from saikei.batches import Array
from saikei.fusion.cascade.fitting import CascadeFit
from saikei.fusion.cascade.stage_table import confidences, stages_of
from saikei.fusion.evidence import Said
from saikei.models.cascade import select


@dataclass(frozen=True)
class Exiting:
    """What a cascade says: of each row what the stage says at which it leaves.

    Args:
        found: the exits, and what is known of them.
    """

    found: CascadeFit

    def predict(self, said: Said) -> tuple[Array, ...]:
        """One array, `(n, …)`, as a cascade of the same members predicts."""
        outputs, stages = [member[0] for member in said.outputs], self.stages(said)
        exits = self.found.exits
        upto = np.stack([exits.said(outputs[:count]) for count in range(1, len(outputs) + 1)])
        return (np.asarray(upto[stages, np.arange(len(stages))]),)

    def stages(self, said: Said) -> Array:
        """The stage at which each row leaves, int `(n,)`: how many members it sees, less one."""
        exits = self.found.exits
        sure = confidences(exits, [member[0] for member in said.outputs])
        return stages_of(sure, exits.thresholds)

    def connect(self, said: Said, name: str) -> tuple[Any, ...]:  # noqa: ARG002 - no new weights
        """The same in a graph, which runs all members."""
        return (select(self.found.exits, [member[0] for member in said.outputs]),)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.found.to_dict()
