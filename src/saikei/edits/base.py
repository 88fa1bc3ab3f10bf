"""What an edit is: a frozen value that, called with a model, gives a new model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

import keras

from saikei.budget import Budget
from saikei.calibration.refit import refit
from saikei.calibration.sizes import sizes_of
from saikei.channels import map_channels
from saikei.codec import Jsonable
from saikei.costs import count_costs
from saikei.errors import EditError, WorkError
from saikei.graph import Graph, InputShape, build, read, sized, with_input_shape
from saikei.graph.layer_names import check_layer_names
from saikei.models import CascadeModel


class Edit(Jsonable, ABC):
    """A change of structure. Subclasses are frozen dataclasses with JSON-ready fields.

    Lists among the arguments become tuples. An edit with fields `layers` and `exclude` changes
    only these layers, or all but those.
    """

    json_error: ClassVar[type[EditError]] = EditError

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether the new model computes the same function as the old one."""

    @abstractmethod
    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The edited graph. Pure: the given graph is not changed.

        Args:
            graph: The graph to edit.
            data: Calibration data, for edits that use it.

        Raises:
            EditError: When the edit cannot be applied, or would change nothing.
        """

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range. Subclasses that take any give this.

        Raises:
            EditError: Naming the argument, and what to give instead.
        """

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            if name in ("layers", "exclude", "kinds"):
                several = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
                names = tuple(value) if several else ()
                if not several or not all(isinstance(one, str) for one in names):
                    example = f", ({value!r},)" if isinstance(value, str) else ""
                    raise EditError(
                        f"{type(self).__name__}({name}={value!r}): give a tuple of names{example}."
                    )
                object.__setattr__(self, name, names)
            elif isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        self.check_arguments()

    def check_layers(self, graph: Graph) -> None:
        """Refuse `layers` and `exclude` that name what the model does not have.

        Args:
            graph: The graph that the edit is applied to.

        Raises:
            EditError: Naming a layer that is unknown, or both chosen and excluded.
        """
        edit = type(self).__name__
        layers, exclude = (tuple(getattr(self, name, ())) for name in ("layers", "exclude"))
        check_layer_names(layers, graph, f"{edit}(layers=…)")
        check_layer_names(exclude, graph, f"{edit}(exclude=…)")
        for name in layers:
            if name in exclude:
                raise EditError(
                    f"{edit} both names and excludes layer '{name}': drop one of the two."
                )

    def selects(self, name: str) -> bool:
        """Whether `layers` and `exclude` allow a layer to be changed.

        Args:
            name: The name of the layer.
        """
        layers, exclude = getattr(self, "layers", ()), getattr(self, "exclude", ())
        return name not in exclude and (not layers or name in layers)

    def __call__(
        self, model: keras.Model, data: Any = None, input_shape: InputShape | None = None
    ) -> keras.Model:
        """Edit a model.

        Args:
            model: A built Functional or Sequential model; it is not changed.
            data: Calibration data, for edits that use it: what `keras.Model.fit` takes. A budget
                counts axes of unknown size as long as they are in it.
            input_shape: For a budget on a model that takes inputs of any size, the shape of a
                sample that costs are counted for, in the place of that of the data; see `profile`.

        Returns:
            A new, uncompiled model with the old weights carried over.

        Raises:
            ModelError: When the model cannot be read.
            EditError: When the edit cannot be applied, or would change nothing; for a cascade,
                whose exits would be lost.
            WorkError: When the model that was built does not keep the budget.
        """
        if isinstance(model, CascadeModel):
            raise EditError(
                f"Model '{model.name}' is a cascade, and an edit would make one graph of it, in "
                "which all members run: edit its members (.members) and make a Cascade of them, "
                "with thresholds of their own; or edit copy_model(it), where all may run."
            )
        graph = read_with_sizes(model, data, input_shape)
        edited = build(self.apply(graph, data))
        check_budget(self, graph, edited)
        return edited


class RefittingEdit(Edit):
    """An edit after which the layers that are left are refitted to data, if it is given.

    Attributes:
        compensate: Whether to refit, by least squares, each layer to what it gave before.
    """

    compensate: bool

    @abstractmethod
    def change(self, graph: Graph, data: Any) -> Graph:
        """The edited graph before it is refitted; as `apply` otherwise."""

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The edited graph, refitted where data is given and `compensate` is true."""
        changed = self.change(graph, data)
        return refit(graph, changed, data) if self.compensate and data is not None else changed


def read_with_sizes(model: keras.Model, data: Any, input_shape: InputShape | None = None) -> Graph:
    """Read a model; axes of unknown size get for counting the size that they have in the data."""
    graph = read(model)
    if input_shape is not None:
        return with_input_shape(graph, input_shape)
    return with_sizes(graph, model, data)


def with_sizes(graph: Graph, model: keras.Model, data: Any) -> Graph:
    """The graph of a model with the sizes that axes of unknown size have in the data."""
    if data is None or not sized(graph).sizes:
        return graph
    return replace(graph, sizes=sizes_of(graph, data, model))


def check_budget(edit: Edit, graph: Graph, edited: keras.Model) -> None:
    """Count a built model, where the edit was to reach a budget.

    Args:
        edit: The edit that was applied.
        graph: The graph that the budget's shares are shares of.
        edited: The model that was built.

    Raises:
        WorkError: When the model costs more than was counted before it was built.
    """
    budgets = [value for value in vars(edit).values() if isinstance(value, Budget)]
    for budget in budgets:
        # A latency is measured while cutting, and is never the same twice.
        if budget.macs is None and budget.params is None:
            continue
        limits = replace(budget, latency=None)
        before, after = (
            count_costs(map_channels(replace(g, sizes=graph.sizes))) for g in (graph, read(edited))
        )
        if not limits.fits(after, before):
            raise WorkError(
                f"{type(edit).__name__} counted model '{graph.name}' to keep the budget "
                f"'{limits}', but the model that was built has {after.macs:,} MACs of "
                f"{before.macs:,} and {after.params:,} parameters of {before.params:,}: a layer "
                "costs other than its rule counts. Set the budget lower by as much."
            )
