"""`export_family`: a model of KerasHub that was cut, in the class of its original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.errors import EditError, InputError, WorkError
from saikei.exporting.check import ROWS, difference, milliseconds
from saikei.exporting.export import Exported
from saikei.exporting.runtimes import Array
from saikei.graph import read
from saikei.graph.samples import random_inputs
from saikei.hub import as_family, family_of, without_preprocessor
from saikei.modelfile import check_model_target, load_model, save_model
from saikei.tensors import to_numpy
from saikei.writing import write_whole


def export_family(
    model: keras.Model,
    path: str | Path,
    original: keras.Model | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a model that was cut from one of KerasHub as a task or backbone of the same class.

    What is written is loaded again, and kept if it computes what the model computes.

    Args:
        model: The cut model, or a task or backbone; it is not changed.
        path: Path of the `.keras` file to write, or of the folder of a preset: a name without
            ending.
        original: The task or backbone that the model was cut from, whose class, preprocessor and
            sampler the result has; `None` for a model that is of KerasHub itself.
        overwrite: Whether an existing file or folder may be replaced.

    Raises:
        InputError: When the model is a plain one and there is no original, or the path cannot be
            written to.
        WorkError: When the class of the original cannot express the model.
    """
    path = check_model_target(path, overwrite)
    if family_of(model) is not None:
        made = model
    elif original is None:
        raise InputError(
            f"Model '{model.name}' is of no class of KerasHub: name the model that it was cut "
            "from, by --original or original=."
        )
    else:
        try:
            made = as_family(model, original)
        except EditError as error:
            raise WorkError(f"Model '{model.name}' cannot be exported to keras: {error}") from error
    plain = without_preprocessor(model)
    inputs = random_inputs(read(plain), ROWS, np.random.default_rng(0))
    wanted = _outputs(plain, inputs)
    found: list[float] = []

    def write(draft: Path) -> None:
        save_model(made, draft)
        written = without_preprocessor(load_model(draft))
        found.append(
            difference(lambda x: _outputs(written, x), inputs, wanted, read(plain), "Keras")
        )
        found.append(milliseconds(lambda x: _outputs(written, x), inputs))

    write_whole(path, write)
    apart, time = found
    return Exported(path, "keras", apart, "made-up", time)


def _outputs(model: keras.Model, inputs: Any) -> list[Array]:
    return [to_numpy(one) for one in tree.flatten(model.predict_on_batch(inputs))]
