"""Whether an exported file computes what the model computes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from keras import tree

from saikei.checks import check_inputs
from saikei.errors import ModelError, WorkError, in_one_line
from saikei.exporting.runtimes import Array, Run, operation_in
from saikei.graph import Graph, read
from saikei.graph.internals import declared_inputs
from saikei.graph.samples import random_inputs
from saikei.tensors import to_numpy

# Inputs as a model takes them, and what it gives for them, flattened.
Trial: TypeAlias = tuple[Any, list[Array]]
# Samples that a file is tried on, runs that are timed, and milliseconds that they may take.
ROWS, _RUNS, _MOST_MS = 4, 15, 1000
# For axes of unknown size: some networks halve them several times, or want a certain size.
_SIZES = (32, 64, 17, 96, 128, 224, 256)
# Rounding errors add up, and grow where sums cancel out.
_TOLERANCE = {"float64": 1e-4, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}


def trial(model: Any, data: Any = None, rows: int = ROWS) -> Trial:
    """Inputs, and the model's predictions for them.

    Args:
        model: A built model.
        data: Inputs as the model takes them, of which the first samples are used; `None` makes
            random ones.
        rows: Number of samples of the data that are used.

    Raises:
        ModelError: When the model itself cannot predict any made-up inputs.
        DataError: When the data does not fit the model.
    """
    if data is not None:
        check_inputs(model, data, "given")
        inputs = _as_taken(model, data, rows)
        return inputs, _predict(model, inputs)
    graph = read(model)
    open_axes = any(None in graph.spec(ref).shape[1:] for ref in graph.input_refs())
    first: Exception | None = None
    for size in _SIZES if open_axes else _SIZES[:1]:
        inputs = random_inputs(graph, ROWS, np.random.default_rng(0), size)
        try:
            return inputs, _predict(model, inputs)
        except Exception as error:  # noqa: BLE001
            # What a layer raises for sizes that it cannot take depends on the backend.
            first = first or error
    assert first is not None
    raise ModelError(
        f"Model '{model.name}' cannot predict made-up inputs ({in_one_line(first)}), by which its "
        "export would be checked: give inputs that it takes, with --data."
    ) from first


def _as_taken(model: Any, data: Any, rows: int) -> Any:
    """Inputs in the nesting and the types of the model's: a file's go by order and type."""
    taken = declared_inputs(model)
    if taken is None:
        return tree.map_structure(lambda one: np.asarray(one)[:rows], data)
    if isinstance(data, dict):
        # It may hold others besides, and be in another order.
        named = taken if isinstance(taken, dict) else {t.name: t for t in tree.flatten(taken)}
        flat = [data[name] for name in named]
        specs = list(named.values())
        order = [id(one) for one in tree.flatten(taken)]
        pairs = sorted(zip(flat, specs, strict=True), key=lambda pair: order.index(id(pair[1])))
    else:
        pairs = list(zip(tree.flatten(data), tree.flatten(taken), strict=True))
    return tree.pack_sequence_as(taken, [_typed(np.asarray(a)[:rows], one) for a, one in pairs])


def _typed(array: Array, tensor: Any) -> Array:
    known = tensor.dtype in ("float16", "float32", "float64") or "int" in tensor.dtype
    return array.astype(tensor.dtype) if known and array.dtype.kind in "biuf" else array


def _predict(model: Any, inputs: Any) -> list[Array]:
    outputs = model.predict_on_batch(inputs)
    return [to_numpy(one) for one in tree.flatten(outputs)]


def difference(run: Run, inputs: Any, wanted: Sequence[Array], graph: Graph, what: str) -> float:
    """The largest difference between the outputs of a runtime and of the model.

    Raises:
        WorkError: When the runtime cannot run the file, or gives other outputs.
    """
    try:
        outputs = run(inputs)
    # Each runtime has errors of its own.
    except Exception as error:
        raise unusable(error, f"{what} cannot run it") from error
    shapes = [[tuple(one.shape) for one in side] for side in (outputs, wanted)]
    if shapes[0] != shapes[1]:
        raise WorkError(f"{what} gives outputs of shapes {shapes[0]}, the model {shapes[1]}.")
    largest = 0.0
    for ours, theirs in zip(outputs, wanted, strict=True):
        if theirs.dtype.kind in "OSU":
            apart = 0.0 if (_texts(ours) == _texts(theirs)).all() else np.inf
            limit = 0.0
        else:
            apart, limit = _apart(ours, theirs), _limit(graph, theirs)
        if not np.isfinite(apart) and theirs.dtype.kind not in "OSU":
            raise WorkError(f"{what} gives NaN or infinite numbers where the model gives others.")
        if not apart <= limit:
            raise WorkError(
                f"{what} gives something else than the model: max|difference| {apart:.3g}, where "
                f"its precision allows {limit:.3g}."
            )
        largest = max(largest, apart)
    return largest


def milliseconds(run: Run, inputs: Any) -> float:
    """The median time of one sample; of the whole batch where the file takes no other.

    Args:
        run: Runs the file.
        inputs: Inputs that it has run on.
    """
    one = tree.map_structure(lambda leaf: leaf[:1], inputs)
    try:
        run(one)
    # A file for a batch of a fixed size; each runtime has errors of its own.
    except Exception:  # noqa: BLE001
        one = inputs
    times: list[float] = []
    while len(times) < _RUNS:
        started = time.perf_counter()
        run(one)
        times.append(1000 * (time.perf_counter() - started))
        if sum(times) > _MOST_MS:
            break
    return statistics.median(times)


def unusable(error: Exception, what: str) -> WorkError:
    """An error of a runtime, with the operation where it names one."""
    return WorkError(f"{what}: {operation_in(str(error)) or in_one_line(error)}.")


def _apart(ours: Array, theirs: Array) -> float:
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    apart = np.abs(a - b)[~same]
    return float(np.inf if np.isnan(apart).any() else apart.max())


def _limit(graph: Graph, wanted: Array) -> float:
    if wanted.dtype.kind in "biu":
        return 0.0
    finite = np.abs(wanted.astype(np.float64))
    scale = max(1.0, float(np.max(finite, initial=0.0, where=np.isfinite(finite))))
    return scale * max(_TOLERANCE[dtype] for dtype in precisions(graph))


def precisions(graph: Graph) -> set[str]:
    """The types of floats that a model computes in or keeps its weights in."""
    found = {"float32"}
    for operation in graph.operations.values():
        found.add(str(getattr(operation.source, "compute_dtype", "float32")))
    found |= {spec.dtype for call in graph.calls for spec in call.outputs}
    return found & set(_TOLERANCE)


def _texts(array: Array) -> Array:
    flat = [w.decode() if isinstance(w, bytes) else str(w) for w in array.reshape(-1)]
    return np.array(flat)
