"""Soups: members of one structure merged into one network, which is run to be scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from saikei.calibration.samples import calibration_inputs
from saikei.errors import FusionError, SaikeiError
from saikei.fusion.soup import Soup
from saikei.fusion.soup.scorer import has_statistics, recalibrate
from saikei.graph import build, read
from saikei.search.compose.ensemble import Ensemble, Member
from saikei.search.compose.sets import Pool

# Structures of which soups are made, those of the best members first, and members of a soup.
STRUCTURES = 2
MOST_MEMBERS = 4
# Nothing is fitted but the statistics of BatchNormalization, which need no labels.
PLAIN = Soup(check=False, recalibrate=False)


def soups(pool: Pool) -> tuple[tuple[Ensemble, ...], int]:
    """Uniform soups of the best members of a structure: a soup costs what one member does.

    Weights are merged, so that a soup's predictions do not follow from those of its members: the
    members are loaded, and every soup predicts validation once.

    Args:
        pool: Members and limits; the judge needs the inputs of its rows.

    Returns:
        The soups, and how many were considered.

    Raises:
        FusionError: When members read different inputs, or the judge has no inputs to run them on.
    """
    made, considered = [], 0
    if pool.judge.x is None or len({one.inputs for one in pool.members}) > 1:
        raise FusionError("Soups are run on validation, with inputs that all members share.")
    for group in _groups(pool):
        loaded = [one.model() for one in group]
        for count in range(2, len(group) + 1):
            considered += 1
            try:
                model = merged(loaded[:count], pool.judge.x)
            except SaikeiError:
                # Their weights do not fit each other after all, or are not finite.
                continue
            made.append(_ensemble(group[:count], model, pool))
    return tuple(made), considered


def merged(models: Sequence[keras.Model], x: Any) -> keras.Model:
    """The mean of the weights of models of one structure.

    Args:
        models: Two or more.
        x: Inputs on which the statistics of BatchNormalization are measured anew.

    Raises:
        FusionError: When the models differ in more than their weights.
    """
    model = PLAIN(models)
    graph = read(model)
    if has_statistics(graph):
        model = build(recalibrate(graph, calibration_inputs(graph, (x,))), "soup")
    return model


def _groups(pool: Pool) -> Iterator[tuple[Member, ...]]:
    """Members that share a structure, the best of them first."""
    seen: list[str] = []
    for best in pool.ranked:
        key = best.structure
        group = [one for one in pool.ranked if one.structure == key][:MOST_MEMBERS]
        if key and key not in seen and len(group) > 1 and len(seen) < STRUCTURES:
            seen.append(key)
            yield tuple(group)


def _ensemble(members: Sequence[Member], model: keras.Model, pool: Pool) -> Ensemble:
    outputs = pool.judge.predict(model)
    count = len(members)
    return Ensemble(
        method="soup",
        members=tuple(one.name for one in members),
        weights=(1 / count,) * count,
        fusion=PLAIN,
        head=None,
        score=pool.judge.score(outputs),
        outputs=outputs,
        cost=members[0].cost,
        complexity=PLAIN.complexity,
    )
