"""Records of a model's history, kept in the process and passed on to the models made from it.

A mark is any object. It is attached to a model and to its layers by weak references: it is deleted
with them, never saved, and follows a layer into every model that uses it. `read` collects a model's
marks and `build` attaches them to the new model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import keras
from keras import tree

from saikei.graph import internals

Marks = tuple[Any, ...]


@dataclass(frozen=True)
class IgnoredClass:
    """A class number that the loss of a model leaves out, such as 255 for pixels without a label.

    Args:
        number: Number of the class.
        classes: Width of the output that the loss is for; `None` where unknown.
    """

    number: int
    classes: int | None


_marks: WeakKeyDictionary[Any, Marks] = WeakKeyDictionary()


def marks_of(model: keras.Model) -> Marks:
    """The marks of a model and of every layer in it, each once, oldest first.

    Args:
        model: Any Keras model, built or not.
    """
    found: dict[int, Any] = {}
    for layer in internals.flattened_layers(model):
        for mark in _marks.get(layer, ()):
            found.setdefault(id(mark), mark)
    return tuple(found.values())


def mark(model: keras.Model, marks: Iterable[Any], trainable_only: bool = False) -> None:
    """Attach marks to a model and to its layers that have weights.

    Args:
        model: Any Keras model.
        marks: The marks; one that is attached already is not added again.
        trainable_only: Whether to leave out layers that are frozen.
    """
    new = tuple(marks)
    for layer in internals.flattened_layers(model) if new else ():
        weights = layer.trainable_variables if trainable_only else layer.variables
        if layer is model or weights:
            old = _marks.get(layer, ())
            known = {id(one) for one in old}
            _marks[layer] = (*old, *(one for one in new if id(one) not in known))


def ignored_number(marks: Marks) -> int | None:
    """The class number that marks leave out; `None` where they leave out none or several."""
    found = {one.number for one in marks if isinstance(one, IgnoredClass)}
    return found.pop() if len(found) == 1 else None


def ignored_classes(model: keras.Model) -> tuple[IgnoredClass, ...]:
    """The class numbers that the losses of a compiled model leave out, with their outputs."""
    given = getattr(model, "loss", None)
    if given is None:
        return ()
    found = []
    losses, outputs = tree.flatten(given), list(getattr(model, "outputs", None) or ())
    for index, loss in enumerate(losses):
        number = getattr(loss, "ignore_class", None)
        if number is not None:
            matched = len(outputs) == len(losses) and outputs[index].shape
            found.append(IgnoredClass(int(number), matched[-1] if matched else None))
    return tuple(found)
