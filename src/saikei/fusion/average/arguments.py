"""The arguments of `Average`: given weights, and which arguments go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saikei.errors import FusionError
from saikei.merging.checks import checked_weights

_LEVELS = ("one for each member", "a row for each class", "a table for each output")


def levels_of(weights: Any) -> int:
    """How deep weights are nested: 1 for shared ones, 2 for a table, 3 for one for each output."""
    depth = 0
    while isinstance(weights, (tuple, list)):
        depth, weights = depth + 1, weights[0] if weights else None
    return depth


def checked_given(weights: Sequence[Any]) -> tuple[Any, ...]:
    """Given weights as nested tuples of floats.

    Args:
        weights: One for each member; for one output a row of such for each class; or for several
            outputs a list of such tables.

    Raises:
        FusionError: When they are no numbers, negative, or do not sum to 1: it names the class
            and the sum.
    """
    if levels_of(weights) > len(_LEVELS):
        raise FusionError(f"weights={weights!r} are nested too deeply: give {_LEVELS[1]}.")
    return _checked(weights, levels_of(weights), "")


def _checked(weights: Any, levels: int, of: str) -> tuple[Any, ...]:
    if not isinstance(weights, (tuple, list)) or levels_of(weights) != levels:
        raise FusionError(f"weights={weights!r}{of} are not nested as the first of them are.")
    if levels == 1:
        return checked_weights(tuple(weights), of)
    each = "class" if levels == 2 else "output"
    rows = tuple(
        _checked(row, levels - 1, f" of {each} {number}{of}") for number, row in enumerate(weights)
    )
    if levels == 2 and len({len(row) for row in rows}) > 1:
        counts = [len(row) for row in rows]
        raise FusionError(f"The rows of weights{of} hold {counts} numbers: give one a member.")
    return rows


def for_outputs(
    weights: tuple[Any, ...], members: int, widths: Sequence[int | None]
) -> tuple[tuple[Any, ...], ...]:
    """Checked weights as one entry for each output: shared ones, or a table.

    Raises:
        FusionError: When there are not as many as members, classes or outputs.
    """
    levels = levels_of(weights)
    if levels == 1:
        _check_members(len(weights), members)
        return (weights,) * len(widths)
    tables: tuple[Any, ...] = (weights,) if levels == 2 else weights
    if len(tables) != len(widths):
        raise FusionError(
            f"{len(tables)} tables of weights are given for {len(widths)} outputs: give a list of "
            "one table for each."
        )
    for number, (table, width) in enumerate(zip(tables, widths, strict=True), start=1):
        if len(table) != width:
            raise FusionError(
                f"{len(table)} rows of weights are given for the {width} classes of output "
                f"{number}: give one for each class."
            )
        _check_members(len(table[0]), members)
    return tables


def _check_members(given: int, members: int) -> None:
    if given != members:
        raise FusionError(f"{given} weights are given for {members} members: give one for each.")


def check_axes(weights: Any, space: Any, how: Any, per_class: Any, calibrate: Any) -> None:
    """Check the arguments of `Average`, whose weights are checked already."""
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
