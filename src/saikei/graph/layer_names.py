"""Names of layers that a user gives: are they in the model?"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

from saikei.errors import EditError, quoted
from saikei.graph.flat import Graph
from saikei.graph.per_step import wrapped_by


def check_layer_names(
    given: Iterable[str], graph: Graph, edit: str, known: Iterable[str] | None = None
) -> None:
    """Refuse layer names that the model does not have, and suggest the nearest.

    Args:
        given: The names to check.
        graph: The graph of the model.
        edit: The name of the edit, for the message.
        known: The names that are allowed; those of all operations when not given.
    """
    given = list(given)
    for name in given:
        if not isinstance(name, str):
            raise EditError(f"{edit}: {reprlib.repr(name)} is no name of a layer.")
    names = [name for name in known or graph.operations if not wrapped_by(graph, name)]
    for name in given:
        if name in names:
            continue
        inner = wrapped_by(graph, name)
        if inner:
            raise EditError(
                f"{edit} names layer '{name}', a TimeDistributed whose inner layers are edited "
                f"one by one: name {quoted(inner)}."
            )
        if name in graph.operations:
            raise EditError(
                f"{edit} names layer '{name}' ({graph.operations[name].kind}), which makes no "
                "channels of its own: name the layer that makes them."
            )
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        hint = f"did you mean '{near[0]}'?" if near else "the model has no such layers."
        raise EditError(f"{edit} names layer '{name}', which the model does not have: {hint}")
