"""`BestMember`: the one member that is best on held-out data, without any fusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from saikei.batches import Array
from saikei.codec import ToDict
from saikei.fusion.base import DataNeed, OutputFusion, listed
from saikei.fusion.evidence import Evidence, MemberOutputs
from saikei.fusion.members import Members
from saikei.graph import build


@dataclass(frozen=True)
class PickedMember(ToDict):
    """The head that gives the output of one member.

    Args:
        index: The index of the member, from 0.
        losses: The loss of each member on the data of the choice, nats or squared error.
    """

    index: int
    losses: tuple[float, ...]

    def predict(self, predictions: MemberOutputs) -> tuple[Array, ...]:
        """The member's outputs."""
        return tuple(predictions.outputs[self.index])

    def connect(self, predictions: MemberOutputs, name: str) -> tuple[Any, ...]:  # noqa: ARG002 - no new layer
        """The member's outputs."""
        return tuple(predictions.outputs[self.index])

    @property
    def summary(self) -> str:
        """The losses of all members."""
        return f"losses {listed(self.losses)}"


@dataclass(frozen=True)
class BestMember(OutputFusion[PickedMember]):
    """The member of the lowest loss on held-out data: what every fusion has to beat.

    Example:
        >>> BestMember().to_dict()
        {}
    """

    @property
    def data(self) -> DataNeed:
        """Held-out data, on which the members are compared."""
        return "held_out"

    @property
    def complexity(self) -> int:
        """Nothing is simpler."""
        return 0

    def fit_head(self, evidence: Evidence) -> PickedMember:
        """Choose the member of the lowest loss."""
        losses = tuple(evidence.labelled.loss(outputs) for outputs in evidence.predictions.outputs)
        return PickedMember(int(np.argmin(losses)), losses)

    def build(self, members: Members, head: PickedMember) -> keras.Model:
        """A copy of the member."""
        return build(members.graphs[head.index], compiled=True)
