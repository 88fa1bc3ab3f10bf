"""Deep cuts in two steps: a larger structure, which is trained, and then the rest of the cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from saikei.costs import Counts
from saikei.edits.base import Edit
from saikei.edits.drop_channels import DropChannels
from saikei.edits.options import Option
from saikei.edits.recipe import Recipe
from saikei.search.propose.exact import Counted
from saikei.search.propose.space import AXES, Levels

# Below this share of a cost a structure is reached in two steps.
DEEP = 0.3


def halfway(
    found: Counted,
    count: Callable[[tuple[Option, ...]], tuple[Recipe | None, Counts]],
    share: float,
    axis: str,
) -> tuple[tuple[Option, ...], Recipe | None, Counts, Recipe] | None:
    """The structure halfway to a deep one, and the edits that lead from it to the deep one.

    The first step removes blocks, replaces layers and cuts a part of the channels; where this is
    not enough, some layers also get their other form. The second step does the rest.

    Args:
        found: The deep structure.
        count: Gives recipe and costs of options.
        share: The share of the original's cost that the deep structure has.
        axis: The cost.

    Returns:
        Options, recipe and costs of the structure halfway, and the second step; `None` where there
        is none between the two.
    """
    space = found.solution.space
    column = AXES.index(axis)
    middle = np.sqrt(share) * space.costs(space.origin)[column]
    tried = [space.origin]
    for site, level in (*_shallow_first(found), *_other_forms(found)):
        tried.append(tried[-1].copy())
        tried[-1][site] = level
    # The last one is the deep structure itself.
    ratios = [np.log(space.costs(levels)[column] / middle) for levels in tried[:-1]]
    if not ratios:
        return None
    some = tried[int(np.argmin(np.abs(ratios)))]
    options = space.options(some)
    second = _second_step(found, some)
    if not options or second is None or options == found.options:
        return None
    recipe, costs = count(options)
    return options, recipe, costs, second


def _shallow_first(found: Counted) -> list[tuple[int, int]]:
    """Steps towards the levels of a structure, in each round one level of every channel site."""
    space, levels = found.solution.space, found.solution.levels
    steps: list[tuple[float, int, int]] = []
    for site, level in enumerate(levels):
        options = space.sites[site].options
        if level == 0 or not isinstance(options[level - 1].edit, DropChannels):
            continue
        target = _dropped(options[level - 1])
        smaller = [
            (len(_dropped(option)) / len(target), site, number)
            for number, option in enumerate(options, 1)
            if isinstance(option.edit, DropChannels) and _dropped(option) <= target
        ]
        steps += smaller
    return [(site, level) for _, site, level in sorted(steps)]


def _other_forms(found: Counted) -> list[tuple[int, int]]:
    """The levels of the sites that are no channels, those of the least loss first.

    They come in the order of recipes, which the second step continues: a layer that was split into
    its weights and an activation has another name afterwards.
    """
    space = found.solution.space
    steps: list[tuple[int, float, int, int]] = []
    for site, level in enumerate(found.solution.levels):
        edit = None if level == 0 else space.sites[site].options[level - 1].edit
        if edit is not None and not isinstance(edit, DropChannels):
            steps.append((edit.stage, float(space.sites[site].losses[level]), site, int(level)))
    return [(site, level) for *_, site, level in sorted(steps)]


def _dropped(option: Option) -> set[tuple[str, int]]:
    assert isinstance(option.edit, DropChannels)
    return {(layer, i) for layer, found in option.edit.channels.items() for i in found}


def _second_step(found: Counted, some: Levels) -> Recipe | None:
    """The edits from the structure halfway to the deep one, in the channels that it has left."""
    space, levels = found.solution.space, found.solution.levels
    gone = {name for option in space.first for name in option.layers}
    first, last = (
        [o for o in space.chosen(chosen) if isinstance(o.edit, DropChannels)]
        for chosen in (some, levels)
    )
    early = set[tuple[str, int]]().union(*map(_dropped, first))
    late = set[tuple[str, int]]().union(*map(_dropped, last)) - early
    channels: dict[str, list[int]] = {}
    for layer, index in sorted(late):
        if layer not in gone:
            shift = sum(1 for other, i in early if other == layer and i < index)
            channels.setdefault(layer, []).append(index - shift)
    edits: list[tuple[int, Edit]] = [
        (option.edit.stage, option.edit)
        for option in space.chosen(np.where(some == levels, 0, levels))
        if not isinstance(option.edit, DropChannels)
    ]
    if channels:
        cut = DropChannels({layer: tuple(indices) for layer, indices in channels.items()})
        edits.append((cut.stage, cut))
    if not edits:
        return None
    return Recipe([edit for _, edit in sorted(edits, key=lambda pair: pair[0])], refit="once")
