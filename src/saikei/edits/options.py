"""Options of a model: single edits of single places, and several of them together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from saikei.calibration.refit import refit
from saikei.calibration.surviving_outputs import Kept, both_kept
from saikei.edits.base import PRECISION, Edit, Option
from saikei.edits.drop_channels import DropChannels
from saikei.edits.recipe import Recipe
from saikei.errors import EditError, SaikeiError, listed
from saikei.graph import Graph

__all__ = ["Option", "stitch"]


def stitch(graph: Graph, options: Sequence[Option], data: Any = None) -> tuple[Recipe, Graph]:
    """Apply options together, and refit once to what the original computed.

    They are applied in the order of their stages, those of one stage as they are given; all cuts
    of channels are one. Options of layers that others have removed or replaced are left out, and
    so are those that change nothing any more.

    Args:
        graph: The graph of the original; it is not changed.
        options: The options, at most one for each site.
        data: What `keras.Model.fit` takes, for the refit; without it nothing is refitted.

    Returns:
        The edits that were applied, as a recipe that gives the same again, and the graph.

    Raises:
        EditError: When no option can be applied, or two are of one site.
        DataError: When the data does not fit the model.
    """
    sites = [option.site for option in options]
    twice = next((site for site in sites if sites.count(site) > 1), None)
    if twice is not None:
        raise EditError(f"Two options change '{twice}': give one of them.")
    edited, applied, reasons = graph, list[Edit](), list[str]()
    kept: Kept = {}
    fitted = False
    for edit in _in_order(_of_old_layers(options)):
        last = edit.stage == PRECISION and bool(applied) and applied[-1].stage != PRECISION
        if last and data is not None and not fitted:
            # Layers in int8 cannot be refitted.
            edited, fitted = refit(graph, edited, data, kept=kept), True
        try:
            present = _of_present_layers(edit, edited)
            tried, own = present.unfitted(edited, data)
        except SaikeiError as error:
            reasons.append(str(error))
            continue
        edited, kept = tried, both_kept(kept, own)
        applied.append(present)
    if not applied:
        raise EditError(f"None of the {len(options)} options can be applied: {listed(reasons)}.")
    if data is not None and not fitted:
        edited = refit(graph, edited, data, kept=kept)
    return Recipe(applied, refit="once"), edited


def _of_old_layers(options: Sequence[Option]) -> list[Option]:
    """The options without those of layers that others replace by new ones."""
    new = {name for option in options if option.edit.replaces for name in option.layers}
    return [o for o in options if o.edit.replaces or not o.layers or not new.issuperset(o.layers)]


def _in_order(options: Sequence[Option]) -> list[Edit]:
    """The edits by stage, with all cuts of channels as one."""
    channels: dict[str, set[int]] = defaultdict(set)
    first: DropChannels | None = None
    edits: list[Edit] = []
    for option in sorted(options, key=lambda one: one.edit.stage):
        edit = option.edit
        if not isinstance(edit, DropChannels):
            edits.append(edit)
            continue
        if first is None:
            first = edit
            edits.append(edit)
        for layer, indices in edit.channels.items():
            channels[layer].update(indices)
    merged = DropChannels({layer: tuple(sorted(found)) for layer, found in channels.items()})
    return [merged if edit is first else edit for edit in edits]


def _of_present_layers(edit: Edit, graph: Graph) -> Edit:
    """A cut of channels without the layers that the graph no longer has."""
    if not isinstance(edit, DropChannels):
        return edit
    left = {
        name: found
        for name, found in edit.channels.items()
        # Heads, for example, are a part of a layer: "query/heads".
        if {name, name.rpartition("/")[0]} & graph.operations.keys()
    }
    return DropChannels(left, edit.compensate)
