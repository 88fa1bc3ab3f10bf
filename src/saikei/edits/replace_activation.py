"""`ReplaceActivation`: other activation functions in a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from saikei.arguments import plain
from saikei.edits.base import Option, RefittingEdit
from saikei.edits.replacing.activation_layers import (
    INITIAL_ALPHA,
    activation_layer,
    prelu_operation,
)
from saikei.edits.replacing.functions import Function, asked_function
from saikei.edits.replacing.selection import (
    calls_of,
    channels_first,
    in_the_name_of,
    policy_of,
)
from saikei.edits.replacing.sites import Site, chosen_sites
from saikei.errors import EditError, in_one_line
from saikei.graph import Graph, Operation, new_operation, replace_operations, unused_name

# Functions that are offered to the search.
OFFERED = ("relu", "leaky_relu", "prelu", "elu", "silu")
# Activations of a model above which those of one function change together.
MANY = 12


@dataclass(frozen=True, init=False)
class ReplaceActivation(RefittingEdit):
    """Replace an activation function by another, wherever the model has it.

    `activation=` arguments of dense and convolutional layers, activation layers and `keras.ops`
    operations are all found. A function with parameters of its own becomes a layer of its own
    behind the one it was fused into, and takes that one's name. Different functions in
    different layers are several edits in a `Recipe`.

    Left alone unless they are named in `layers`: what gives a model output, and softmax and its
    like unless `old` names them. `"any"` leaves alone gates too (a bounded function that scales
    another tensor, as in squeeze-and-excite), functions of your own, and layers without one;
    a ReLU6 that is part of a gate has to be named always. Recurrent layers are never changed.

    The edit is approximate, except where both functions are the same: ReLU and PReLU with
    α = 0, Leaky ReLU and PReLU with its slope.

    Args:
        old: The function to replace: a name of `keras.activations`, `"prelu"`, the name of a
            function of your own, or `"any"`. `"relu"` is also a `ReLU` layer with a maximum or a
            threshold; with a slope it is `"leaky_relu"`, with a maximum of 6 `"relu6"`.
        new: A name of `keras.activations` (but `"glu"`), or `"prelu"`.
        layers: The names of the layers to change; all that fit when empty.
        exclude: The names of layers that stay as they are.
        compensate: Whether the layers are refitted afterwards, by least squares, to their outputs
            before the edit, if there is data.
        parameters: Parameters of the new function, by the names that Keras gives them:
            `negative_slope` (`leaky_relu`, 0.2 by default; `relu`), `max_value` and `threshold`
            (`relu`), `alpha` (`elu`, `celu`), `approximate` (`gelu`), `b` (`squareplus`), and so
            on. `prelu` has `alpha`, its first value (by default the slope of the function that it
            replaces, which keeps the function of a ReLU; 0.25 where that has none), and
            `shared_axes` (by default every axis but that of the channels).

    Raises:
        EditError: When there is no such function or parameter.

    Example:
        >>> edit = ReplaceActivation("relu", "leaky_relu", negative_slope=0.1)
        >>> ReplaceActivation.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    method: ClassVar[str] = "activation"
    stage: ClassVar[int] = 3
    old: str
    new: str
    layers: tuple[str, ...]
    exclude: tuple[str, ...]
    compensate: bool
    parameters: Mapping[str, Any]

    def __init__(
        self,
        old: str,
        new: str,
        layers: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        compensate: bool = True,
        **parameters: Any,
    ) -> None:
        object.__setattr__(self, "old", old)
        object.__setattr__(self, "new", new)
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "exclude", exclude)
        object.__setattr__(self, "compensate", compensate)
        object.__setattr__(self, "parameters", parameters)
        self.__post_init__()

    def check_arguments(self) -> None:
        """Refuse a function that Keras does not have, and parameters that it does not take."""
        axes = self.parameters.get("shared_axes")
        if axes is not None:
            fixed = {**self.parameters, "shared_axes": plain(axes, Sequence[int])}
            object.__setattr__(self, "parameters", fixed)
        _check_buildable(asked_function("ReplaceActivation", self.new, self.parameters))

    @classmethod
    def options(cls, graph: Graph, data: Any = None) -> tuple[Option, ...]:  # noqa: ARG003
        """For each activation, others; where a model has many, for all of one function at once."""
        try:
            found = chosen_sites(cls.__name__, graph, "any", (), ())
        except EditError:
            return ()
        places: dict[str, list[Site]] = {}
        for site in found:
            name = site.operation if len(found) <= MANY else str(site.function)
            places.setdefault(name, []).append(site)
        return tuple(
            Option(
                f"activation:{name}",
                cls.method,
                f"{new} in place of {same[0].function}",
                cls("any", new, tuple(site.operation for site in same)),
                tuple(site.operation for site in same),
            )
            for name, same in places.items()
            for new in OFFERED
            if not _same(same[0].function, asked_function(cls.__name__, new, {}))
        )

    def change(self, graph: Graph, data: Any) -> Graph:
        """The graph with other functions."""
        self.check_layers(graph)
        chosen = chosen_sites("ReplaceActivation", graph, self.old, self.layers, self.exclude)
        asked = asked_function("ReplaceActivation", self.new, self.parameters)
        changing = [site for site in chosen if not _same(site.function, asked)]
        if not changing:
            raise EditError(
                f"ReplaceActivation would change nothing: every chosen layer has {asked} already."
            )
        chains = {site.operation: _chain(graph, site, asked) for site in changing}
        with in_the_name_of("ReplaceActivation", "exclude that layer"):
            return replace_operations(graph, chains)


def _check_buildable(function: Function) -> None:
    if function.name == "prelu":
        return
    try:
        activation_layer(function)
    except ValueError as error:
        reason = in_one_line(error)
        raise EditError(f"ReplaceActivation: Keras has no {function}: {reason}.") from error


def _same(old: Function, asked: Function) -> bool:
    """A PReLU keeps the slopes that it has learned."""
    return old == asked or old.name == asked.name == "prelu"


def _chain(graph: Graph, site: Site, asked: Function) -> list[Operation]:
    operation = graph.operations[site.operation]
    new = _settled(site.function, asked)
    if site.fused and new.plain:
        return [_with_activation(operation, new.name, operation.name)]
    if not site.fused:
        return [_activation_operation(graph, operation, new)]
    if (operation.config or {}).get("activity_regularizer"):
        raise EditError(
            f"ReplaceActivation: layer '{operation.name}' ({operation.kind}) has an activity "
            f"regularizer, which would no longer see what {new} gives: exclude the layer."
        )
    linear = unused_name(graph, f"{operation.name}_linear")
    return [
        _with_activation(operation, "linear", linear),
        _activation_operation(graph, operation, new),
    ]


def _settled(old: Function, asked: Function) -> Function:
    """PReLU starts as the function that it replaces, where that has a slope."""
    if asked.name != "prelu" or asked.parameters["alpha"] is not None:
        return asked
    plain = 0.0 if old.plain else INITIAL_ALPHA
    slopes = {"relu": plain, "leaky_relu": old.parameters.get("negative_slope")}
    alpha = slopes.get(old.name, INITIAL_ALPHA)
    return replace(asked, parameters={**asked.parameters, "alpha": alpha})


def _with_activation(operation: Operation, activation: str, name: str) -> Operation:
    config = {**(operation.config or {}), "activation": activation, "name": name}
    return replace(operation, name=name, config=config)


def _activation_operation(graph: Graph, operation: Operation, new: Function) -> Operation:
    """The new function as a layer, with the name, the policy and the state of the old one."""
    calls = calls_of(graph, operation.name)
    spec = calls[0].outputs[0]
    settings: dict[str, Any] = {"dtype": policy_of(operation, spec.dtype, new.name == "prelu")}
    settings["trainable"] = bool(getattr(operation.source, "trainable", True))
    if new.name != "prelu":
        layer = activation_layer(new, name=operation.name, **settings)
        return new_operation(operation.name, layer)
    first = len(spec.shape) > 2 and channels_first(graph, graph.calls.index(calls[0]))
    try:
        return prelu_operation(new, operation.name, spec, 1 if first else -1, **settings)
    except ValueError as error:
        raise EditError(
            f"ReplaceActivation: layer '{operation.name}' ({operation.kind}): {error}."
        ) from error
