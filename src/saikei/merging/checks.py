"""Checks of arguments that several methods have."""

from __future__ import annotations

import math
from typing import Any

from saikei.errors import FusionError

_SUM_TOLERANCE = 1e-6


def check_share(name: str, value: object, zero: bool = True, one: bool = True) -> None:
    """Refuse a value that is no number from 0 to 1.

    Args:
        name: The name of the argument.
        value: The value of the argument.
        zero: Whether 0 itself is allowed.
        one: Whether 1 itself is allowed.
    """
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    if not fits or (value == 0 and not zero) or (value == 1 and not one):
        low, high = ("at least 0" if zero else "above 0"), ("at most 1" if one else "below 1")
        raise FusionError(f"{name}={value!r} must be {low} and {high}.")


def checked_weights(weights: tuple[Any, ...], of: str = "") -> tuple[float, ...]:
    """Weights as floats, once they are finite, at least 0, and sum to 1.

    Args:
        weights: One for each member.
        of: A supplement for messages, such as " of class 2".

    Raises:
        FusionError: Naming the sum, or what else is wrong.
    """
    try:
        numbers = tuple(float(weight) for weight in weights)
    except (TypeError, ValueError) as error:
        raise FusionError(
            f"weights={weights!r}{of} are no numbers: give one for each member."
        ) from error
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise FusionError(f"weights={numbers}{of} must be finite and at least 0.")
    total = sum(numbers)
    if abs(total - 1) > _SUM_TOLERANCE:
        fix = f": divide each of them by {total:g}" if 0 < total < math.inf else ""
        raise FusionError(f"The weights{of} sum to {total:g}, not to 1{fix}.")
    return numbers
