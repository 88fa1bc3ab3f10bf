"""Members whose channels stand in one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saikei.channels import map_channels
from saikei.errors import WorkError
from saikei.fusion.soups.architecture import Tensors
from saikei.fusion.soups.matching import align
from saikei.fusion.soups.permutation import Symmetries
from saikei.fusion.soups.trial import Trial
from saikei.graph import Graph


@dataclass(frozen=True, eq=False)
class Aligned:
    """Members after alignment.

    Args:
        members: the weights of each.
        moved: for each how many of its channels have another place.
    """

    members: tuple[Tensors, ...]
    moved: tuple[int, ...]


def align_members(
    graph: Graph, members: Sequence[Tensors], base: Tensors | None, trial: Trial | None
) -> Aligned:
    """Put the channels of members in the order of the base, or else of the first member.

    Args:
        graph: of the first member.
        members: the weights of each.
        base: those of the base.
        trial: to check on data that no function changed; `None` without data.

    Raises:
        WorkError: when one did, which a wrong rule of a layer would bring about.
    """
    symmetries = Symmetries.of(map_channels(graph))
    target = members[0] if base is None else base
    found = []
    for numbers in members:
        one = None if numbers is target else align(symmetries, target, numbers)
        if one is not None and one.moved and trial is not None:
            _check(trial, numbers, one.numbers, max(1e-2, 8 * graph.rounding()))
        found.append(one)
    return Aligned(
        tuple(n if one is None else one.numbers for n, one in zip(members, found, strict=True)),
        tuple(0 if one is None else one.moved for one in found),
    )


def _check(trial: Trial, before: Tensors, after: Tensors, slack: float) -> None:
    if not np.allclose(trial.losses(before), trial.losses(after), rtol=slack, atol=slack):
        raise WorkError(
            "A network whose channels changed places computes something else, so a layer's rule "
            "is wrong: use align=False, and report the model."
        )
