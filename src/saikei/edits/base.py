"""What an edit is: a frozen value that, called with a model, gives a new model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import keras

from saikei.errors import EditError
from saikei.graph import Graph, build, read
from saikei.models import CascadeModel


class Edit(ABC):
    """A change of structure. Subclasses are frozen dataclasses with JSON-ready fields.

    Attributes:
        exact: whether the new model computes the same function as the old one.
    """

    exact: ClassVar[bool]

    @abstractmethod
    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The edited graph. Pure: the given graph is not changed.

        Args:
            graph: the graph to edit.
            data: calibration data, for edits that use it.

        Raises:
            EditError: when the edit cannot be applied, or would change nothing.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The edit's arguments, JSON-ready; `from_dict` of its class is the inverse."""

    def __call__(self, model: keras.Model, data: Any = None) -> keras.Model:
        """Edit a model.

        Args:
            model: a built Functional or Sequential model; it is not changed.
            data: calibration data, for edits that use it: what `keras.Model.fit` takes.

        Returns:
            A new, uncompiled model with the old weights carried over.

        Raises:
            ModelError: when the model cannot be read.
            EditError: when the edit cannot be applied, or would change nothing; for a cascade,
                whose exits would be lost.
        """
        if isinstance(model, CascadeModel):
            raise EditError(
                f"Model '{model.name}' is a cascade, and an edit would make one graph of it, in "
                "which all members run: edit its members (.members) and make a Cascade of them, "
                "with thresholds of their own; or edit copy_model(it), where all may run."
            )
        return build(self.apply(read(model), data))
