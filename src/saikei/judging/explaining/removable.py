"""Which members can be removed: backward elimination, as long as the loss does not grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saikei.batches import Array
from saikei.judging.explaining.games import Game
from saikei.scoring.score import standard_error

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Loss:
    """The loss without some members against the loss with all, over the same rows.

    Args:
        members: Indices of the members that are left out, in the order of their removal.
        more: The difference of the mean losses; below 0 the other members are better alone.
        error: The standard error of the difference.
    """

    members: tuple[int, ...]
    more: float
    error: float

    @property
    def is_none(self) -> bool:
        """Whether the loss does not grow: the difference is 0, or below its standard error."""
        return self.more <= _ROUNDING or self.more < self.error

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"members": list(self.members), "more": self.more, "error": self.error}


def losses_without(game: Game, each: Sequence[tuple[int, ...]]) -> list[Loss]:
    """The losses without some members, against the loss with all of them."""
    with_all, *without = _losses(game, [(), *each])
    return [
        _against(with_all, losses, members) for losses, members in zip(without, each, strict=True)
    ]


def removable(game: Game) -> Loss:
    """Leave out the member whose removal costs least, repeatedly, while the loss does not grow.

    Every step is compared with all members, so that small losses do not add up unseen, and with
    the best subset on the way, so that the gain from removing a bad member is not spent on
    removing good ones. At least one member stays.

    Returns:
        The members that can be removed, and the loss without them against that with all.
    """
    (with_all,) = _losses(game, [()])
    best, removed = with_all, Loss((), 0.0, 0.0)
    while len(removed.members) < game.members - 1:
        left = [i for i in range(game.members) if i not in removed.members]
        each = [(*removed.members, i) for i in left]
        tried = list(zip(each, _losses(game, each), strict=True))
        members, least = min(tried, key=lambda pair: float(pair[1].mean()))
        lost = _against(with_all, least, members)
        if not (lost.is_none and _against(best, least, members).is_none):
            break
        removed = lost
        best = min(best, least, key=lambda losses: float(losses.mean()))
    return removed


def _losses(game: Game, each: Sequence[tuple[int, ...]]) -> Array:
    present = np.ones((len(each), game.members), dtype=np.bool_)
    for row, members in zip(present, each, strict=True):
        row[list(members)] = False
    return game.losses(present)


def _against(others: Array, losses: Array, members: tuple[int, ...]) -> Loss:
    difference = losses - others
    return Loss(members, float(difference.mean()), float(standard_error(difference)))
