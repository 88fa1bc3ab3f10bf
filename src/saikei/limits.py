"""Checks of arguments that are whole numbers, seeds or learning rates."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TypeGuard

from saikei.errors import FusionError, InputError

# What NumPy, scikit-learn and Keras take as a seed.
SEED = 2**32 - 1
ROUNDS = 10_000
BAGS = 1_000
FOLDS = 1_000
EPOCHS = 100_000
POINTS = 1_001
BATCH = 1_000_000


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def check_whole(
    name: str,
    value: object,
    least: int = 1,
    most: int | None = None,
    kind: type[InputError] = FusionError,
) -> None:
    """Refuse a value that is no whole number, or too small or too large.

    Args:
        name: Name of the argument, for messages.
        value: Value of the argument.
        least: Smallest value that is allowed.
        most: Largest value that is allowed; `None` for no bound.
        kind: Class of the error to raise.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        bounds = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
        raise kind(f"{name}={value!r}: give a whole number {bounds}.")


def check_seed(seed: object, kind: type[InputError] = FusionError, name: str = "seed") -> None:
    """Refuse a value that is no seed."""
    check_whole(name, seed, 0, SEED, kind)


def check_rate(name: str, value: object, kind: type[InputError] = FusionError) -> None:
    """Refuse a value that is no learning rate."""
    if not (is_number(value) and 0 < value <= 10):
        raise kind(f"{name}={value!r}: give a number above 0 and at most 10, 0.001 for one.")
