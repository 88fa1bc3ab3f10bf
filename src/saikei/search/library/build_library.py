"""`build_library`: measure every option of a model, without training."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.calibration.affordable import LIMIT
from saikei.calibration.samples import calibration_inputs
from saikei.channels import ChannelMap, map_channels
from saikei.checks import input_count
from saikei.codec import from_jsonable, to_jsonable
from saikei.costs import call_macs, count_costs
from saikei.data import gathered
from saikei.edits.base import Edit, edit_classes, read_with_sizes
from saikei.edits.options import Option
from saikei.errors import InputError
from saikei.executors import Executor, Inline, TaskFailure
from saikei.graph import Graph
from saikei.reading import read_json
from saikei.scoring import infer_tasks
from saikei.scoring.observed import counted_labels
from saikei.scoring.predictions import predict_all
from saikei.search.library.divergence import unit_of
from saikei.search.library.library import LeftOut, Library, Measured
from saikei.search.library.measure import Shared, SiteResult, SiteTask, measure_site
from saikei.search.library.nearby import LAYERS, layers_to_refit
from saikei.search.library.together import one_by_one, with_new_layers
from saikei.writing import write_text

# Rows that losses are measured on, and rows that layers are refitted on.
ROWS, FEWEST, FIT, FEWEST_FIT = 1024, 16, 512, 64
# Work that a library may take, ranking channels aside: rows that the whole model computes, or
# multiply-accumulates where those are more.
PASSES, MACS = 5_000, 1e11
# Options of one task, and tasks of a library where there are few options.
MOST, TASKS = 48, 8
# Share of the calls that a refit of the nearest layers computes, on average, and of the work that
# refits may take, of these and of all layers.
NEARBY = 0.1
FIT_SHARE, FIT_SHARE_OF_ALL = 0.1, 0.4

Progress = Callable[[int, int], None]
PARTS = "library"


def build_library(
    model: keras.Model,
    data: Any,
    held_out: Any,
    methods: Sequence[type[Edit]] | None = None,
    *,
    executor: Executor | None = None,
    folder: Path | None = None,
    loss: Any = None,
    progress: Progress | None = None,
) -> Library:
    """Measure every option of a model alone: applied, refitted, compared with the original.

    Nothing is trained. An option that cannot be applied is left out, with the reason.

    Args:
        model: The original, a built model; it is not changed.
        data: What channels are ranked by and layers are refitted on: what `keras.Model.fit` takes.
        held_out: `(x, y)` or `(x, y, sample_weight)` that the losses are measured on, arrays or a
            dataset; other samples than in `data`. Up to 1,024 rows are used, fewer of large
            models, so that the work stays within about 5,000 rows through the whole model.
        methods: The edits whose options are measured; `None` for all that are imported.
        executor: Runs the measurements; `None` for this process.
        folder: An existing folder for finished parts and the result, `library.json`; what is
            finished there is read and not measured again. `None` keeps nothing.
        loss: A Keras loss, one for each output; `None` as for `saikei.scoring.infer_tasks`.
        progress: Called with the number of options that are measured, and of those that will be as
            far as is known: after each option alone come some of them together.

    Raises:
        DataError: When the data does not fit the model.
        InputError: When no option can be applied.
    """
    graph = read_with_sizes(model, data)
    channel_map = map_channels(graph)
    options = options_of(graph, data, methods)
    if not options:
        raise InputError(f"No method offers any option for model '{model.name}': give others.")
    shared = shared_for(model, channel_map, data, held_out, options, loss)
    measuring = _Measuring(shared, executor or Inline(), folder, progress)
    results = measuring.measure([(option,) for option in options])
    entries = tuple(one for one in results if isinstance(one, Measured))
    library = Library(
        entries=entries,
        left_out=tuple(one for one in results if isinstance(one, LeftOut)),
        depth=one_by_one(measuring.measure, entries),
        pairs=with_new_layers(measuring.measure, graph, entries),
        original=count_costs(channel_map),
        rows=len(tree.flatten(shared.inputs)[0]) - shared.fit,
        unit=unit_of(shared.tasks),
        passes=measuring.passes,
    )
    if folder is not None:
        library.save(folder)
    return library


def options_of(
    graph: Graph, data: Any, methods: Sequence[type[Edit]] | None = None
) -> list[Option]:
    """All options by the position of their first layer in the model, those of a site together.

    Args:
        graph: The graph of the model.
        data: As in `build_library`.
        methods: As in `build_library`.
    """
    kinds = edit_classes().values() if methods is None else methods
    options = [option for kind in kinds for option in kind.options(graph, data)]
    position: dict[str, int] = {}
    for index, call in enumerate(graph.calls):
        position.setdefault(call.operation, index)
    first: dict[str, int] = {}
    for option in options:
        index = min((position.get(name, 0) for name in option.layers), default=0)
        first[option.site] = min(index, first.get(option.site, index))
    return sorted(options, key=lambda option: (first[option.site], option.site))


def shared_for(
    model: keras.Model,
    channel_map: ChannelMap,
    data: Any,
    held_out: Any,
    options: Sequence[Option],
    loss: Any = None,
) -> Shared:
    """What the measurements of some options share: rows as many as their work allows.

    Args:
        model: As in `build_library`.
        channel_map: The graph of the model with its channels.
        data: As in `build_library`.
        held_out: As in `build_library`.
        options: All options that are measured.
        loss: As in `build_library`.
    """
    graph = channel_map.graph
    rows, fit = _row_counts(channel_map, options)
    whole = gathered(held_out, "held-out", inputs=input_count(model))
    chosen = np.arange(len(whole))
    if len(chosen) > rows:
        chosen = np.sort(np.random.default_rng(0).choice(len(chosen), rows, replace=False))
    held = whole.take(chosen)
    predicted = predict_all(model, held.parts)
    tasks = infer_tasks(model, whole.y, loss)
    labels = counted_labels(model, tasks, predicted)
    fitted = calibration_inputs(graph, data, fit)
    measured = calibration_inputs(graph, held.x, len(held))
    return Shared(
        model=model,
        sizes=graph.sizes,
        inputs=tree.map_structure(_joined, fitted, measured),
        fit=len(tree.flatten(fitted)[0]),
        tasks=tasks,
        labels=labels,
    )


def _joined(fitted: Any, measured: Any) -> Any:
    if fitted.shape[1:] != measured.shape[1:]:
        raise InputError(
            f"The data has samples of shape {fitted.shape[1:]}, and the held-out data of "
            f"{measured.shape[1:]}: give both in one shape."
        )
    return np.concatenate([fitted, measured])


def _row_counts(channel_map: ChannelMap, options: Sequence[Option]) -> tuple[int, int]:
    """How many rows losses are measured on, and how many layers are refitted on.

    As many as the work that a library may take allows, and as memory holds.
    """
    graph = channel_map.graph
    macs = [call_macs(channel_map, index) or 0 for index in range(len(graph.calls))]
    whole = max(1, sum(macs))
    behind = {call.operation: sum(macs[index:]) / whole for index, call in enumerate(graph.calls)}
    shares = [max((behind.get(n, 0.0) for n in option.layers), default=1.0) for option in options]
    passes = max(PASSES, MACS / whole)
    # Each task runs the original up to its last change; blocks are tried about twice.
    tasks = len(list(_chunks(options)))
    every = layers_to_refit(graph) != LAYERS
    fit_work = (sum(shares) if every else NEARBY * len(options)) + tasks
    fit_share = FIT_SHARE_OF_ALL if every else FIT_SHARE
    fit = int(min(FIT, max(FEWEST_FIT, fit_share * passes / fit_work)))
    work = sum(shares) + tasks + 2 * sum(option.edit.one_by_one for option in options)
    rows = int(min(ROWS, max(FEWEST, (passes - fit * fit_work) / work)))
    largest = max(sum(s.bytes_per_sample() for s in call.outputs) for call in graph.calls)
    most = max(FEWEST, LIMIT // (6 * max(1, largest)))
    return min(rows, most), min(fit, most)


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    size = min(MOST, max(1, math.ceil(len(items) / TASKS)))
    for start in range(0, len(items), size):
        yield items[start : start + size]


@dataclass
class _Measuring:
    """Runs tasks, and keeps what is finished in a folder."""

    shared: Shared
    executor: Executor
    folder: Path | None
    progress: Progress | None
    total: int = 0
    finished: int = 0
    passes: float = 0.0

    def measure(self, choices: Sequence[tuple[Option, ...]]) -> list[Measured | LeftOut]:
        self.total = self.finished + len(choices)
        tasks = [SiteTask(tuple(chunk)) for chunk in _chunks(choices)]
        results = [self._stored(task) for task in tasks]
        missing = [number for number, result in enumerate(results) if result is None]

        def done(index: int, result: SiteResult | TaskFailure) -> None:
            task = tasks[missing[index]]
            if isinstance(result, SiteResult):
                self._store(task, result)
            self._count(task)

        for task, result in zip(tasks, results, strict=True):
            if result is not None:
                self._count(task)
        if missing:
            given = [tasks[number] for number in missing]
            made = self.executor.run(measure_site, self.shared, given, done)
            for number, one in zip(missing, made, strict=True):
                results[number] = (
                    _failed(tasks[number], one) if isinstance(one, TaskFailure) else one
                )
        found = [result for result in results if result is not None]
        self.passes += sum(result.passes for result in found)
        return [one for result in found for one in result.measured]

    def _count(self, task: SiteTask) -> None:
        self.finished += len(task.choices)
        if self.progress is not None:
            self.progress(self.finished, self.total)

    def _path(self, task: SiteTask) -> Path | None:
        if self.folder is None:
            return None
        shape = [list(leaf.shape) for leaf in tree.flatten(self.shared.inputs)]
        key = json.dumps([to_jsonable(task.choices), self.shared.fit, shape])
        return self.folder / PARTS / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

    def _stored(self, task: SiteTask) -> SiteResult | None:
        """What a folder holds of a task; `None` where it is not finished, or damaged."""
        path = self._path(task)
        if path is None or not path.is_file():
            return None
        try:
            stored = from_jsonable(_Stored, read_json(path, "The part of a library"))
        except InputError:
            return None
        measured: list[Measured | LeftOut] = [*stored.left_out]
        for number, entry in zip(stored.numbers, stored.measured, strict=True):
            measured.insert(number, entry)
        return SiteResult(tuple(measured), stored.passes)

    def _store(self, task: SiteTask, result: SiteResult) -> None:
        path = self._path(task)
        if path is None:
            return
        pairs = [(n, one) for n, one in enumerate(result.measured) if isinstance(one, Measured)]
        stored = _Stored(
            numbers=tuple(number for number, _ in pairs),
            measured=tuple(entry for _, entry in pairs),
            left_out=tuple(one for one in result.measured if isinstance(one, LeftOut)),
            passes=result.passes,
        )
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps(to_jsonable(stored), indent=1))


@dataclass(frozen=True)
class _Stored:
    """A finished task as JSON holds it: which of its choices were measured, and the others."""

    numbers: tuple[int, ...]
    measured: tuple[Measured, ...]
    left_out: tuple[LeftOut, ...]
    passes: float


def _failed(task: SiteTask, failure: TaskFailure) -> SiteResult:
    return SiteResult(tuple(LeftOut(c[-1], failure.reason) for c in task.choices), 0.0)
