"""What the edits that split layers share: which layers can be split, the plan and the splitting."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from saikei.budget import Budget
from saikei.edits.base import RefittingEdit
from saikei.edits.lowrank.budgeted import choose_within
from saikei.edits.lowrank.options import Options, paying_options
from saikei.edits.lowrank.plan import SplitPlan, planned, split_layers
from saikei.edits.lowrank.split import Splits
from saikei.errors import EditError, listed
from saikei.graph import Graph, Operation
from saikei.rules import why_whole
from saikei.rules.base import product
from saikei.tensors import numpy_dtype

Splitter = Callable[[Graph, Operation], Splits | str]


@dataclass(frozen=True)
class Splittable:
    """The layers that could be split, and the others.

    Args:
        options: The options of each layer that becomes smaller at some rank, in the graph's order.
        left_alone: The reason for each other chosen layer, by name.
    """

    options: tuple[Options, ...]
    left_alone: Mapping[str, str]

    @property
    def reasons(self) -> str:
        """Why layers are left alone, on one line."""
        return listed(f"{name} {reason}" for name, reason in self.left_alone.items())


class SplittingEdit(RefittingEdit):
    """An edit that writes layers as products of two thinner ones.

    Attributes:
        keep: A `Budget`, or how much of each layer, or of all layers together, stays.
        layers: Only these; empty for all that can be split.
        exclude: Names of layers that are not split.
    """

    keep: Any
    layers: tuple[str, ...]
    exclude: tuple[str, ...]

    @property
    @abstractmethod
    def splitters(self) -> Mapping[str, Splitter]:
        """For each kind of layer that can be split, how."""

    @property
    @abstractmethod
    def reason_to_stay(self) -> str:
        """Why a layer that could be split is not."""

    @abstractmethod
    def rows(self, options: tuple[Options, ...]) -> list[int]:
        """The chosen row of each layer's options, where no budget decides; 0 where it stays."""

    def allowed(self, found: Splittable) -> Splittable:
        """The options that are allowed, of those that were found; all if not overridden."""
        return found

    def plan(self, model: keras.Model, data: Any = None) -> SplitPlan:
        """Which layers would be split, at which rank, and what is kept and saved.

        Args:
            model: A built model.
            data: For the sizes that MACs are counted at, in a model that takes any size.

        Raises:
            EditError: When no layer would be split.
        """
        found, rows = self._choice(self.read(model, data))
        return planned(found.options, rows, found.left_alone, self.reason_to_stay)

    def change(self, graph: Graph, data: Any) -> Graph:
        """The graph with the chosen layers split."""
        found, rows = self._choice(graph)
        return split_layers(graph, found.options, rows)

    def _choice(self, graph: Graph) -> tuple[Splittable, list[int]]:
        edit = type(self).__name__
        self.check_layers(graph)
        found = self.allowed(find_options(self, graph))
        if not found.options:
            reasons = found.reasons or "no layer of a kind that it splits is chosen"
            raise EditError(f"{edit} would change nothing: {reasons}.")
        if isinstance(self.keep, Budget):
            return found, choose_within(graph, found.options, self.keep, edit)
        rows = self.rows(found.options)
        if not any(rows):
            why = {o.layer: self.reason_to_stay for o in found.options} | dict(found.left_alone)
            raise EditError(f"{edit} would change nothing: {Splittable((), why).reasons}.")
        return found, rows


def find_options(edit: SplittingEdit, graph: Graph) -> Splittable:
    """The ranks that make a layer smaller, for each chosen layer of a kind that can be split.

    Raises:
        EditError: When a layer that `layers` names is of a kind that cannot be split.
    """
    splitters = edit.splitters
    options, left_alone = [], {}
    for name, operation in graph.operations.items():
        if not edit.selects(name):
            continue
        if operation.quantised is not None and operation.plain_kind in splitters:
            left_alone[name] = f"stays whole: {why_whole(name, operation.quantised.mode)}"
            continue
        if operation.kind not in splitters:
            if edit.layers:
                raise EditError(
                    f"{type(edit).__name__} cannot split layer '{name}' of kind {operation.kind}: "
                    f"name layers of kind {', '.join(splitters)}."
                )
            continue
        found = splitters[operation.kind](graph, operation)
        choice = None if isinstance(found, str) else paying_options(found, _itemsize(operation))
        if choice is None:
            left_alone[name] = str(found)
        elif len(choice.rank) == 1:
            left_alone[name] = f"is smaller as it is: {_smallest(choice)}"
        else:
            options.append(choice)
    return Splittable(tuple(options), left_alone)


def _itemsize(operation: Operation) -> int:
    """Bytes of one number of a layer's largest weight, which is its kernel."""
    kernel = max(operation.weights.values(), key=lambda weight: product(weight.shape))
    return numpy_dtype(kernel.dtype).itemsize


def _smallest(options: Options) -> str:
    splits = options.splits
    best = min(splits.schemes, key=lambda one: (one.params_per_rank, one.macs_per_rank))
    if best.params_per_rank < splits.params:
        return f"rank 1 needs {best.macs_per_rank:,} MACs, and it has {splits.macs:,}"
    return f"rank 1 needs {best.params_per_rank:,} weights, and it has {splits.params:,}"
