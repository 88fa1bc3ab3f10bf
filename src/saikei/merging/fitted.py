"""The methods of merging that are fitted to held-out data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from saikei.errors import FusionError
from saikei.limits import check_whole


@dataclass(frozen=True)
class Fisher:
    """The mean, weighted number by number by the members' Fisher information.

    Matena and Raffel, 2022. The information is the empirical one, of the labels of held-out data.

    Args:
        samples: how many rows it is measured on; all where there are fewer.
    """

    samples: int = 512

    def __post_init__(self) -> None:
        check_whole("samples", self.samples, 1, 10_000_000)

    def to_dict(self) -> dict[str, Any]:
        """The arguments with the method's name, JSON-ready."""
        return {"method": "Fisher", **asdict(self)}


@dataclass(frozen=True)
class Greedy:
    """The greedy soup: members join, the best first, as long as the mean does not get worse.

    Wortsman et al., "Model soups", 2022. Measured on held-out data.

    Args:
        metric: `"loss"` or `"accuracy"`.
    """

    metric: Literal["loss", "accuracy"] = "loss"

    def __post_init__(self) -> None:
        metric: object = self.metric
        if metric not in ("loss", "accuracy"):
            raise FusionError(f"metric={self.metric!r} is unknown: use 'loss' or 'accuracy'.")

    def to_dict(self) -> dict[str, Any]:
        """The arguments with the method's name, JSON-ready."""
        return {"method": "Greedy", **asdict(self)}
