"""`as_task`: what a search has made of tasks of KerasHub becomes a task again."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from saikei.errors import EditError, ModelError
from saikei.graph.compiling import compiled_as
from saikei.hub.family import as_family, carry_over, family_of
from saikei.hub.generating import as_generator


@dataclass(frozen=True)
class TaskResult:
    """A model that was made from tasks of KerasHub.

    Args:
        model: An instance of the class of one of the tasks, or a task that generates with a cache,
            or a plain model.
        kind: The name of the class, or `"plain Keras model"`.
        reason: Why it is of that kind, in sentences that a report shows.
    """

    model: keras.Model
    kind: str
    reason: str

    @property
    def of_family(self) -> bool:
        """Whether it is of a class of KerasHub, which can be saved and loaded as such."""
        return family_of(self.model) is not None


def as_task(model: keras.Model, originals: Sequence[keras.Model]) -> TaskResult | None:
    """A model as a task of the class of the one that it was made from, or one that generates.

    Args:
        model: A model that was made from some of the originals; or such a task from a file, which
            gets the sampler of the original and is compiled as it is.
        originals: What it may have been made from. It is compared with each that is of KerasHub.

    Returns:
        The task; `None` where no original is of KerasHub.
    """
    of_hub = [original for original in originals if family_of(original) is not None]
    if not of_hub:
        return None
    obstacle = ""
    for original in of_hub:
        try:
            made = model if family_of(model) is not None else as_family(model, original)
        except (EditError, ModelError) as error:
            obstacle = obstacle or str(error).rstrip(".")
        else:
            carry_over(original, made, compiled_as(original))
            return TaskResult(made, type(made).__name__, _of_class(made, original))
    with contextlib.suppress(ModelError):
        made = as_generator(model, of_hub[0])
        return TaskResult(
            made,
            type(made).__name__,
            f"best.keras is a plain Keras model without preprocessor and presets: {obstacle}. "
            "Result.best generates with a cache, and so does saikei.hub.as_generator(model, task) "
            "of the model in best.keras and the original task. To keep the class, search with "
            "uniform=True (--uniform).",
        )
    return TaskResult(
        model,
        "plain Keras model",
        f"best.keras is a plain Keras model without preprocessor and presets: {obstacle}.",
    )


def _of_class(made: keras.Model, original: keras.Model) -> str:
    old, new = (_config(model) for model in (original, made))
    sizes = ", ".join(f"{key}={value}" for key, value in new.items() if old.get(key) != value)
    return f"best.keras is a {type(made).__name__} with {sizes or 'the config of the original'}."


def _config(model: keras.Model) -> dict[str, int]:
    family = family_of(model)
    assert family is not None
    config = family.backbone.get_config()
    return {key: value for key, value in config.items() if isinstance(value, int)}
