"""`optimize`: search for the best model within a budget."""

from __future__ import annotations

import shutil
import tempfile
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from saikei.arguments import checked
from saikei.budget import Budget
from saikei.edits import Edit
from saikei.errors import BudgetError, InputError, ModelWarning
from saikei.executors import executor_for, thread_count
from saikei.hub import as_task, family_of, task_data, without_preprocessor
from saikei.limits import EPOCHS, check_seed, check_whole
from saikei.modelfile import load_model
from saikei.runs.front import cost_axis
from saikei.runs.record import Run
from saikei.search.board import Board
from saikei.search.conclude import Session, complete_run
from saikei.search.events import Events, Listener
from saikei.search.fingerprint import data_hash, model_hash, settings_hash
from saikei.search.folder import RunFolder, compiled_like, locked
from saikei.search.listeners import listeners
from saikei.search.methods import methods_named
from saikei.search.originals import custom_objects, name_models
from saikei.search.pipeline import Asked, Pipeline
from saikei.search.race import DEFAULT_EFFORT
from saikei.search.result import Result
from saikei.search.splits import search_data
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
    methods: Sequence[str | type[Edit]] | None = None,
    effort: int = DEFAULT_EFFORT,
    settings: Mapping[str, Any] | None = None,
    rivals: bool = True,
    repeats: int = 1,
    uniform: bool = False,
    seed: int = 0,
    latency: bool = True,
    metric: Any = None,
    class_names: Sequence[str] | None = None,
    workers: int | None = None,
    ray: str | None = None,
    progress: bool = True,
    events: Listener | str | Path | Sequence[Listener | str | Path] | None = None,
) -> Result:
    """Find the best model within a budget.

    Measures what every edit of every place in the model loses and saves, and combines edits into
    structures that keep the budget. Trains these from the weights that are left and from fresh
    ones, each with the given model as teacher, and goes on with those that add most. Fuses what was
    trained where that keeps the budget, and teaches one network what several predict together. Of
    all candidates within one standard error of the best on validation, takes the simplest: the one
    with the fewest models and fitted numbers, and of several such the best.

    Args:
        models: One trained `keras.Model`, or several with the same outputs. They are not changed.
            Several may read different inputs, each with a name of its own: `x` is then a
            dictionary of arrays by these names, and fused models take one too.
            Tasks of KerasHub may be given with data as their preprocessors take it. The result is a
            task of the same class where its config can express it: the same width in all blocks.
            A language model of another shape is a task that generates with a cache, see
            `saikei.hub.as_generator`; its file `best.keras` then holds a plain model. `uniform`
            keeps the class.
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
            it; only unfinished parts are made again. `None` uses a temporary folder.
        methods: The edits and fusions that take part: words such as `"prune"`, `"activation"` and
            `"cascade"`, and classes of your own derived from `Edit`. `None` for all.
        effort: Total number of epochs of all trainings. A tenth of them teaches the best network
            what several predict together; where no limit of the budget is below what the original
            costs, two thirds (a third beside rivals) train the original on in this way. Of the
            others, 80 % are whole trainings of one to three finalists, and the first epochs of
            other candidates find these.
        rivals: Whether the winner's structure is also trained from fresh weights, for the winner's
            epochs and for those of all candidates together, to see whether its weights were worth
            keeping; the better one ships. They take about half of the epochs: without them, the
            winner is trained about twice as long.
        repeats: How often the winner is trained, each time with another seed, to report the mean
            and an interval. Its epochs come in addition to `effort`.
        uniform: Whether only structures are tried that keep the same share of every layer, and
            whole heads of attention, with all blocks or fewer. Tasks of KerasHub then stay of their
            class, with presets and LoRA. Of the methods, `"prune"` and `"remove_layers"` make such
            structures; with `methods=None` no others take part.
        settings: Training settings by name, such as `{"learning_rate": (1e-4, 1e-2),
            "batch_size": [32, 64], "temperature": 2.0}`: a tuple is a range, a list holds choices,
            and one value is fixed; the other settings get the usual values. The names are those of
            `saikei.training.TrainingSettings`.
        seed: Seed of everything random.
        latency: Whether to measure the latency, the median time of a batch; MACs, parameters,
            bytes and memory are always counted. Models that take inputs of any size are measured
            at the size of the data.
        metric: Metric to choose by and report, such as `"auc"`, `"f1"` or `"balanced_accuracy"`;
            see `evaluate`. `None` takes the accuracy, or the squared error for regression. Of a
            language model, whose output has a class for each entry of its embedding at each
            position, it takes `"nats"`, the mean log-loss of a token: most changes of a model move
            the probabilities of tokens without another token becoming the likeliest.
        class_names: Names of the classes in the order of their numbers, for the report; `None`
            shows the numbers.
        workers: Number of processes on this machine that train candidates; `None` trains them in
            this process. The result is the same.
        ray: Address of a Ray cluster that trains candidates, `"auto"` for the one of this machine;
            see the documentation on clusters. The result is the same.
        progress: Whether to show the progress.
        events: A function that gets every event of the search as a `saikei.search.Event`, the
            path of a file to which each is appended as a line of JSON, or a list of both.
            `saikei.search.tensorboard(folder)` and `saikei.search.mlflow()` make such functions.

    Returns:
        The model to ship with its front, candidates and report.

    Raises:
        BudgetError: If no model within the budget can be reached; raised before any training.
        DataError: If the data does not fit the models.
        FusionError: If several models do not have the same outputs, or have different inputs
            without names.
        DiskError: If `out` cannot be written to; the same call continues later.
        InputError: If `out` holds another run, another process is running in it, or an argument is
            out of range.
        KeyboardInterrupt: If the run was interrupted. The folder then holds a report of what is
            there, and the same call continues.
        WorkError: If every training diverges, or no result keeps a limit on latency.
    """
    _check_budget(budget, latency)
    assert budget is not None
    check_whole("effort", effort, 3, EPOCHS, InputError)
    check_whole("repeats", repeats, 1, kind=InputError)
    check_seed(seed, InputError)
    tasks = list(models) if isinstance(models, (list, tuple)) else [models]
    named = name_models(without_preprocessor(models))
    train, validation, test = (
        task_data(tasks[0], part, name)
        for part, name in ((train, "train"), (validation, "validation"), (test, "test"))
    )
    asked = Asked(
        budget=budget,
        methods=methods_named(
            ["prune", "remove_layers"] if uniform and methods is None else methods
        ),
        effort=effort,
        settings=dict(settings or {}),
        seed=seed,
        latency=latency,
        metric=metric,
        rivals=rivals,
        repeats=repeats,
        uniform=uniform,
    )
    executor = executor_for(workers, ray)
    own = listeners(events)
    board = Board(effort, progress, cost_axis(budget), workers or 1)
    custom = custom_objects(named)
    labelled = with_labels(named, train, validation, test)
    data = search_data(named, *labelled.parts, seed)
    fingerprint = {
        "model": model_hash(list(named.values())),
        "data": data_hash([data.train, data.validation, data.test]),
        "settings": settings_hash(asked.values()),
        "backend": keras.backend.backend(),
        "threads": str(thread_count()),
    }
    with _path_of(out) as path:
        folder = RunFolder(path, custom)
        folder.check(fingerprint)
        if folder.finished_run(fingerprint) is None:
            new = not path.exists() or not any(path.iterdir())
            with locked(path), board:
                # Another process may have started another run meanwhile.
                folder.check(fingerprint)
                session = Session.begun(
                    data.samples, fingerprint, labelled.decision, class_names, tasks
                )
                try:
                    shown = Events((board, *own))
                    Pipeline(named, data, folder, asked, executor, session, shown).run()
                except BudgetError:
                    # Refused before anything was trained: nothing is left behind.
                    if new:
                        shutil.rmtree(path, ignore_errors=True)
                    raise
        run = Run.load(path)
        complete_run(run, folder)
        best = _best(folder, tasks, [*named.values()])
        result = Result(best, run, path)
    if out is None:
        weakref.finalize(result, shutil.rmtree, path, ignore_errors=True)
    return result


def _best(
    folder: RunFolder, given: Sequence[keras.Model], models: Sequence[keras.Model]
) -> keras.Model:
    """The model to ship, as a task where a task was given and it can be one."""
    if not any(family_of(model) is not None for model in given):
        return compiled_like(models, folder.load(folder.best))
    stored = load_model(folder.best, folder.custom, compiled=False)
    plain = family_of(stored) is None
    made = as_task(compiled_like(models, stored) if plain else stored, given)
    assert made is not None
    if not made.of_family:
        warnings.warn(made.reason, ModelWarning, 3)
    return made.model


def _check_budget(budget: Budget | None, latency: bool) -> None:
    if budget is None:
        raise BudgetError(
            "optimize needs a budget: give one, for example budget=Budget(macs=0.25)."
        )
    if budget.latency is not None and not latency:
        raise BudgetError(
            f"The budget '{budget}' limits the latency, which is not measured with latency=False: "
            "omit that, or limit macs or params."
        )


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
