"""Which members can go: backward, one by one, as long as nothing is lost."""

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
    """How much more is lost without some members than with all, over the same rows.

    Args:
        members: who is left out, from 0, in the order in which they went.
        more: the difference of the mean losses; below 0 the others are better alone.
        error: its standard error.
    """

    members: tuple[int, ...]
    more: float
    error: float

    @property
    def is_none(self) -> bool:
        """Whether nothing is lost: the difference is 0, or less than its standard error."""
        return self.more <= _ROUNDING or self.more < self.error

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"members": list(self.members), "more": self.more, "error": self.error}


def losses_without(game: Game, each: Sequence[tuple[int, ...]]) -> list[Loss]:
    """What is lost without members, against all of them.

    Args:
        game: of the members.
        each: sets of members to leave out.
    """
    everybody, *without = _losses(game, [(), *each])
    return [_against(everybody, losses, who) for losses, who in zip(without, each, strict=True)]


def removable(game: Game) -> Loss:
    """Leave out, again and again, the member whose going costs least, while nothing is lost.

    Every step is measured against all members, so that small losses do not add up unseen, and
    against the best team on the way, so that what is gained without a bad member is not spent on
    letting good ones go. At least one member stays.

    Args:
        game: of the members.

    Returns:
        Who can go, and what is lost without them against all members.
    """
    (everybody,) = _losses(game, [()])
    best, gone = everybody, Loss((), 0.0, 0.0)
    while len(gone.members) < game.members - 1:
        left = [i for i in range(game.members) if i not in gone.members]
        each = [(*gone.members, i) for i in left]
        tried = list(zip(each, _losses(game, each), strict=True))
        who, least = min(tried, key=lambda pair: float(pair[1].mean()))
        lost = _against(everybody, least, who)
        if not (lost.is_none and _against(best, least, who).is_none):
            break
        gone = lost
        best = min(best, least, key=lambda losses: float(losses.mean()))
    return gone


def _losses(game: Game, each: Sequence[tuple[int, ...]]) -> Array:
    present = np.ones((len(each), game.members), dtype=np.bool_)
    for row, members in zip(present, each, strict=True):
        row[list(members)] = False
    return game.losses(present)


def _against(others: Array, losses: Array, who: tuple[int, ...]) -> Loss:
    difference = losses - others
    return Loss(who, float(difference.mean()), float(standard_error(difference)))
