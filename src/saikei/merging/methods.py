"""The methods of merging, as frozen values: how the tensors of several members become one."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from saikei.errors import FusionError
from saikei.limits import check_seed, check_whole
from saikei.merging import kernels
from saikei.merging.checks import check_share, checked_weights
from saikei.merging.kernels import Consensus
from saikei.merging.kernels.blocks import Array


class Merge(ABC):
    """A way to make one tensor of those of several members. Subclasses are frozen dataclasses.

    Attributes:
        needs_base: whether it merges differences to a base that all members were tuned from.
    """

    needs_base: ClassVar[bool] = False

    @abstractmethod
    def tensor(
        self, name: str, arrays: Sequence[Array], base: Array | None, out: Array | None = None
    ) -> Array:
        """Merge one tensor.

        Args:
            name: of the tensor, the same in every member.
            arrays: one for each member, of one shape and floating type.
            base: of the base, for methods that need one.
            out: where to write.

        Raises:
            FusionError: when the arrays do not fit each other or the method, or hold NaN.
        """

    def check_count(self, members: int) -> None:  # noqa: B027 - most take any number
        """Refuse a number of members that the method cannot take.

        Raises:
            FusionError: with the number that it takes.
        """

    def to_dict(self) -> dict[str, Any]:
        """The arguments with the method's name, JSON-ready."""
        return {"method": type(self).__name__, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class Linear(Merge):
    """The weighted mean of the members, `Σ wᵢ xᵢ`.

    Args:
        weights: one for each member, at least 0, with sum 1; `None` for equal ones.

    Example:
        >>> import numpy as np
        >>> Linear((0.25, 0.75)).tensor("kernel", [np.zeros(2), np.ones(2)], None)
        array([0.75, 0.75])
    """

    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.weights is not None:
            object.__setattr__(self, "weights", checked_weights(tuple(self.weights)))

    def check_count(self, members: int) -> None:
        """There has to be one weight for each member."""
        if self.weights is not None and len(self.weights) != members:
            raise FusionError(
                f"{len(self.weights)} weights are given for {members} members: give one for each."
            )

    def tensor(
        self,
        name: str,  # noqa: ARG002 - as the base class has it
        arrays: Sequence[Array],
        base: Array | None,  # noqa: ARG002
        out: Array | None = None,
    ) -> Array:
        """The mean."""
        self.check_count(len(arrays))
        return kernels.linear(arrays, self.weights, out)


@dataclass(frozen=True)
class Ema(Merge):
    """The exponential moving average of checkpoints in the order of training.

    Args:
        decay: share of the average that each checkpoint leaves of those before it, 0 to 1.

    Example:
        >>> Ema(0.5).weights(3)
        (0.25, 0.25, 0.5)
    """

    decay: float = 0.9

    def __post_init__(self) -> None:
        check_share("decay", self.decay)

    def weights(self, members: int) -> tuple[float, ...]:
        """The weight of each checkpoint in the end, the first one first."""
        later = [(1 - self.decay) * self.decay ** (members - 1 - i) for i in range(1, members)]
        return (self.decay ** (members - 1), *later)

    def tensor(
        self,
        name: str,  # noqa: ARG002 - as the base class has it
        arrays: Sequence[Array],
        base: Array | None,  # noqa: ARG002
        out: Array | None = None,
    ) -> Array:
        """The average after the last checkpoint."""
        return kernels.linear(arrays, self.weights(len(arrays)), out)


@dataclass(frozen=True)
class Slerp(Merge):
    """Between two members on a sphere, tensor by tensor (Shoemake, 1985).

    Args:
        t: how far from the first to the second, 0 to 1.
    """

    t: float = 0.5

    def __post_init__(self) -> None:
        check_share("t", self.t)

    def check_count(self, members: int) -> None:
        """It is between two."""
        if members != 2:
            raise FusionError(
                f"Slerp is between two models, got {members}: give two, or use 'uniform'."
            )

    def tensor(
        self,
        name: str,  # noqa: ARG002 - as the base class has it
        arrays: Sequence[Array],
        base: Array | None,  # noqa: ARG002
        out: Array | None = None,
    ) -> Array:
        """The tensor between."""
        return kernels.slerp(arrays, self.t, out)


@dataclass(frozen=True)
class TaskArithmetic(Merge):
    """The base and the sum of what members learned beyond it (Ilharco et al., 2023).

    Args:
        scale: λ, by which the sum is multiplied.
    """

    scale: float = 0.4
    needs_base: ClassVar[bool] = True

    def tensor(
        self,
        name: str,  # noqa: ARG002 - as the base class has it
        arrays: Sequence[Array],
        base: Array | None,
        out: Array | None = None,
    ) -> Array:
        """`base + λ Σ (xᵢ − base)`."""
        return kernels.merge_deltas(arrays, _given(base), None, "sum", self.scale, out)


@dataclass(frozen=True)
class Ties(Merge):
    """Trim, elect sign, merge (Yadav et al., 2023).

    Of each member the largest differences to the base stay, tensor by tensor; for each number
    the sign of their sum is elected, and those that have it are averaged.

    Args:
        density: share of the differences that stay, above 0 and at most 1.
        scale: λ, by which the merged difference is multiplied.
    """

    density: float = 0.2
    scale: float = 1.0
    needs_base: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share("density", self.density, zero=False)

    def tensor(
        self,
        name: str,  # noqa: ARG002 - as the base class has it
        arrays: Sequence[Array],
        base: Array | None,
        out: Array | None = None,
    ) -> Array:
        """The base and what was agreed on."""
        return kernels.ties(arrays, _given(base), self.density, self.scale, out)


@dataclass(frozen=True)
class Dare(Merge):
    """Drop differences to the base at random, and rescale the others (Yu et al., 2023).

    Args:
        drop: probability, at least 0 and below 1.
        consensus: how those that are left become one: `"mean"`, `"sum"`, or `"sign"` as in TIES.
        scale: λ, by which the merged difference is multiplied.
        rescale: whether those that are left are divided by `1 − drop`.
        seed: of the dropping.
    """

    drop: float = 0.9
    consensus: Consensus = "mean"
    scale: float = 1.0
    rescale: bool = True
    seed: int = 0
    needs_base: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share("drop", self.drop, one=False)
        check_seed(self.seed)
        consensus: object = self.consensus
        if consensus not in ("mean", "sum", "sign"):
            raise FusionError(
                f"consensus={self.consensus!r} is unknown: use 'mean', 'sum' or 'sign'."
            )

    def tensor(
        self, name: str, arrays: Sequence[Array], base: Array | None, out: Array | None = None
    ) -> Array:
        """The base and what was agreed on."""
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        return kernels.dare(
            arrays,
            _given(base),
            self.drop,
            (self.seed, number),
            self.consensus,
            self.scale,
            self.rescale,
            out,
        )


@dataclass(frozen=True)
class ModelStock(Merge):
    """Between the base and the mean, as the angle between members says (Jang et al., 2024)."""

    needs_base: ClassVar[bool] = True

    def tensor(
        self,
        name: str,  # noqa: ARG002 - as the base class has it
        arrays: Sequence[Array],
        base: Array | None,
        out: Array | None = None,
    ) -> Array:
        """The tensor between."""
        return kernels.model_stock(arrays, _given(base), out)


def _given(base: Array | None) -> Array:
    if base is None:
        raise FusionError("The method needs the tensor of a base: give one.")
    return base


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
