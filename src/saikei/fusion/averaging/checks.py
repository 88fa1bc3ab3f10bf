"""Which arguments of `Average` go together."""

from __future__ import annotations

from typing import Any

from saikei.errors import FusionError
from saikei.fusion.averaging.given_weights import levels_of


def check_axes(weights: Any, space: Any, how: Any, per_class: Any, calibrate: Any) -> None:
    """Check the arguments of `Average`, whose weights are checked already.

    Raises:
        FusionError: naming what is unknown or does not fit, and the mend.
    """
    if how == "geometric":
        raise FusionError(
            "how='geometric' is the mean of logits, brought back to sum 1: use space='logit'."
        )
    known: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "space": (space, (None, "probability", "logit")),
        "how": (how, ("mean", "median")),
        "per_class": (per_class, (True, False)),
        "calibrate": (calibrate, (True, False)),
    }
    for name, (value, values) in known.items():
        if not any(value is one or (value == one and type(value) is type(one)) for one in values):
            shown = ", ".join(repr(one) for one in values)
            raise FusionError(f"{name}={value!r} is unknown: use one of {shown}.")
    if how == "median" and (weights is not None or per_class):
        raise FusionError(
            "A median takes no weights: leave weights and per_class out, or use how='mean'."
        )
    if per_class:
        _check_per_class(weights)


def _check_per_class(weights: Any) -> None:
    if weights == "greedy":
        raise FusionError(
            "Greedy selection counts whole members, not classes: use weights='learn' with "
            "per_class=True, or leave per_class out."
        )
    if weights is None or (isinstance(weights, tuple) and levels_of(weights) == 1):
        raise FusionError(
            "per_class=True needs weights='learn', or a table: a row for each class with one "
            "weight for each member."
        )
