"""What edits refuse: amounts out of range, and weights that are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np

from saikei.budget import Budget
from saikei.errors import EditError
from saikei.graph import Graph
from saikei.tensors import to_floats


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
    if isinstance(amount, bool) or not isinstance(amount, (float, int, Budget)):
        raise EditError(f"{given}: give a share, {unit} or a Budget.")
    if isinstance(amount, float) and not 0 < amount <= 1:
        raise EditError(f"{given}: a share has to be above 0 and at most 1; an int is {unit}.")
    if isinstance(amount, int) and amount < 1:
        raise EditError(f"{given}: {unit} has to be at least 1.")


def check_finite_weights(edit: str, graph: Graph) -> None:
    """Refuse a graph with NaN or infinite numbers among its weights.

    Raises:
        EditError: Naming the first such weight and its layer.
    """
    for name, operation in graph.operations.items():
        for key, weight in operation.weights.items():
            array = to_floats(weight.numpy())
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise EditError(
                    f"{edit}: '{key}' of layer '{name}' ({operation.kind}) holds NaN or infinite "
                    "numbers: use weights that were saved before training diverged."
                )
