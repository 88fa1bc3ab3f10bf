"""`Family`: the class of a KerasHub model, and the way from a cut graph back to that class."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import Any

import keras

from saikei.errors import EditError, ModelWarning
from saikei.graph import Graph, build, mark, read
from saikei.graph.compiling import Compiled
from saikei.graph.lineage import Marks
from saikei.hub.rebuild import rebuilt
from saikei.hub.widths import HEADS, HIDDEN, INNER


@dataclass(frozen=True)
class Family:
    """A task or a backbone of KerasHub.

    Args:
        model: The task (`keras_hub.models.Task`) or the backbone.
        backbone: Its backbone; the model itself where it is a backbone.
    """

    model: Any
    backbone: Any

    @property
    def name(self) -> str:
        """The name of the class."""
        return type(self.model).__name__

    def backbone_with(self, config: dict[str, Any]) -> Any:
        """A new backbone of the same class.

        Args:
            config: The arguments of the class.
        """
        return type(self.backbone).from_config(config)

    def with_config(self, config: dict[str, Any]) -> Any:
        """A new model of the same classes, with another config of the backbone.

        The preprocessor, which has no weights, is shared.

        Args:
            config: The arguments of the backbone's class.
        """
        backbone = self.backbone_with(config)
        if self.model is self.backbone:
            return backbone
        own = self.model.get_config()
        own |= {"backbone": backbone, "preprocessor": self.model.preprocessor}
        return type(self.model).from_config(own)


def family_of(model: Any) -> Family | None:
    """What a model is in KerasHub; `None` for any other model.

    KerasHub is not imported: where it was not, no model is of its classes.

    Args:
        model: Any object.
    """
    hub = sys.modules.get("keras_hub")
    if hub is None:
        return None
    if isinstance(model, hub.models.Task):
        return None if model.backbone is None else Family(model, model.backbone)
    return Family(model, model) if isinstance(model, hub.models.Backbone) else None


def is_task(model: Any) -> bool:
    """Whether an object is a task of KerasHub, also one that has no backbone.

    Args:
        model: Any object.
    """
    hub = sys.modules.get("keras_hub")
    return hub is not None and isinstance(model, hub.models.Task)


def as_family(model: keras.Model, original: keras.Model) -> keras.Model:
    """A model that was cut from a KerasHub model, as an instance of the original's class.

    Args:
        model: What an edit, `optimize` or `distill` has made of the original, perhaps loaded from
            a file: its layers have the names that they had.
        original: The task or backbone that it was made from. It is not changed.

    Returns:
        A new model of the original's class with a smaller config, with the same preprocessor,
        compiled as the original is.

    Raises:
        EditError: When the original is not of KerasHub, or its class cannot express the model:
            its blocks have different widths, or parts of blocks are missing.
    """
    family = family_of(original)
    if family is None:
        raise EditError(
            f"Model '{original.name}' is a {type(original).__name__}, not a task or backbone of "
            "KerasHub: only those have a class with a config that a smaller model can have."
        )
    return _rebuilt(family, read(original), read(model))


def built_as(original: keras.Model, before: Graph, after: Graph) -> keras.Model:
    """A model of an edited graph: of the original's class where it can be one, or a plain one.

    Args:
        original: The model that was edited.
        before: The graph of the original.
        after: The edited graph.

    Warns:
        ModelWarning: When the original is of KerasHub and its class cannot express the model, or
            it is a backbone whose channels were cut and whose width stays.
    """
    family = family_of(original)
    if family is not None:
        try:
            made = _rebuilt(family, before, after)
            _warn_of_width(family, made)
            return made
        except EditError as error:
            _warn_of_plain(original, error)
    return build(after, compiled=True)


def _warn_of_plain(original: keras.Model, problem: EditError) -> None:
    lost, fix = "", ""
    if hasattr(original, "generate"):
        lost, fix = "generate(), ", " Or generate with saikei.hub.as_generator(result, task)."
    warnings.warn(
        f"The result is a plain Keras model, without {lost}preprocessor and presets: "
        f"{problem}{fix}",
        ModelWarning,
        4,
    )


def _rebuilt(family: Family, before: Graph, after: Graph) -> keras.Model:
    made = rebuilt(family.name, family, before, after)
    carry_over(family.model, made, after.marks)
    return made


def _warn_of_width(family: Family, made: keras.Model) -> None:
    """Explain why the channels of a backbone were cut and its width was not."""
    if family.model is not family.backbone:
        return
    old, new = family.backbone.get_config(), made.get_config()
    width = next((name for name in HIDDEN if isinstance(old.get(name), int)), None)
    cut = [name for name in (*INNER, *HEADS) if old.get(name) != new.get(name)]
    if width is not None and cut and old[width] == new[width]:
        warnings.warn(
            f"The backbone '{family.model.name}' keeps its width ({width}={old[width]}), which is "
            "that of its output: cut the task that it is the backbone of, with its head.",
            ModelWarning,
            5,
        )


def carry_over(original: Any, made: Any, marks: Marks) -> None:
    """Give a rebuilt model what is neither config nor weights: how it is compiled, its history.

    Args:
        original: The task or backbone that it was made from, whose sampler it gets.
        made: The rebuilt model.
        marks: How it is to be compiled, and its history.
    """
    mark(made, [one for one in marks if not isinstance(one, Compiled)])
    sampler = getattr(original, "sampler", None)
    for one in marks:
        if isinstance(one, Compiled):
            one.compile(made)
    if sampler is not None and hasattr(made, "sampler"):
        made.sampler = sampler
