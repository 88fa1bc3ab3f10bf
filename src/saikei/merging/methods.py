"""The methods of merging, as frozen values: how the tensors of several members become one."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from saikei.arguments import Checked
from saikei.errors import FusionError
from saikei.limits import check_seed, check_whole
from saikei.merging import kernels
from saikei.merging.checks import check_share, checked_weights
from saikei.merging.kernels import Consensus
from saikei.merging.kernels.blocks import Array


@dataclass(frozen=True, eq=False)
class MemberTensors:
    """One tensor of every member.

    Args:
        name: The name of the tensor, the same in every member.
        arrays: One array for each member, of one shape and floating type.
        given_base: The tensor of the base; `None` without a base.
        out: The array to write to; `None` for a new one.
    """

    name: str
    arrays: Sequence[Array]
    given_base: Array | None = None
    out: Array | None = None

    @property
    def base(self) -> Array:
        """The tensor of the base.

        Raises:
            FusionError: When there is none.
        """
        if self.given_base is None:
            raise FusionError("The method needs the tensor of a base: give one.")
        return self.given_base


class Merge(Checked, ABC):
    """A way to merge the tensors of several members into one. Subclasses are frozen dataclasses.

    Attributes:
        needs_base: Whether it merges differences to a base that all members were fine-tuned from.
        elementwise: Whether each number of the result depends on the members' numbers at its index
            alone, so that a tensor may be merged in parts.
    """

    error_class: ClassVar[type[FusionError]] = FusionError
    needs_base: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False

    def tensor(
        self,
        name: str,
        arrays: Sequence[Array],
        base: Array | None = None,
        out: Array | None = None,
    ) -> Array:
        """Merge one tensor.

        Args:
            name: The name of the tensor, the same in every member.
            arrays: One array for each member, of one shape and floating type.
            base: The tensor of the base, for methods that need one; else `None`.
            out: The array to write to; `None` for a new one.

        Raises:
            FusionError: When the arrays do not fit each other or the method, or hold NaN.
        """
        self.check_count(len(arrays))
        return self._merged(MemberTensors(name, arrays, base, out))

    @abstractmethod
    def _merged(self, of: MemberTensors) -> Array:
        """The merged tensor."""

    def check_count(self, members: int) -> None:
        """Refuse a number of members that the method cannot take."""

    def to_dict(self) -> dict[str, Any]:
        """The arguments with the method's name, JSON-ready."""
        return {"method": type(self).__name__, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class Linear(Merge):
    """The weighted mean of the members, `Σ wᵢ xᵢ`.

    Args:
        weights: One for each member, at least 0, with sum 1; `None` for equal ones.

    Example:
        >>> import numpy as np
        >>> Linear((0.25, 0.75)).tensor("kernel", [np.zeros(2), np.ones(2)])
        array([0.75, 0.75])
    """

    weights: tuple[float, ...] | None = None
    elementwise: ClassVar[bool] = True

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        if self.weights is not None:
            object.__setattr__(self, "weights", checked_weights(tuple(self.weights)))

    def check_count(self, members: int) -> None:
        """Refuse a number of members that is not the number of weights."""
        if self.weights is not None and len(self.weights) != members:
            raise FusionError(
                f"{len(self.weights)} weights are given for {members} members: give one for each."
            )

    def _merged(self, of: MemberTensors) -> Array:
        return kernels.linear(of.arrays, self.weights, of.out)


@dataclass(frozen=True)
class Ema(Merge):
    """The exponential moving average of checkpoints in the order of training.

    Args:
        decay: The weight of the average so far when a checkpoint is added, 0 to 1.

    Example:
        >>> Ema(0.5).weights(3)
        (0.25, 0.25, 0.5)
    """

    decay: float = 0.9
    elementwise: ClassVar[bool] = True

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        check_share("decay", self.decay)

    def weights(self, members: int) -> tuple[float, ...]:
        """The final weight of each checkpoint, the earliest first."""
        later = [(1 - self.decay) * self.decay ** (members - 1 - i) for i in range(1, members)]
        return (self.decay ** (members - 1), *later)

    def _merged(self, of: MemberTensors) -> Array:
        return kernels.linear(of.arrays, self.weights(len(of.arrays)), of.out)


@dataclass(frozen=True)
class Slerp(Merge):
    """Between two members on a sphere, tensor by tensor (Shoemake, 1985).

    Args:
        t: Position between the first and the second, 0 to 1.
    """

    t: float = 0.5

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        check_share("t", self.t)

    def check_count(self, members: int) -> None:
        """Refuse any number of members but two."""
        if members != 2:
            raise FusionError(
                f"Slerp is between two models, got {members}: give two, or use 'uniform'."
            )

    def _merged(self, of: MemberTensors) -> Array:
        return kernels.slerp(of.arrays, self.t, of.out)


@dataclass(frozen=True)
class TaskArithmetic(Merge):
    """The base plus the sum of the members' differences to it (Ilharco et al., 2023).

    Args:
        scale: λ, factor of the sum.
    """

    scale: float = 0.4
    needs_base: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True

    def _merged(self, of: MemberTensors) -> Array:
        return kernels.merge_deltas(of.arrays, of.base, None, "sum", self.scale, of.out)


@dataclass(frozen=True)
class Ties(Merge):
    """Trim, elect sign, merge (Yadav et al., 2023).

    Of each member the largest differences to the base stay, tensor by tensor; for each number
    the sign of their sum is elected, and those that have it are averaged.

    Args:
        density: The share of the differences that stay, above 0 and at most 1.
        scale: λ, factor of the merged difference.
    """

    density: float = 0.2
    scale: float = 1.0
    needs_base: ClassVar[bool] = True

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        check_share("density", self.density, zero=False)

    def _merged(self, of: MemberTensors) -> Array:
        return kernels.ties(of.arrays, of.base, self.density, self.scale, of.out)


@dataclass(frozen=True)
class Dare(Merge):
    """Drop differences to the base at random, and rescale the others (Yu et al., 2023).

    Args:
        drop: The probability that a difference is dropped, at least 0 and below 1.
        consensus: How the remaining differences are merged: `"mean"`, `"sum"`, or `"sign"` as in
            TIES.
        scale: λ, factor of the merged difference.
        rescale: Whether the remaining differences are divided by `1 − drop`.
        seed: Seed of the dropping.
    """

    drop: float = 0.9
    consensus: Consensus = "mean"
    scale: float = 1.0
    rescale: bool = True
    seed: int = 0
    needs_base: ClassVar[bool] = True

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        check_share("drop", self.drop, one=False)
        check_seed(self.seed)
        consensus: object = self.consensus
        if consensus not in ("mean", "sum", "sign"):
            raise FusionError(
                f"consensus={self.consensus!r} is unknown: use 'mean', 'sum' or 'sign'."
            )

    def _merged(self, of: MemberTensors) -> Array:
        number = int.from_bytes(hashlib.sha256(of.name.encode()).digest()[:8], "little")
        key = (self.seed, number)
        return kernels.dare(
            of.arrays, of.base, self.drop, key, self.consensus, self.scale, self.rescale, of.out
        )


@dataclass(frozen=True)
class ModelStock(Merge):
    """Between the base and the mean, by the angle between the members (Jang et al., 2024)."""

    needs_base: ClassVar[bool] = True

    def _merged(self, of: MemberTensors) -> Array:
        return kernels.model_stock(of.arrays, of.base, of.out)


@dataclass(frozen=True)
class Fisher(Checked):
    """The mean, weighted number by number by the members' Fisher information.

    Matena and Raffel, 2022. The information is the empirical one, of the labels of held-out data.

    Args:
        samples: The number of rows that it is measured on; all where there are fewer.
    """

    error_class: ClassVar[type[FusionError]] = FusionError
    samples: int = 512

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        check_whole("samples", self.samples, 1, 10_000_000)

    def to_dict(self) -> dict[str, Any]:
        """The arguments with the method's name, JSON-ready."""
        return {"method": "Fisher", **asdict(self)}


@dataclass(frozen=True)
class Greedy(Checked):
    """The greedy soup: members are added, the best first, unless the mean gets worse.

    Wortsman et al., "Model soups", 2022. Measured on held-out data.

    Args:
        metric: How the mean is scored, `"loss"` or `"accuracy"`.
    """

    error_class: ClassVar[type[FusionError]] = FusionError
    metric: Literal["loss", "accuracy"] = "loss"

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        metric: object = self.metric
        if metric not in ("loss", "accuracy"):
            raise FusionError(f"metric={self.metric!r} is unknown: use 'loss' or 'accuracy'.")

    def to_dict(self) -> dict[str, Any]:
        """The arguments with the method's name, JSON-ready."""
        return {"method": "Greedy", **asdict(self)}
