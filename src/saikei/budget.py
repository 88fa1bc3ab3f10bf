"""What the result may cost: limits on MACs, parameters, bytes, memory and latency."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, TypeGuard

from saikei.codec import Jsonable
from saikei.errors import BudgetError
from saikei.limits import BATCH, check_whole

LIMITS = ("macs", "params", "bytes", "memory", "latency")
BATCH_SIZE = 32


class Costs(Protocol):
    """The costs that a budget limits; `saikei.costs.Profile` has them."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates per sample; of a cascade those of all members."""

    @property
    def params(self) -> int:
        """Number of parameters."""

    @property
    def bytes(self) -> int:
        """Size of the weights in the saved file, in bytes."""

    @property
    def memory(self) -> int | None:
        """Peak of the bytes of live activations, per sample; `None` where it was not counted."""

    @property
    def latency(self) -> float | None:
        """Milliseconds per batch; `None` where it was not measured."""

    @property
    def batch_size(self) -> int:
        """Number of samples in the batch that the latency is measured on."""

    @property
    def mean_macs(self) -> float | None:
        """Mean MACs per sample of a cascade; `None` for other models and where it is unknown."""

    @property
    def mean_latency(self) -> float | None:
        """Mean milliseconds per batch of a cascade; `None` as for `mean_macs`."""


@dataclass(frozen=True)
class Budget(Jsonable):
    """Limits that a model has to keep, all of them.

    A `float` up to 1 is a share of the original; an `int` is absolute. A latency is a share up
    to 1 and milliseconds per batch above; with its unit, as in `"0.5 ms"`, it is always
    milliseconds.

    Args:
        macs: Multiply-accumulates per sample; `None` for no limit, as for the others.
        params: Number of parameters, trainable or not.
        bytes: Size of the weights in the saved file, which is smaller for quantised layers.
        memory: Peak of the bytes of live activations, per sample.
        latency: Milliseconds for one batch.
        batch_size: Number of samples in the batch that a limit on latency is for.
        count: Whether MACs and latency of a cascade are limited in the `"worst"` case, where all
            its members run, or in the `"mean"` of the samples. All other models cost every sample
            the same.

    Raises:
        BudgetError: When no limit is given, or one is not positive or a share above 1.

    Example:
        >>> print(Budget(macs=0.25, params=100_000, latency="0.5 ms", batch_size=1))
        macs ≤ 25 %, params ≤ 100,000, latency ≤ 0.5 ms per batch of 1
    """

    error_class: ClassVar[type[BudgetError]] = BudgetError
    json_omits_defaults: ClassVar[bool] = True
    macs: float | int | None = None
    params: float | int | None = None
    bytes: float | int | None = None
    memory: float | int | None = None
    latency: float | int | str | None = None
    batch_size: int = BATCH_SIZE
    count: Literal["worst", "mean"] = "worst"

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        given = self.given()
        if not given:
            raise BudgetError(
                f"The budget is empty: give at least one of {', '.join(LIMITS[:-1])} or "
                f"{LIMITS[-1]}, for example Budget(macs=0.25)."
            )
        if isinstance(self.latency, str):
            object.__setattr__(self, "latency", _with_unit(_milliseconds(self.latency)))
        for name, value in given.items():
            _check_limit(name, value)
        check_whole("Budget: batch_size", self.batch_size, 1, BATCH, BudgetError)
        if self.batch_size != BATCH_SIZE and self.latency is None:
            raise BudgetError(
                f"Budget batch_size={self.batch_size} is the batch of a limit on latency, and "
                "there is none: give latency too, or leave batch_size out."
            )
        if self.count not in ("worst", "mean"):
            raise BudgetError(f"Budget count={self.count!r} is unknown: give 'worst' or 'mean'.")

    def given(self) -> dict[str, float | int | str]:
        """The limits that are given, as they are given, by the name of the cost."""
        limits = {name: getattr(self, name) for name in LIMITS}
        return {name: value for name, value in limits.items() if value is not None}

    def counted(self) -> Budget | None:
        """The budget without the limit on latency; `None` if that is the only one."""
        if self.latency is None:
            return self
        if len(self.given()) == 1:
            return None
        return replace(self, latency=None, batch_size=BATCH_SIZE)

    def limits(self, original: Costs) -> dict[str, float]:
        """The limits as absolute numbers.

        Args:
            original: What shares are shares of.

        Raises:
            BudgetError: When a share of the latency is asked for and it was not measured.
        """
        # Rounded, since in floating point 0.29 of 100 is less than 29.
        return {
            name: round(value * self.cost(original, name), 6)
            if _is_share(value)
            else _absolute(value)
            for name, value in self.given().items()
        }

    def cost(self, costs: Costs, name: str) -> float:
        """The cost of a model that a limit is compared with.

        Args:
            costs: The costs of the model.
            name: The name of the limit, such as `"macs"`.

        Raises:
            BudgetError: When it was not measured, or with another batch size.
        """
        value = getattr(costs, name)
        if name in ("macs", "latency") and self.count == "mean":
            mean = getattr(costs, f"mean_{name}")
            value = value if mean is None else mean
        if value is None:
            raise BudgetError(
                "The budget limits the latency, but it was not measured: profile with latency=True."
                if name == "latency"
                else f"The budget limits the {name}, but it was not counted: use profile(model)."
            )
        if name == "latency" and costs.batch_size != self.batch_size:
            raise BudgetError(
                f"The budget limits the latency of a batch of {self.batch_size}, but that of a "
                f"batch of {costs.batch_size} was measured: profile with "
                f"batch_size={self.batch_size}."
            )
        return float(value)

    def fits(self, costs: Costs, original: Costs) -> bool:
        """Whether a model with these costs keeps every limit."""
        return all(self.cost(costs, name) <= limit for name, limit in self.limits(original).items())

    def excess(self, costs: Costs, original: Costs) -> str:
        """The limits that a model does not keep, with what it costs; empty if it keeps all.

        Args:
            costs: The costs of the model.
            original: What shares are shares of.
        """
        return "; ".join(
            f"{name} is {_lowest(name, cost)}, and {_number(name, limit)} are allowed"
            for name, limit in self.limits(original).items()
            if (cost := self.cost(costs, name)) > limit
        )

    def scaled(self, share: float, original: Costs) -> Budget:
        """A budget of a share of each limit, in absolute numbers.

        Args:
            share: What each limit is multiplied by.
            original: What shares in this budget are shares of.
        """
        limits: dict[str, Any] = {
            name: _with_unit(limit * share) if name == "latency" else max(1, int(limit * share))
            for name, limit in self.limits(original).items()
        }
        return replace(self, **limits)

    def unreachable(self, reached: Costs, original: Costs, by: str) -> BudgetError:
        """The error for a budget that cannot be kept.

        Args:
            reached: The lowest costs that were reached.
            original: What shares are shares of.
            by: How the costs were brought down, as "cutting channels".
        """
        parts = []
        for name, limit in self.limits(original).items():
            low = self.cost(reached, name)
            if low > limit:
                share = _rounded_up(100 * low / max(self.cost(original, name), 1e-12))
                parts.append(
                    f"{name} can be brought down to {_lowest(name, low)} ({share:g} %) by {by}, "
                    f"and the budget allows {_number(name, limit)}"
                )
        reasons = "; ".join(parts) or f"{by} cannot keep its limits together"
        return BudgetError(f"Budget '{self}' cannot be reached: {reasons}. Raise it.")

    def __str__(self) -> str:
        limits = ", ".join(
            f"{name} ≤ {_shown(name, value)}" for name, value in self.given().items()
        )
        batch = "" if self.batch_size == BATCH_SIZE else f" per batch of {self.batch_size}"
        return f"{limits}{batch}{' (mean of a cascade)' if self.count == 'mean' else ''}"


def _is_share(value: float | int | str) -> TypeGuard[float]:
    return isinstance(value, float) and value <= 1.0


def _absolute(value: float | int | str) -> float:
    return _milliseconds(value) if isinstance(value, str) else float(value)


def _milliseconds(text: str) -> float:
    """The number of a latency with its unit; NaN if it has none."""
    number, unit, rest = text.partition("ms")
    try:
        return math.nan if not unit or rest.strip() else float(number)
    except ValueError:
        return math.nan


def _with_unit(milliseconds: float) -> str:
    return f"{milliseconds!r} ms"


def _check_limit(name: str, value: float | int | str) -> None:
    number = _absolute(value)
    if isinstance(value, str) and math.isnan(number):
        raise BudgetError(
            f"Budget {name}={value!r} is no number of milliseconds: give it with its unit, such "
            'as "0.5 ms", or a share such as 0.5.'
        )
    if not number > 0:
        raise BudgetError(
            f"Budget {name}={value} is not positive: give a share such as 0.25, or a count."
        )
    if isinstance(value, float) and value > 1 and name != "latency":
        raise BudgetError(
            f"Budget {name}={value} is a share above 1: give a float up to 1, or an int for an "
            "absolute count."
        )


def _number(name: str, value: float) -> str:
    if name == "latency":
        return f"{value:,.4g} ms"
    return f"{int(value):,}{' bytes' if name == 'memory' else ''}"


def _lowest(name: str, value: float) -> str:
    return _number(name, _rounded_up(value) if name == "latency" else value)


def _rounded_up(value: float) -> float:
    """The value to three digits: as a limit it can be kept."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 2) if value > 0 else 1.0
    return float(f"{math.ceil(round(value / digit, 9)) * digit:.3g}")


def _shown(name: str, value: float | int | str) -> str:
    if _is_share(value):
        return f"{100 * value:g} %"
    return f"{_absolute(value):g} ms" if name == "latency" else f"{value:,}"
