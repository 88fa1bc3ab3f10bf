"""What an edit is: a frozen value that, called with a model, gives a new model.

An `Option` is one edit of one place in a model. What an edit offers to the search are its options.
"""

from __future__ import annotations

import inspect
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import keras

from saikei.arguments import checked
from saikei.budget import Budget
from saikei.calibration.refit import refit
from saikei.calibration.sizes import sizes_of
from saikei.calibration.surviving_outputs import Kept
from saikei.channels import ChannelMap
from saikei.codec import Jsonable
from saikei.costs import Counts, count_costs
from saikei.errors import EditError, SaikeiError, WorkError, in_one_line
from saikei.graph import Graph, InputShape, read, sized, with_input_shape
from saikei.graph.finite import check_finite_weights
from saikei.graph.layer_names import check_layer_names
from saikei.hub import built_as, task_data
from saikei.models import CascadeModel

# The stage of edits that change the precision of weights alone.
PRECISION = 4


class Edit(Jsonable, ABC):
    """A change of structure. Subclasses are frozen dataclasses with JSON-ready fields.

    Lists among the arguments become tuples. An edit with fields `layers` and `exclude` changes
    only these layers, or all but those.

    Attributes:
        method: The word that stands for the edit in `optimize(methods=…)`; the name of the class
            where it is empty.
        stage: The step of the search at which the edit is applied, where a structure has several: 0
            for blocks that go, 1 for channels, 2 for other forms of a layer, 3 for activations,
            poolings and heads, 4 for precision.
        one_by_one: Whether the search chooses the options of the edit one after the other, since
            the loss of one depends much on the others.
        replaces: Whether the layers of an option are replaced by new ones, whose weights a refit
            finds. Then no other option of these layers is taken beside it.
        computes: Whether it computes with weights, which then have to be finite.
    """

    error_class: ClassVar[type[EditError]] = EditError
    computes: ClassVar[bool] = True
    method: ClassVar[str] = ""
    stage: ClassVar[int] = 2
    one_by_one: ClassVar[bool] = False
    replaces: ClassVar[bool] = False

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

    def unfitted(self, graph: Graph, data: Any = None) -> tuple[Graph, Kept]:
        """The edited graph before anything is refitted to data.

        Several edits can so be refitted together, once.

        Args:
            graph: The graph to edit.
            data: What `keras.Model.fit` takes, for edits that choose by it; `None` for none.

        Returns:
            The graph, and which channels it has of the old outputs, where it has fewer; see
            `saikei.calibration.surviving_outputs`.

        Raises:
            EditError: As `apply` does.
        """
        return self.apply(graph, data), {}

    @classmethod
    def options(cls, graph: Graph, data: Any = None) -> tuple[Option, ...]:  # noqa: ARG003
        """What the edit offers to the search for a model; nothing if not overridden.

        Each option changes one place. Options that raise an `EditError` when they are applied, or
        change nothing, are left out by the search: they need not be avoided here.

        Args:
            graph: The graph of the model.
            data: What `keras.Model.fit` takes, for edits that choose by it; `None` for none.

        Returns:
            The options, of which the search takes at most one for each `site`.
        """
        return ()

    def read(
        self, model: keras.Model, data: Any = None, input_shape: InputShape | None = None
    ) -> Graph:
        """Read the model that is to be edited; for the arguments see `__call__`.

        Raises:
            ModelError: When the model cannot be read.
            EditError: When weights are NaN or infinite, and the edit computes with them.
        """
        graph = read_with_sizes(model, data, input_shape)
        self.check_weights(graph)
        return graph

    def check_weights(self, graph: Graph) -> None:
        """Refuse a graph with weights that are not finite, if the edit computes with them.

        Raises:
            EditError: Naming the first such weight and its layer.
        """
        if self.computes:
            check_finite_weights(type(self).__name__, graph, EditError)

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

    def graphs(
        self, model: keras.Model, data: Any = None, input_shape: InputShape | None = None
    ) -> tuple[Graph, Graph]:
        """The graph of a model and the edited one, of which no model is built yet.

        Args:
            model: As in `__call__`.
            data: As in `__call__`.
            input_shape: As in `__call__`.

        Raises:
            ModelError: When the model cannot be read.
            EditError: When the edit cannot be applied; for a cascade too.
        """
        if isinstance(model, CascadeModel):
            raise EditError(
                f"Model '{model.name}' is a cascade, and an edit would make one graph of it, in "
                "which all members run: edit its members (.members) and make a Cascade of them, "
                "with thresholds of their own; or edit copy_model(it), where all may run."
            )
        data = task_data(model, data)
        graph = self.read(model, data, input_shape)
        return graph, self.apply(graph, data)

    @checked
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
            A new model with the old weights carried over. It is compiled as the given one is, with
            a new optimizer, unless its outputs have other shapes. What is made of a task or
            backbone of KerasHub is of its class, with a smaller config, where that can be.

        Warns:
            ModelWarning: When a model of KerasHub became a plain one, which its class cannot be.

        Raises:
            ModelError: When the model cannot be read.
            EditError: When the edit cannot be applied, or would change nothing; for a cascade,
                whose exits would be lost.
            WorkError: When the model that was built does not keep the budget.
        """
        graph, changed = self.graphs(model, data, input_shape)
        edited = built_as(model, graph, changed)
        check_budget(self, graph, edited)
        return edited


@dataclass(frozen=True)
class Option(Jsonable):
    """One edit of one place in a model.

    Args:
        site: The place, such as `"channels:conv2"`, `"block:add_3"` or `"layer:dense_1"`. Of the
            options of one site the search takes at most one.
        method: The `method` of the edit.
        change: What changes, for people: `"24 of 32 channels"`.
        edit: The edit. It names the layers that it changes, so that what it changes does not
            depend on data.
        layers: The names of the layers of the model that it changes or removes.
    """

    error_class: ClassVar[type[EditError]] = EditError
    site: str
    method: str
    change: str
    edit: Edit
    layers: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the fields, and the edit with its name."""
        fields = {"site": self.site, "method": self.method, "change": self.change}
        return {**fields, "edit": edit_to_dict(self.edit), "layers": list(self.layers)}

    @classmethod
    def from_dict(cls, arguments: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            EditError: When a field is missing, unknown or of another type, or the edit is unknown.
        """
        if not isinstance(arguments, Mapping):
            raise EditError(f"An option is {reprlib.repr(arguments)}: give an object.")
        if "edit" not in arguments:
            raise EditError("Option needs the argument 'edit'.")
        edit = edit_from_dict(arguments["edit"], "the option")
        return super().from_dict({**arguments, "edit": edit})


def edit_to_dict(edit: Edit) -> dict[str, Any]:
    """The arguments of an edit with the name of its class, under `"edit"`."""
    return {"edit": type(edit).__name__, **edit.to_dict()}


def edit_from_dict(entry: Any, where: str) -> Edit:
    """The inverse of `edit_to_dict`.

    Raises:
        EditError: When there is no such edit, or its arguments do not fit.
    """
    name = entry.get("edit") if isinstance(entry, Mapping) else entry
    kinds = edit_classes()
    if not isinstance(entry, Mapping) or not isinstance(name, str) or name not in kinds:
        raise EditError(
            f"Unknown edit {reprlib.repr(name)} in {where}: use one of {', '.join(sorted(kinds))}."
        )
    arguments = {key: value for key, value in entry.items() if key != "edit"}
    try:
        return kinds[name].from_dict(arguments)
    except SaikeiError:
        raise
    # Which exception a constructor raises depends on the values.
    except Exception as error:
        raise EditError(f"Edit '{name}' in {where}: {in_one_line(error)}.") from error


def edit_classes() -> dict[str, type[Edit]]:
    """Every class of edit that is imported, by its name; of two of a name the one of Saikei."""
    found: dict[str, type[Edit]] = {}
    waiting = Edit.__subclasses__()
    while waiting:
        kind = waiting.pop(0)
        waiting += kind.__subclasses__()
        if inspect.isabstract(kind):
            continue
        if not found.get(kind.__name__, kind).__module__.startswith("saikei."):
            found[kind.__name__] = kind
        found.setdefault(kind.__name__, kind)
    return found


class RefittingEdit(Edit):
    """An edit after which the layers that are left are refitted to data, if it is given.

    Attributes:
        compensate: Whether to refit, by least squares, each layer to what it gave before.
    """

    compensate: bool

    @abstractmethod
    def change(self, graph: Graph, data: Any) -> Graph:
        """The edited graph before it is refitted; as `apply` otherwise."""

    def unfitted(self, graph: Graph, data: Any = None) -> tuple[Graph, Kept]:
        """The edited graph before it is refitted."""
        return self.change(graph, data), {}

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
        limits = budget.counted()
        if limits is None:
            continue
        before, after = (
            count_costs(ChannelMap.of_whole(replace(g, sizes=graph.sizes)))
            for g in (graph, read(edited))
        )
        if not limits.fits(after, before):
            raise WorkError(
                f"{type(edit).__name__} counted model '{graph.name}' to keep the budget "
                f"'{limits}', but the model that was built has {_compared(limits, after, before)}: "
                "a layer costs other than its rule counts. Set the budget lower by as much."
            )


def _compared(limits: Budget, after: Counts, before: Counts) -> str:
    """The costs that are limited, after and before, as `macs 20 of 30`."""
    names = limits.given()
    return " and ".join(
        f"{name} {limits.cost(after, name):,.0f} of {limits.cost(before, name):,.0f}"
        for name in names
    )
