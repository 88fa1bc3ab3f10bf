"""What a report shows of measurements: the curves of the library, and latencies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keras

from saikei.costs import measure_latency
from saikei.errors import SaikeiError
from saikei.exporting import ENDINGS, export_model
from saikei.exporting.check import milliseconds, trial
from saikei.exporting.runtimes import open_litert
from saikei.runs.details import Sensitivity, SiteCurve, Timed
from saikei.runs.record import Run
from saikei.search.folder import RunFolder
from saikei.search.library import Library
from saikei.writing import draft_folder

# Costs that a library saves.
SAVED = ("macs", "params", "bytes")
# Batches whose latency is measured, if their activations take less than so many bytes.
_BATCHES, _MEMORY = (1, 32, 256), 2**31
# Formats of the files that are timed for a report, and what runs them.
_FILES = {"litert": "LiteRT", "onnx": "ONNX Runtime"}


def sensitivity_of(run: Run, folder: RunFolder) -> Sensitivity | None:
    """What the options of each layer or block lose, of the first original that has a library."""
    axis = run.cost_axis if run.cost_axis in SAVED else "macs"
    for name in sorted(run.library, key=lambda one: one != run.baseline):
        try:
            library = Library.load(folder.library(name))
        except SaikeiError:
            continue
        return Sensitivity(name, axis, library.unit, tuple(_curves(library, axis)))
    return None


def _curves(library: Library, axis: str) -> Iterator[SiteCurve]:
    whole = max(1, getattr(library.original, axis))
    for site, entries in library.sites.items():
        saving = sorted(
            (one for one in entries if getattr(one.costs, axis) < whole),
            key=lambda one: -getattr(one.costs, axis),
        )
        if saving:
            yield SiteCurve(
                site,
                saving[0].option.method,
                tuple((1 - getattr(one.costs, axis) / whole, float(one.loss)) for one in saving),
                tuple(one.option.change for one in saving),
            )


def measures_time(run: Run) -> bool:
    """Whether latencies belong to the run: they are left out where it measured none."""
    return run.candidate(run.baseline).cost.latency is not None


def times_of(run: Run, folder: RunFolder) -> tuple[Timed, ...]:
    """Latencies of the original, of the model to ship and of its int8 file."""
    if not measures_time(run):
        return ()
    shipped = folder.load(folder.best)
    models = {run.baseline: folder.model(run.baseline), run.chosen: shipped}
    found = [Timed(name, times) for name, model in models.items() if (times := _times(run, model))]
    if folder.best_int8.is_file():
        time = milliseconds(open_litert(folder.best_int8, shipped), trial(shipped)[0])
        note = _size(folder.best_int8)
        found.append(Timed(f"{run.chosen}, LiteRT", ((1.0, time),), note=note))
    return tuple(found)


def file_times(run: Run, folder: RunFolder) -> tuple[Timed, ...]:
    """Times of one sample in the files that the original and the model to ship are exported to.

    A format whose runtime is not installed, or that a model cannot be exported to, has the reason.
    """
    models = {run.baseline: folder.model(run.baseline), run.chosen: folder.load(folder.best)}
    found = []
    with draft_folder(folder.path) as drafts:
        for name, model in models.items():
            for to, runtime in _FILES.items():
                path = drafts / f"{name}{ENDINGS[to]}"
                times: tuple[tuple[float, float], ...] = ()
                try:
                    times = ((1.0, export_model(model, path, to).milliseconds),)
                    note = _size(path)
                except SaikeiError as error:
                    note = str(error)
                found.append(Timed(f"{name}, {runtime} (float32)", times, True, note))
    return tuple(found)


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes"


def _times(run: Run, model: keras.Model) -> tuple[tuple[float, float], ...]:
    """For each size of a batch that memory holds, the latency; none for a cascade."""
    memory = run.candidate(run.baseline).cost.memory
    batches = [n for n in _BATCHES if n == 1 or n * memory < _MEMORY]
    sizes = run.settings.sizes
    try:
        return tuple((float(n), measure_latency(model, n, 10, 0.5, sizes)) for n in batches)
    # A cascade takes longer for some rows than for others.
    except SaikeiError:
        return ()
