"""`BestMember`: no fusion at all, the one member that is best on held-out data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from saikei.batches import Array
from saikei.fusion.base import Fusion
from saikei.fusion.evidence import Evidence, Members, Said, deployed, gather
from saikei.graph import copy_model
from saikei.scoring.labelled import Labelled
from saikei.training.provenance import record_rows


@dataclass(frozen=True)
class PickedMember:
    """One member, as it is.

    Args:
        place: of the member, from 0.
        losses: of each member on the data of the choice, nats or squared error.
    """

    place: int
    losses: tuple[float, ...]

    def predict(self, said: Said) -> tuple[Array, ...]:
        """What the member says."""
        return tuple(said.outputs[self.place])

    def connect(self, said: Said, name: str) -> tuple[Any, ...]:  # noqa: ARG002 - no new layer
        """The member's outputs."""
        return tuple(said.outputs[self.place])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"place": self.place, "losses": list(self.losses)}


@dataclass(frozen=True)
class BestMember(Fusion):
    """The member of the lowest loss on held-out data: what every fusion has to beat.

    Example:
        >>> BestMember().to_dict()
        {}
    """

    def __call__(
        self, members: Members, data: Any = None, *, allow_in_sample: bool = False
    ) -> keras.Model:
        """Copy the best member.

        Args:
            members: two or more built models with the same inputs and outputs; they are not
                changed. Or what `cross_fit` gives, in the place of members and data.
            data: held-out `(x, y)` or a dataset.
            allow_in_sample: choose even on rows that a member was trained on.

        Raises:
            FusionError: when the members do not fit each other, there is no data, or a member
                was trained on some of it.
            DataError: when the data does not fit the members.
        """
        evidence = gather(members, data, allow_in_sample)
        best = copy_model(deployed(members)[self.combiner(evidence).place])
        record_rows(best, evidence.digests, "BestMember")
        return best

    def fit(
        self, members: Members, data: Any = None, *, allow_in_sample: bool = False
    ) -> PickedMember:
        """Choose the member, and say what each of them loses.

        Args:
            members: as for a call.
            data: as for a call.
            allow_in_sample: as for a call.

        Raises:
            FusionError: as for a call.
            DataError: as for a call.
        """
        return self.combiner(gather(members, data, allow_in_sample))

    @property
    def complexity(self) -> int:
        """Nothing is simpler."""
        return 0

    def combiner(self, evidence: Evidence) -> PickedMember:
        """Choose on evidence that is there already."""
        losses = tuple(
            float(Labelled.of(evidence.tasks, evidence.labels).losses(outputs).mean())
            for outputs in evidence.said.outputs
        )
        return PickedMember(int(np.argmin(losses)), losses)

    def to_dict(self) -> dict[str, Any]:
        """It has no arguments."""
        return {}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> BestMember:  # noqa: ARG003
        """The inverse of `to_dict`."""
        return cls()
