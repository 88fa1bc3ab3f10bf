"""What the result may cost: a limit on MACs, parameters or latency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from saikei.codec import Jsonable
from saikei.errors import BudgetError


class Costs(Protocol):
    """What a budget looks at; `saikei.costs.Profile` is one."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates per sample."""

    @property
    def params(self) -> int:
        """Number of parameters."""

    @property
    def latency(self) -> float | None:
        """Milliseconds per batch; `None` where it was not measured."""


@dataclass(frozen=True)
class Budget(Jsonable):
    """Limits that a model has to keep, all of them.

    A `float` up to 1 is a share of the original; an `int` is absolute. Latency is a share up
    to 1, and milliseconds per batch above.

    Args:
        macs: Multiply-accumulates per sample; `None` for no limit, as for the others.
        params: Number of parameters, trainable or not.
        latency: Milliseconds for one batch.

    Raises:
        BudgetError: When no limit is given, or one is not positive or a share above 1.

    Example:
        >>> print(Budget(macs=0.25, params=100_000))
        macs ≤ 25 %, params ≤ 100,000
    """

    json_error: ClassVar[type[BudgetError]] = BudgetError
    json_omits_defaults: ClassVar[bool] = True
    macs: float | int | None = None
    params: float | int | None = None
    latency: float | int | None = None

    def __post_init__(self) -> None:
        given = self._given()
        if not given:
            raise BudgetError(
                "The budget is empty: give at least one of macs, params or latency, "
                "for example Budget(macs=0.25)."
            )
        for name, value in given.items():
            _check_limit(name, value)

    def limits(self, original: Costs) -> dict[str, float]:
        """The limits as absolute numbers.

        Args:
            original: What shares are shares of.

        Raises:
            BudgetError: When a share of the latency is asked for and it was not measured.
        """
        return {
            name: value * _cost(original, name) if _is_share(value) else float(value)
            for name, value in self._given().items()
        }

    def fits(self, costs: Costs, original: Costs) -> bool:
        """Whether a model with these costs keeps every limit."""
        return all(_cost(costs, name) <= limit for name, limit in self.limits(original).items())

    def scaled(self, share: float, original: Costs) -> Budget:
        """A budget of a share of each limit, for use with the same original.

        The limits are absolute, but for a latency of at most 1 ms: as a float it would be read
        as a share, so it is given as one.
        """
        limits = {name: limit * share for name, limit in self.limits(original).items()}
        return Budget(
            macs=max(1, int(limits["macs"])) if "macs" in limits else None,
            params=max(1, int(limits["params"])) if "params" in limits else None,
            latency=_scaled_latency(limits["latency"], original) if "latency" in limits else None,
        )

    def unreachable(self, reached: Costs, original: Costs, by: str) -> BudgetError:
        """The error for a budget that cannot be kept.

        Args:
            reached: The lowest costs that were reached.
            original: What shares are shares of.
            by: How the costs were brought down, as "cutting channels".
        """
        parts = [
            f"{name} can be brought down to {_number(name, _cost(reached, name))} "
            f"({100 * _cost(reached, name) / _cost(original, name):.2g} %) by {by}, and the budget "
            f"allows {_number(name, limit)}"
            for name, limit in self.limits(original).items()
            if _cost(reached, name) > limit
        ]
        reasons = "; ".join(parts) or f"{by} cannot keep its limits together"
        return BudgetError(f"Budget '{self}' cannot be reached: {reasons}. Raise it.")

    def _given(self) -> dict[str, float | int]:
        limits = {"macs": self.macs, "params": self.params, "latency": self.latency}
        return {name: value for name, value in limits.items() if value is not None}

    def __str__(self) -> str:
        return ", ".join(f"{name} ≤ {_shown(name, value)}" for name, value in self._given().items())


def _is_share(value: float | int) -> bool:
    return isinstance(value, float) and value <= 1.0


def _check_limit(name: str, value: float | int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BudgetError(f"Budget {name}={value!r} is no number: give a share or a count.")
    if not value > 0:
        raise BudgetError(
            f"Budget {name}={value} is not positive: give a share such as 0.25, or a count."
        )
    if isinstance(value, float) and value > 1 and name != "latency":
        raise BudgetError(
            f"Budget {name}={value} is a share above 1: give a float up to 1, or an int for an "
            "absolute count."
        )


def _cost(costs: Costs, name: str) -> float:
    value = getattr(costs, name)
    if value is None:
        raise BudgetError(
            "The budget limits the latency, but it was not measured: profile with latency=True."
        )
    return float(value)


def _scaled_latency(milliseconds: float, original: Costs) -> float:
    if milliseconds > 1:
        return milliseconds
    return min(1.0, milliseconds / _cost(original, "latency"))


def _number(name: str, value: float) -> str:
    return f"{value:,.4g} ms" if name == "latency" else f"{int(value):,}"


def _shown(name: str, value: float | int) -> str:
    if _is_share(value):
        return f"{100 * value:g} %"
    return f"{value:g} ms" if name == "latency" else f"{value:,}"
