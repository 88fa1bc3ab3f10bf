"""A budget that cannot be reached is refused from the costs of options alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras

from saikei.budget import Budget
from saikei.channels import ChannelMap
from saikei.costs import count_costs
from saikei.edits import PruneChannels
from saikei.edits.base import Edit, edit_classes, read_with_sizes
from saikei.edits.options import Option, stitch
from saikei.errors import BudgetError, SaikeiError
from saikei.graph import Graph
from saikei.search.library import Library, Measured
from saikei.search.propose.proposer import Proposer


def check_reachable(
    model: keras.Model, budget: Budget, data: Any, methods: Sequence[type[Edit]] | None = None
) -> None:
    """Refuse a budget that no options of a model reach together; nothing is measured.

    Args:
        model: The original, a built model.
        budget: The limits; the one on latency is left out, since it has to be measured.
        data: What `keras.Model.fit` takes, for the sizes of inputs.
        methods: The edits whose options count; `None` for all that are imported.

    Raises:
        BudgetError: With the smallest value that can be reached.
    """
    counted = budget.counted()
    if counted is None:
        return
    graph = read_with_sizes(model, data)
    options = [
        option
        for kind in (edit_classes().values() if methods is None else methods)
        # Which channels go changes no costs, and ranking them by data takes time.
        for option in kind.options(graph, None if kind is PruneChannels else data)
    ]
    if not options:
        return
    # The last option of each place is mostly the smallest: where these are enough, that is known.
    last = {(option.site, option.method): option for option in options}
    try:
        _check(graph, last.values(), counted)
    except BudgetError:
        _check(graph, options, counted)


def _check(graph: Graph, options: Iterable[Option], budget: Budget) -> None:
    given = list(options)
    library = Library(
        entries=tuple(entry for option in given for entry in _counted(graph, (option,))),
        left_out=(),
        depth=tuple(_without_blocks(graph, given)),
        original=count_costs(ChannelMap.of_whole(graph)),
        rows=0,
        unit="nats",
        passes=0.0,
    )
    proposer = Proposer(graph, library)
    proposer.check_reachable(budget, proposer.original(budget))


def _without_blocks(graph: Graph, options: Iterable[Option]) -> Iterator[Measured]:
    """All blocks removed, one after the other."""
    gone: tuple[Option, ...] = ()
    layers = set[str]()
    for option in options:
        if not option.edit.one_by_one or layers >= set(option.layers):
            continue
        found = _counted(graph, (*gone, option))
        if found:
            gone = (*gone, option)
            layers |= set(option.layers)
            yield from found


def _counted(graph: Graph, options: Sequence[Option]) -> list[Measured]:
    """The last option with the costs of all together; empty where they cannot be applied."""
    try:
        _, edited = stitch(graph, options)
    except SaikeiError:
        return []
    return [Measured(options[-1], 0.0, 0.0, count_costs(ChannelMap.of_whole(edited)))]
