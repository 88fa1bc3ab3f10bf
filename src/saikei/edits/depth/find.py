"""All units of a graph, and those that an edit may leave out."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from saikei.edits.depth.plain import plain_units
from saikei.edits.depth.residual import block_units, projection_units, residual_units
from saikei.edits.depth.units import Unit, named_apart
from saikei.errors import EditError
from saikei.graph import Graph


def find_units(graph: Graph, kinds: Collection[str]) -> list[Unit]:
    """The units of these kinds, in the order of their calls.

    Plain layers within a larger unit that is found too are not units of their own.
    """
    residual = residual_units(graph)
    units = residual if "residual" in kinds else []
    if "projection" in kinds:
        units = units + projection_units(graph)
    if "block" in kinds:
        units = units + block_units(graph, named_apart(residual))
    if "plain" in kinds:
        units = units + [
            plain for plain in plain_units(graph) if not any(u.contains(plain) for u in units)
        ]
    return named_apart(units)


def choose_units(
    graph: Graph, units: Sequence[Unit], layers: Sequence[str], exclude: Sequence[str]
) -> list[Unit]:
    """The units that `layers` and `exclude` allow to go.

    Args:
        graph: The graph that the units are in.
        units: All that there are.
        layers: Names of units, or of layers: then the smallest units that these are in; all
            units when empty.
        exclude: Names of units or of layers in units that stay.

    Raises:
        EditError: When a name is in no unit.
    """
    inside = {unit.name: {unit.name, *unit.layers(graph)} for unit in units}
    for name in (*layers, *exclude):
        if not any(name in names for names in inside.values()):
            known = ", ".join(unit.name for unit in units) or "none"
            raise EditError(
                f"RemoveLayers names '{name}', which is in no part of model '{graph.name}' that "
                f"can be left out: these are {known}."
            )
    wanted = {unit.name for unit in units} if not layers else set()
    for name in layers:
        holding = [unit for unit in units if name in inside[unit.name]]
        named = [unit for unit in holding if unit.name == name]
        smallest = [u for u in holding if not any(u.contains(other) for other in holding)]
        wanted |= {unit.name for unit in named or smallest}
    kept = {unit.name for unit in units if inside[unit.name] & set(exclude)}
    return [unit for unit in units if unit.name in wanted - kept]
