"""What edits refuse: amounts out of range."""

from __future__ import annotations

from typing import Any

from saikei.errors import EditError


def check_amount(edit: str, argument: str, amount: Any, unit: str) -> None:
    """Refuse an amount that is no share, no whole number of at least 1 and no budget.

    Args:
        edit: The name of the edit, for the message.
        argument: The name of its argument.
        amount: The value: a share as a `float`, or a number as an `int`.
        unit: What a whole number counts, as "a number of channels".

    Raises:
        EditError: With what to give instead.
    """
    given = f"{edit}({argument}={amount!r})"
    if isinstance(amount, float) and not 0 < amount <= 1:
        raise EditError(f"{given}: a share has to be above 0 and at most 1; an int is {unit}.")
    if isinstance(amount, int) and amount < 1:
        raise EditError(f"{given}: {unit} has to be at least 1.")
