"""How a model was compiled, carried over to the models that are made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import tree

from saikei.graph import internals
from saikei.graph.flat import Graph

# What a loss and metrics depend on: the shape of each output without the batch axis.
Shapes = tuple[tuple[int | None, ...], ...]


@dataclass(frozen=True, eq=False)
class Compiled:
    """How a model was compiled when its graph was read.

    Args:
        each: A Keras loss, its name or a function for each output; `None` for an output without.
        arguments: What `keras.Model.compile` was called with.
        optimizer: The optimizer; its settings are carried over, not its state.
        names: The name of each output, by which losses and metrics may be given.
        shapes: The shape of each output without the batch axis.
    """

    each: tuple[Any, ...]
    arguments: Mapping[str, Any]
    optimizer: Any
    names: tuple[str, ...]
    shapes: Shapes

    def compile(self, model: keras.Model) -> None:
        """Compile a model with the same loss and metrics, and a new optimizer of the same settings.

        Nothing is done where the model has other outputs. Where metrics or the optimizer cannot be
        made again from their config, the loss alone is carried over.
        """
        names, shapes = outputs_of(model)
        if shapes != self.shapes:
            return
        losses = self.each[0] if len(self.each) == 1 else list(self.each)
        try:
            metrics = {
                key: _renamed(_made_again(self.arguments.get(key)), self.names, names)
                for key in ("metrics", "weighted_metrics")
            }
            other = {k: v for k, v in self.arguments.items() if k not in (*metrics, "optimizer")}
            for key in ("loss", "loss_weights"):
                other[key] = _renamed(other.get(key), self.names, names)
            model.compile(_made_again(self.optimizer), **other, **metrics)
        # Depending on what objects of the user's own have no config for.
        except (TypeError, ValueError, AttributeError, KeyError, NotImplementedError):
            model.compile(loss=losses)


def compiled_as(model: keras.Model) -> tuple[Compiled, ...]:
    """How a model is compiled; nothing where it is not."""
    given, count = getattr(model, "loss", None), len(getattr(model, "outputs", None) or ())
    losses = [] if given is None else tree.flatten(given)
    if len(losses) == 1:
        losses = losses * count
    if not losses or len(losses) != count:
        return ()
    names, shapes = outputs_of(model)
    optimizer = getattr(model, "optimizer", None)
    return (Compiled(tuple(losses), internals.compile_arguments(model), optimizer, names, shapes),)


def uncompiled(graph: Graph) -> Graph:
    """A graph from which a model is built that is not compiled."""
    return replace(graph, marks=tuple(one for one in graph.marks if not isinstance(one, Compiled)))


def outputs_of(model: keras.Model) -> tuple[tuple[str, ...], Shapes]:
    """The name of each output of a model, and its shape without the batch axis."""
    names = tuple(getattr(model, "output_names", ()))
    return names, tuple(tuple(output.shape[1:]) for output in model.outputs)


def same_losses(all_compiled: Sequence[Compiled]) -> bool:
    """Whether models are compiled with the same loss for each output."""
    first = [_config(loss) for loss in all_compiled[0].each]
    return all([_config(loss) for loss in one.each] == first for one in all_compiled[1:])


def _config(loss: Any) -> Any:
    found = keras.losses.get(loss) if isinstance(loss, str) else loss
    return (type(found), found.get_config()) if isinstance(found, keras.Loss) else found


def _made_again(given: Any) -> Any:
    """The same names and functions, and new objects of Keras in the place of those with a state."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, (keras.Metric, keras.Optimizer)):
            return type(leaf).from_config(leaf.get_config())
        return leaf

    return tree.map_structure(one, given)


def _renamed(given: Any, old: Sequence[str], new: Sequence[str]) -> Any:
    """What is given by the names of outputs, by other names for the same outputs."""
    if not isinstance(given, dict):
        return given
    names = dict(zip(old, new, strict=True))
    return {names.get(name, name): value for name, value in given.items()}
