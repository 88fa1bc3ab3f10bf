"""`RemoveLayers`: leave out the layers and blocks that matter least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from saikei.budget import Budget
from saikei.edits.base import Option, RefittingEdit
from saikei.edits.checks import check_amount
from saikei.edits.depth.dominators import CostTable
from saikei.edits.depth.find import choose_units, find_units
from saikei.edits.depth.plan import PlannedUnit, RemovalPlan
from saikei.edits.depth.ranking import RANKINGS, Ranking, make_ranking
from saikei.edits.depth.selection import all_around, removal_order, within_budget
from saikei.edits.depth.units import KINDS, Unit, leaves
from saikei.errors import EditError
from saikei.graph import Graph, redirect
from saikei.hub import task_data


@dataclass(frozen=True)
class RemoveLayers(RefittingEdit):
    """Leave out whole blocks and layers, one by one, the least harmful first.

    What can be left out is found from the graph, not from names: branches beside a shortcut,
    and layers without one that give the shape they read, with their normalisation and
    activation. `plan` lists them.

    Args:
        remove: How much goes: a share of the parts that can (`float` up to 1), a number of them
            (`int`), or a `Budget`: as many as it takes. A part that contains others counts as
            many. Rounded, and at least one.
        ranking: `"output"` (how much the model's outputs change, as a share of their variance),
            `"loss"` (how much the loss on the labels grows, with sample weights), `"influence"`
            (the cosine distance between a part's output and the tensor that replaces it, as in
            ShortGPT), or `"weights"` (the branch's share of the sum, guessed from weights; layers
            without a shortcut have no score, and stay). All but the last need data. `"output"` and
            `"loss"` try each part, again after each that goes; `"influence"` takes one pass over
            the data in all. By default `"output"` with data, `"weights"` without.
        kinds: The kinds of the parts that may go: `"residual"` (x + f(x) becomes x), `"projection"`
            (Wx + f(x) becomes Wx), `"block"` (attention and feed-forward together) and `"plain"` (a
            layer or a short chain, outside of the other kinds given).
        layers: Only these: names of parts, or of layers in them; all when empty. With
            `remove=1.0` exactly these go, and nothing is ranked.
        exclude: Names of parts, or of layers in them, that stay.
        compensate: Refit the layers that are left to what they gave before, by least squares on
            the data; nothing is trained. Only done when data is given.

    Raises:
        EditError: When an argument is out of range.

    Example:
        >>> edit = RemoveLayers(0.25, ranking="influence", kinds=("residual", "block"))
        >>> RemoveLayers.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    method: ClassVar[str] = "remove_layers"
    stage: ClassVar[int] = 0
    one_by_one: ClassVar[bool] = True
    remove: float | int | Budget
    ranking: str | None = None
    kinds: tuple[str, ...] = ("residual", "plain")
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    compensate: bool = True

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        _check_arguments(self)

    def change(self, graph: Graph, data: Any) -> Graph:
        """The graph without the parts that matter least."""
        removed = units = self._units(graph)
        if not _all_go(self.remove, units):
            ranking = make_ranking(self.ranking, graph, units, data)
            removed = self._removed(graph, units, ranking, ranking.scores(units, ()))
        return redirect(graph, all_around(removed))

    @classmethod
    def options(cls, graph: Graph, data: Any = None) -> tuple[Option, ...]:  # noqa: ARG003
        """For each part that can be left out, the model without it."""
        kinds = ("residual", "projection", "plain")
        return tuple(
            Option(
                f"block:{unit.name}",
                cls.method,
                f"without {_described(graph, unit)}",
                cls(1.0, kinds=kinds, layers=(unit.name,)),
                unit.layers(graph),
            )
            for unit in find_units(graph, kinds)
        )

    def plan(self, model: keras.Model, data: Any = None) -> RemovalPlan:
        """What can be left out, what each part is worth and costs, and which would go.

        Args:
            model: A built model.
            data: For a ranking that looks at data: what `keras.Model.fit` takes.

        Raises:
            EditError: As when the edit is applied.
        """
        data = task_data(model, data)
        graph = self.read(model, data)
        units = self._units(graph)
        ranking = make_ranking(self.ranking, graph, units, data)
        scores = ranking.scores(units, ())
        removed = self._removed(graph, units, ranking, scores)
        order = {unit.name: number for number, unit in enumerate(removed, 1)}
        edit = RemoveLayers(1.0, kinds=self.kinds, layers=tuple(order), compensate=self.compensate)
        planned = _planned(graph, units, scores, order)
        return RemovalPlan(self.ranking or ("weights" if data is None else "output"), planned, edit)

    def _units(self, graph: Graph) -> list[Unit]:
        found = find_units(graph, self.kinds)
        if not found:
            raise EditError(
                f"RemoveLayers finds nothing to leave out of model '{graph.name}': it has no "
                f"{' or '.join(self.kinds)} part whose output has the shape of its input, apart "
                "from what gives the model's outputs. Prune channels, or give other kinds."
            )
        chosen = choose_units(graph, found, self.layers, self.exclude)
        if not chosen:
            raise EditError(
                "RemoveLayers would change nothing: all parts of model "
                f"'{graph.name}' that can be left out are excluded."
            )
        return chosen

    def _removed(
        self,
        graph: Graph,
        units: Sequence[Unit],
        ranking: Ranking,
        scores: Sequence[float | None],
    ) -> list[Unit]:
        """The units that go, the first one first."""
        if _all_go(self.remove, units):
            return [u for u in units if not any(other.contains(u) for other in units)]
        known = [u for u, score in zip(units, scores, strict=True) if score is not None]
        if not known:
            raise EditError(
                "RemoveLayers cannot rank by weights alone what it could leave out of model "
                f"'{graph.name}' ({', '.join(u.name for u in units)}): hand in data, (x, y), as "
                "the second argument."
            )
        if isinstance(self.remove, Budget):
            return within_budget(graph, known, ranking, self.remove)
        return list(removal_order(known, ranking, _count(self.remove, known)))


def _described(graph: Graph, unit: Unit) -> str:
    """The layers that go with a unit, as `a` or `a to b`."""
    layers = unit.layers(graph)
    return layers[0] if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"


def _check_arguments(edit: RemoveLayers) -> None:
    check_amount("RemoveLayers", "remove", edit.remove, "a number of parts")
    if edit.ranking is not None and edit.ranking not in RANKINGS:
        raise EditError(
            f"Unknown ranking '{edit.ranking}': use one of {', '.join(sorted(RANKINGS))}."
        )
    unknown = [kind for kind in edit.kinds if kind not in KINDS]
    if unknown or not edit.kinds:
        raise EditError(f"RemoveLayers(kinds={edit.kinds}): give some of {', '.join(KINDS)}.")


def _all_go(remove: float | int | Budget, units: Sequence[Unit]) -> bool:
    return not isinstance(remove, Budget) and _count(remove, units) == len(leaves(units))


def _count(remove: float | int, units: Sequence[Unit]) -> int:
    """How many of the smallest units go."""
    total = len(leaves(units))
    if isinstance(remove, float):
        return max(1, round(remove * total))
    if remove > total:
        raise EditError(
            f"RemoveLayers(remove={remove}): only {total} parts can be left out "
            f"({', '.join(unit.name for unit in leaves(units))})."
        )
    return remove


def _planned(
    graph: Graph,
    units: Sequence[Unit],
    scores: Sequence[float | None],
    order: Mapping[str, int],
) -> tuple[PlannedUnit, ...]:
    table = CostTable(graph)
    whole = table.without(frozenset())
    planned = []
    for unit, score in zip(units, scores, strict=True):
        left = table.without(unit.calls)
        planned.append(
            PlannedUnit(
                name=unit.name,
                kind=unit.kind,
                layers=unit.layers(graph),
                params=whole.params - left.params,
                macs=whole.macs - left.macs,
                score=score,
                order=order.get(unit.name),
            )
        )
    return tuple(planned)
