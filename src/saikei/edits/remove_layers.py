"""`RemoveLayers`: leave out the blocks and layers that matter least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import tree

from saikei.budget import Budget
from saikei.calibration import calibration_inputs, refit
from saikei.channels import map_channels
from saikei.costs import Counts, count_costs, measure_latency
from saikei.edits.base import Edit
from saikei.edits.drop_channels import check_layer_names
from saikei.edits.removing.units import Unit, find_units
from saikei.errors import BudgetError, EditError
from saikei.graph import Graph, build, read, redirect

_BATCH = 64


@dataclass(frozen=True)
class RemovableUnit:
    """One part that can be left out, as `RemoveLayers.plan` lists it.

    Args:
        name: of the layer at its end.
        kind: `"residual"`, a branch that is added to where it starts, or `"plain"`, a layer
            that keeps the shape.
        layers: its layers with weights.
        change: mean squared change of the outputs when it alone is left out, relative to their
            variance over the samples.
        params: its parameters.
    """

    name: str
    kind: str
    layers: tuple[str, ...]
    change: float
    params: int


class RemovalPlan(tuple[RemovableUnit, ...]):
    """The removable parts, those that matter least first; printed, they are a table."""

    __slots__ = ()

    def __str__(self) -> str:
        rows = [("unit", "kind", "change of output", "params", "layers")]
        for unit in self:
            layers = ", ".join(unit.layers)
            rows.append((unit.name, unit.kind, f"{unit.change:.3g}", f"{unit.params:,}", layers))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join(
            "  ".join([*(cell.ljust(w) for cell, w in zip(row[:4], widths, strict=True)), row[4]])
            for row in rows
        )


@dataclass(frozen=True)
class RemoveLayers(Edit):
    """Leave out residual branches and layers that keep the shape, the least important first.

    What can go is found from the graph, not from names. Each part is ranked by how much the
    outputs change on calibration data when it alone is left out; the least go together. Needs
    data: which blocks matter cannot be seen from their weights.

    Args:
        remove: a share of the removable parts (`float` below 1), a number of them (`int`), or a
            `Budget`: as many as it takes.
        layers: only parts that hold one of these layers.
        exclude: no part that holds one of these layers.
        compensate: whether the layers that stay are then refitted, by least squares, to what
            they gave before.

    Raises:
        EditError: when an argument is out of range.

    Example:
        >>> edit = RemoveLayers(0.25)
        >>> RemoveLayers.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    remove: float | int | Budget
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    compensate: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "exclude", tuple(self.exclude))
        _check_remove(self.remove)

    def plan(self, model: keras.Model, data: Any) -> RemovalPlan:
        """What could go, with what it would change and save; the least important first.

        Args:
            model: a built model.
            data: what `keras.Model.fit` takes.
        """
        graph = read(model)
        ranked = self._ranked(graph, data)
        return RemovalPlan(
            RemovableUnit(unit.name, unit.kind, unit.layers, change, _params(graph, unit))
            for change, unit in ranked
        )

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph without the parts that matter least."""
        units = [unit for _, unit in self._ranked(graph, data)]
        if isinstance(self.remove, Budget):
            smaller = self._within(graph, units, self.remove)
        else:
            count = self.remove
            if isinstance(count, float):
                count = max(1, round(count * len(units)))
            smaller = _without(graph, units[:count])
        return refit(graph, smaller, data) if self.compensate else smaller

    def _ranked(self, graph: Graph, data: Any) -> list[tuple[float, Unit]]:
        operations = graph.operations
        check_layer_names(self.layers, operations, "RemoveLayers(layers=…)")
        check_layer_names(self.exclude, operations, "RemoveLayers(exclude=…)")
        units = [unit for unit in find_units(graph) if self._allowed(graph, unit)]
        if not units:
            raise EditError(
                "RemoveLayers would change nothing: no allowed residual branch or layer gives the "
                "shape that it reads, unshared and without readers inside; prune channels instead."
            )
        if data is None:
            raise EditError(
                "RemoveLayers needs data to see what matters: call it as edit(model, data)."
            )
        inputs = calibration_inputs(graph, data)
        wanted = _outputs(graph, inputs)
        changes = [_change(wanted, _outputs(_without(graph, [unit]), inputs)) for unit in units]
        return sorted(
            zip(changes, units, strict=True), key=lambda pair: (pair[0], pair[1].end.call)
        )

    def _allowed(self, graph: Graph, unit: Unit) -> bool:
        names = {graph.calls[index].operation for index in unit.calls}
        return not names & set(self.exclude) and (not self.layers or bool(names & set(self.layers)))

    def _within(self, graph: Graph, units: list[Unit], budget: Budget) -> Graph:
        original = _costs(graph, budget)
        if budget.fits(original, original):
            raise EditError(f"RemoveLayers would change nothing: the model fits '{budget}'.")
        for count in range(1, len(units) + 1):
            smaller = _without(graph, units[:count])
            costs = _costs(smaller, budget)
            if budget.fits(costs, original):
                return smaller
        raise BudgetError(
            f"Budget '{budget}' cannot be reached by leaving out all {len(units)} removable "
            f"parts: {costs.params:,} parameters and {costs.macs:,} MACs stay. Raise it, or prune "
            "channels too."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready arguments."""
        budget = isinstance(self.remove, Budget)
        return {
            "remove": {"budget": self.remove.to_dict()} if budget else self.remove,  # type: ignore[union-attr]
            "layers": list(self.layers),
            "exclude": list(self.exclude),
            "compensate": self.compensate,
        }

    @classmethod
    def from_dict(cls, arguments: Mapping[str, Any]) -> RemoveLayers:
        """The inverse of `to_dict`."""
        values = dict(arguments)
        if isinstance(values["remove"], Mapping):
            values["remove"] = Budget.from_dict(values["remove"]["budget"])
        return cls(**values)


def _check_remove(remove: Any) -> None:
    if isinstance(remove, bool) or not isinstance(remove, (float, int, Budget)):
        raise EditError(f"RemoveLayers(remove={remove!r}): give a share, a count or a Budget.")
    if isinstance(remove, float) and not 0 < remove <= 1:
        raise EditError(f"RemoveLayers(remove={remove}): a share is above 0 and at most 1.")
    if isinstance(remove, int) and remove < 1:
        raise EditError(f"RemoveLayers(remove={remove}): remove at least one part.")


def _without(graph: Graph, units: list[Unit]) -> Graph:
    return redirect(graph, {unit.end: unit.start for unit in units})


def _params(graph: Graph, unit: Unit) -> int:
    weights = [w for name in unit.layers for w in graph.operations[name].weights.values()]
    return sum(int(np.prod(weight.shape, dtype=np.int64)) for weight in weights)


def _costs(graph: Graph, budget: Budget) -> Counts:
    counts = count_costs(map_channels(graph))
    if budget.latency is None:
        return counts
    return Counts(counts.params, counts.macs, measure_latency(build(graph)))


def _outputs(graph: Graph, inputs: Any) -> list[np.ndarray]:
    model = build(graph)
    count = len(tree.flatten(inputs)[0])
    parts = []
    for start in range(0, count, _BATCH):
        batch = tree.map_structure(lambda leaf, s=start: leaf[s : s + _BATCH], inputs)
        outputs = tree.flatten(model(batch, training=False))
        parts.append([keras.ops.convert_to_numpy(output) for output in outputs])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _change(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    changes = []
    for old, new in zip(before, after, strict=True):
        spread = float(np.var(old, axis=0).mean()) or float(np.square(old).mean()) or 1.0
        changes.append(float(np.square(old - new).mean()) / spread)
    return float(np.mean(changes))
