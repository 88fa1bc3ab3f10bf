"""`optimize`: search for the best model within a budget."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

from saikei.arguments import checked
from saikei.budget import Budget
from saikei.calibration.samples import calibration_samples
from saikei.errors import BudgetError
from saikei.graph import read
from saikei.runs.record import Decision, Run, RunSettings
from saikei.scoring.observed import held_out
from saikei.search.averages import KEPT
from saikei.search.conclude import SearchResults, Session, complete_run, conclude, write_run
from saikei.search.execute import RunContext
from saikei.search.fingerprint import data_hash, model_hash, settings_hash
from saikei.search.folder import RunFolder, locked
from saikei.search.gauge import Gauge
from saikei.search.make_averages import make_averages
from saikei.search.originals import (
    Originals,
    check_reachable,
    choose_teacher,
    custom_objects,
    measure_originals,
    name_models,
    store_originals,
)
from saikei.search.plan import Effort, at_least, batch_size_for
from saikei.search.progress import SearchProgress
from saikei.search.result import Result
from saikei.search.space import first_points
from saikei.search.splits import SearchData, search_data
from saikei.search.trials import run_trials
from saikei.search.unlabelled import with_labels


@checked
def optimize(
    models: keras.Model | Sequence[keras.Model],
    train: Any,
    validation: Any = None,
    budget: Budget | None = None,
    *,
    test: Any = None,
    out: str | Path | None = None,
    trials: int | None = None,
    epochs: int = 15,
    batch_size: int | None = None,
    seed: int = 0,
    latency: bool = True,
    progress: bool = True,
    metric: Any = None,
) -> Result:
    """Find the best model within a budget.

    Prunes the given models to several shares of the budget and distils each. As a rival, trains
    the same structure from fresh weights for as many epochs. Averages candidates that fit the
    budget together. Of all candidates within one standard error of the best on validation, takes
    the simplest.

    Args:
        models: One trained `keras.Model`, or several with the same inputs and outputs. They are
            not changed.
        train: Training data as for `keras.Model.fit`: `(x, y)` arrays or a dataset. Without labels
            (`x`, or a dataset of inputs, which is read into memory) the predictions of the one
            model take their place, here and in `validation` and `test`.
        validation: Data in the same forms that every choice is made on, so it should not be data
            that the models were trained on. `None` holds out a fifth of `train`, which must then
            be arrays.
        budget: Limits on the costs of the result. Shares are relative to the given model that is
            best on validation.
        test: Data that the original and the chosen model are scored on once, after the choice.
        out: Folder of the run. If it holds the same run, stopped or finished, the call continues
            it; only an unfinished candidate is made again. `None` uses a temporary folder.
        trials: Number of architectures to try; for each, a pruned model and its rival are trained.
            `None`: 4 for one model, 3 n + 1 for n models.
        epochs: Epochs of each training.
        batch_size: Batch size of each training; a dataset has its own. `None`: the largest of 128,
            64, 32 and 16 that gives at least 60 steps an epoch, or 16.
        seed: Seed of everything random.
        latency: Whether to measure the latency, the median time of a batch; MACs, parameters
            and memory are always counted. Models that take inputs of any size are measured at the
            size of the data.
        progress: Whether to show progress bars.
        metric: Metric to choose by and report, such as `"auc"`, `"f1"` or `"balanced_accuracy"`;
            see `evaluate`. `None` takes the accuracy, or the squared error for regression.

    Returns:
        The model to ship with its front, candidates and report.

    Raises:
        BudgetError: If no model within the budget can be reached; raised before any training.
        DataError: If the data does not fit the models.
        FusionError: If several models do not have the same inputs and outputs.
        DiskError: If `out` cannot be written to; the same call continues later.
        InputError: If `out` holds another run, another process is running in it, or an argument is
            out of range.
        WorkError: If every training diverges, or no result keeps a limit on latency.
    """
    if budget is None:
        raise BudgetError(
            "optimize needs a budget: give one, for example budget=Budget(macs=0.25)."
        )
    if budget.latency is not None and not latency:
        raise BudgetError(
            f"The budget '{budget}' limits the latency, which is not measured with latency=False: "
            "omit that, or limit macs or params."
        )
    named = name_models(models)
    custom = custom_objects(named)
    trials = at_least("trials", len(first_points(list(named))) if trials is None else trials, 1)
    effort = Effort(epochs, batch_size, seed)
    labelled = with_labels(named, train, validation, test)
    data = search_data(named, *labelled.parts, seed)
    effort = replace(effort, batch_size=_batch_size(batch_size, data))
    fingerprint = {
        "model": model_hash(list(named.values())),
        "data": data_hash([data.train, data.validation, data.test]),
        "settings": _settings_hash(budget, trials, epochs, batch_size, seed, latency, metric),
        "backend": keras.backend.backend(),
    }
    with _path_of(out) as path:
        folder = RunFolder(path, custom)
        folder.check(fingerprint)
        noted = () if labelled.decision is None else (labelled.decision,)
        if folder.finished_run(fingerprint) is None:
            with locked(path):
                # Another process may have started another run meanwhile.
                folder.check(fingerprint)
                settings = trials, effort, latency, progress, metric, noted
                _search(named, data, budget, folder, fingerprint, *settings)
        run = Run.load(path)
        complete_run(run, folder)
        result = Result(folder.load(folder.best), run, path)
    if out is None:
        weakref.finalize(result, shutil.rmtree, path, ignore_errors=True)
    return result


def _settings_hash(*settings_and_metric: Any) -> str:
    *settings, metric = settings_and_metric
    budget, *others = settings
    # The default metric leaves the hash as it is.
    named = [] if metric is None else [getattr(metric, "name", None) or str(metric)]
    return settings_hash([budget.to_dict(), *others, *named])


def _search(
    models: Mapping[str, keras.Model],
    data: SearchData,
    budget: Budget,
    folder: RunFolder,
    fingerprint: Mapping[str, str],
    trials: int,
    effort: Effort,
    latency: bool,
    progress: bool,
    metric: Any,
    noted: tuple[Decision, ...],
) -> None:
    """Run the search and write its record to the folder."""
    clock = time.perf_counter()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    first = next(iter(models.values()))
    judge = held_out(first, data.validation, metric)
    # Made now to check its labels before hours of training.
    test = None if data.test is None else held_out(first, data.test, metric)
    with SearchProgress(len(models) + 2 * trials + 2 + KEPT, progress) as bars:
        bars.working_on("measuring the given models")
        calibration = _calibration(first, data.train)
        gauge = Gauge.of(models.values(), calibration, latency, budget.batch_size)
        originals = measure_originals(models, judge, budget, folder, gauge)
        check_reachable(originals, budget, calibration)
        teacher = choose_teacher(originals, judge)
        folder.begin(fingerprint)
        store_originals(originals, folder)
        for candidate in originals.candidates:
            bars.done(candidate.name)
        context = RunContext(
            originals=models,
            whole=originals.baseline.cost,
            teacher=teacher.model,
            teacher_name=teacher.name,
            train=data.train,
            validation=data.validation,
            calibration=calibration,
            judge=judge,
            budget=budget,
            folder=folder,
            gauge=gauge,
        )
        decisions = (*noted, teacher.decision)
        results, earlier = _make_candidates(context, originals, decisions, trials, effort, bars)
        bars.working_on("deciding")
        sizes = gauge.sizes(originals.models[originals.baseline.name])
        settings = _settings(budget, originals, trials, effort, sizes)
        session = Session(settings, data.samples, fingerprint, started)
        run = conclude(results, context, session, test)
        write_run(replace(run, seconds=time.perf_counter() - clock + earlier), context)
        bars.finish()


def _make_candidates(
    context: RunContext,
    originals: Originals,
    decisions: tuple[Decision, ...],
    trials: int,
    effort: Effort,
    bars: SearchProgress,
) -> tuple[SearchResults, float]:
    """Run the trials and make the averages.

    Returns:
        All candidates, and the seconds of training in earlier sessions.
    """
    tried = run_trials(context, trials, effort, bars)
    bars.working_on("averaging")
    candidates = (*originals.candidates, *tried.candidates)
    outputs = {c.name: context.folder.outputs(c.name) for c in candidates}
    averages = make_averages(candidates, outputs, context, effort.seed)
    results = SearchResults(
        candidates=(*candidates, *averages.candidates),
        outputs={**outputs, **averages.outputs},
        decisions=(*decisions, *tried.decisions, averages.decision),
        baseline=originals.baseline,
    )
    return results, tried.earlier


def _calibration(model: keras.Model, train: Any) -> Any:
    """The data that candidates are cut by and refitted to.

    A dataset may have another order in each pass, so samples of one pass are used for all.
    """
    if isinstance(train, tuple):
        return train
    samples = calibration_samples(read(model), train)
    return samples.inputs, samples.labels


def _settings(
    budget: Budget,
    originals: Originals,
    trials: int,
    effort: Effort,
    sizes: Mapping[str, tuple[int, ...]],
) -> RunSettings:
    return RunSettings(
        budget=budget.to_dict(),
        limits=budget.limits(originals.baseline.cost),
        trials=trials,
        epochs=effort.epochs,
        batch_size=effort.batch_size,
        seed=effort.seed,
        sizes=sizes,
    )


def _batch_size(given: int | None, data: SearchData) -> int | None:
    if not isinstance(data.train, tuple):
        return None
    return batch_size_for(data.samples["train"]) if given is None else given


@contextmanager
def _path_of(out: str | Path | None) -> Iterator[Path]:
    """The folder of the run; a temporary one is removed if the run fails."""
    if out is not None:
        yield Path(out)
        return
    path = Path(tempfile.mkdtemp(prefix="saikei-"))
    try:
        yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
