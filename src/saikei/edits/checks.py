"""What edits refuse: amounts out of range."""

from __future__ import annotations

from typing import Any

from saikei.budget import Budget
from saikei.errors import EditError


def check_amount(edit: str, argument: str, amount: Any, unit: str) -> None:
    """Refuse an amount that is no share, no whole number of at least 1 and no budget.

    Args:
        edit: The name of the edit, for the message.
        argument: The name of its argument.
        amount: The value: a share as a `float`, or a number as an `int`.
        unit: What a whole number counts, as "a number of channels".
    """
    given = f"{edit}({argument}={amount!r})"
    if isinstance(amount, float) and not 0 < amount <= 1:
        raise EditError(f"{given}: a share has to be above 0 and at most 1; an int is {unit}.")
    if isinstance(amount, int) and amount < 1:
        raise EditError(f"{given}: {unit} has to be at least 1.")


def check_share_or_budget(edit: str, keep: float | Budget, instead: str) -> None:
    """Refuse a `keep` that is no share and no budget.

    Args:
        edit: The name of the edit, for the message.
        keep: The value of the argument.
        instead: What to give in the place of a whole number, as a clause.
    """
    if isinstance(keep, int):
        raise EditError(f"{edit}(keep={keep!r}): give a share such as 0.5 or a Budget; {instead}.")
    if isinstance(keep, float) and not 0 < keep <= 1:
        raise EditError(f"{edit}(keep={keep!r}): a share has to be above 0 and at most 1.")
