"""What could be left out of a model, as a table."""

from __future__ import annotations

from dataclasses import dataclass, field

from saikei.columns import in_columns
from saikei.edits.base import Edit


@dataclass(frozen=True)
class PlannedUnit:
    """A part of a model that can be left out.

    Args:
        name: For `RemoveLayers(layers=…)` or `exclude`.
        kind: `"residual"`, `"projection"`, `"block"` or `"plain"`.
        layers: The names of its layers.
        params: The number of parameters that go when it alone goes.
        macs: The multiply-accumulates per sample that go when it alone goes.
        score: Its score while all others are there; `None` where the ranking has none, so that
            it stays.
        order: 1 for the first that goes; `None` where it stays or goes within another one.
    """

    name: str
    kind: str
    layers: tuple[str, ...]
    params: int
    macs: int
    score: float | None
    order: int | None


@dataclass(frozen=True)
class RemovalPlan:
    """What `RemoveLayers` would do; printed, it is a table.

    Args:
        ranking: The ranking that made the scores; see `RemoveLayers`.
        units: All parts that can be left out, in the order in which they are called.
        edit: An edit that leaves out the same parts without data.
    """

    ranking: str
    units: tuple[PlannedUnit, ...]
    edit: Edit = field(repr=False)

    @property
    def removed(self) -> tuple[str, ...]:
        """The names of the units that go, the first one first."""
        gone = [(unit.order, unit.name) for unit in self.units if unit.order is not None]
        return tuple(name for _, name in sorted(gone))

    def __str__(self) -> str:
        rows = [("unit", "kind", "layers", "params", "MACs", self.ranking, "goes")]
        rows += [_row(unit) for unit in self.units]
        return in_columns(rows, right=range(2, 7))


def _row(unit: PlannedUnit) -> tuple[str, str, str, str, str, str, str]:
    return (
        unit.name,
        unit.kind,
        str(len(unit.layers)),
        f"{unit.params:,}",
        f"{unit.macs:,}",
        "unknown" if unit.score is None else f"{unit.score:.3g}",
        "" if unit.order is None else str(unit.order),
    )
