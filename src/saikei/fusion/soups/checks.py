"""Checks of arguments that several methods have."""

from __future__ import annotations

from saikei.errors import FusionError


def check_share(name: str, value: object, zero: bool = True, one: bool = True) -> None:
    """Refuse what is no number from 0 to 1.

    Args:
        name: of the argument.
        value: of it.
        zero: whether 0 itself is allowed.
        one: whether 1 itself is.

    Raises:
        FusionError: with the bounds.
    """
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    if not fits or (value == 0 and not zero) or (value == 1 and not one):
        low, high = ("at least 0" if zero else "above 0"), ("at most 1" if one else "below 1")
        raise FusionError(f"{name}={value!r} must be {low} and {high}.")
