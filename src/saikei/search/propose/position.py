"""Levels of a space with the costs of every single step from there, kept up to date."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from saikei.search.propose.space import AXES, MEMORY, Array, Levels, Space


@dataclass(frozen=True)
class Steps:
    """Every other level of every site.

    Args:
        sites: Position of the site of each step.
        levels: The level after it.
        losses: Change of the loss.
        costs: Change of the costs, in the order of `AXES`: `(steps, 4)`.
    """

    sites: Levels
    levels: Levels
    losses: Array
    costs: Array


@dataclass(frozen=True)
class Position:
    """Levels with the costs around them.

    Args:
        space: The space.
        levels: The level of each site.
        tables: For each site, the part of the costs that depends on it, as `Space.table` gives it.
        additive: MACs, parameters and bytes of the levels.
        rows: The bytes that are alive at each call; empty where the space has no memory.
    """

    space: Space
    levels: Levels
    tables: tuple[Array, ...] = field(repr=False)
    additive: Array
    rows: Array = field(repr=False)

    @classmethod
    def at(cls, space: Space, levels: Levels) -> Position:
        """The position of some levels."""
        tables = tuple(space.table(site, levels) for site in range(len(space.sites)))
        rows = np.zeros(0) if space.memory is None else space.memory.rows(levels)
        return cls(space, levels, tables, space.costs(levels)[:MEMORY], rows)

    @property
    def costs(self) -> Array:
        """The costs in the order of `AXES`."""
        return np.append(self.additive, self.rows.max(initial=0.0))

    @property
    def loss(self) -> float:
        """The predicted loss."""
        return self.space.loss(self.levels)

    def moved(self, site: int, level: int) -> Position:
        """The position after one step."""
        levels = self.levels.copy()
        levels[site] = level
        tables = list(self.tables)
        for other in self.space.neighbours[site]:
            tables[other] = self.space.table(other, levels)
        table = self.tables[site]
        additive = self.additive + table[level] - table[self.levels[site]]
        memory = self.space.memory
        changes = memory is not None and site in memory.saved
        rows = memory.rows(levels) if memory is not None and changes else self.rows
        return Position(self.space, levels, tuple(tables), additive, rows)

    def alive(self, site: int) -> Array:
        """The bytes that are alive at each call, for each level of a site: `(levels, calls)`."""
        memory, table = self.space.memory, self.tables[site]
        if memory is None or site not in memory.saved:
            return np.broadcast_to(self.rows, (len(table), len(self.rows)))
        saved = memory.saved[site]
        return np.asarray(self.rows + (saved[self.levels[site]] - saved) @ memory.live.T)

    def steps(self, memory: bool) -> Steps:
        """All steps from here.

        Args:
            memory: Whether their memory matters; otherwise it counts as not changed.
        """
        sites, levels, losses, costs = [], [], [], []
        peak = self.rows.max(initial=0.0)
        for site, table in enumerate(self.tables):
            now = int(self.levels[site])
            others = np.delete(np.arange(len(table)), now)
            given = self.space.sites[site].losses
            change = np.zeros((len(table), len(AXES)))
            change[:, :MEMORY] = table - table[now]
            if memory and self.space.memory is not None and site in self.space.memory.saved:
                change[:, MEMORY] = self.alive(site).max(axis=1, initial=0.0) - peak
            sites.append(np.full(len(others), site))
            levels.append(others)
            losses.append(given[others] - given[now])
            costs.append(change[others])
        if not sites:
            none = np.zeros(0, dtype=np.int64)
            return Steps(none, none, np.zeros(0), np.zeros((0, len(AXES))))
        joined = np.concatenate
        return Steps(joined(sites), joined(levels), joined(losses), joined(costs))
