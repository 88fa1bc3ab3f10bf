"""`cross_fit`: predictions of every row by a model that was not trained on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.arguments import checked
from saikei.batches import Array, ArrayData
from saikei.checks import check_inputs, input_count
from saikei.data import gathered
from saikei.errors import FusionError, InputError
from saikei.for_each_output import flat_weights
from saikei.graph import read
from saikei.limits import check_seed
from saikei.scoring.inference import flat_labels, infer_tasks
from saikei.scoring.labels import Labels, count
from saikei.scoring.masks import shared_masks
from saikei.scoring.predictions import predict_all
from saikei.scoring.task import Task
from saikei.training.digests import Digests, digest_rows
from saikei.training.fit import fit
from saikei.training.folds import Fold, Indices, class_numbers, make_folds
from saikei.training.provenance import record_rows, rows_in_sample

Build = Callable[[], keras.Model]
Trainer = Callable[[keras.Model, tuple[Any, ...]], Any]

_PREDICT_BATCH = 256


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Models trained on folds, and their predictions for rows that they have not seen.

    Args:
        members: For each name, the models of the folds, in their order.
        predictions: For each name, one array `(rows, …)` for each output, flattened.
        folds: Which rows each was trained on and predicted, as indices into the data.
        rows: Indices into the data of the rows that were predicted, ascending. All of them, but
            for time-ordered folds, which never predict the first.
        fold_of: For each of `rows`, the number of the fold that predicted it, from 0.
        tasks: What each output learns.
        labels: The labels of `rows` for each output, with how much each of them counts.
        x: Inputs of `rows`, as the models take them.
        digests: The digests of `rows`; see `saikei.training.provenance`.
        refitted: For each name, a model that was trained on all rows, with `refit=True`.
    """

    members: Mapping[str, tuple[keras.Model, ...]]
    predictions: Mapping[str, tuple[Array, ...]] = field(repr=False)
    folds: tuple[Fold, ...] = field(repr=False)
    rows: Indices = field(repr=False)
    fold_of: Indices = field(repr=False)
    tasks: tuple[Task, ...]
    labels: tuple[Labels, ...] = field(repr=False)
    x: Any = field(repr=False)
    digests: Digests = field(repr=False)
    refitted: Mapping[str, keras.Model]


@checked
def cross_fit(
    build: Build | Mapping[str, Build],
    data: Any,
    folds: Any = 5,
    *,
    trainer: Trainer | None = None,
    groups: Any = None,
    refit: bool = False,
    seed: int = 0,
    **arguments: Any,
) -> CrossFit:
    """Train a model for each fold, on the other folds, and let it predict that fold.

    A fusion that is fitted on such out-of-fold predictions uses every row, and none that its
    member was trained on (Wolpert, "Stacked Generalization", 1992).

    Args:
        build: Gives a new model at each call, compiled or not; or a mapping from names to
            several of these, which are trained on the same folds.
        data: `(x, y)` or `(x, y, sample_weight)` arrays, or a dataset, which is gathered into
            memory. Weights count in the training and in every fit to the predictions.
        folds: A number, for shuffled folds that are stratified by class where labels are
            classes; a splitter of scikit-learn, such as `TimeSeriesSplit(5)`; or a list of pairs
            of index arrays `(train, test)`.
        trainer: A function that is called with a model and `(x, y)`, or `(x, y, sample_weight)`
            where there are weights, and trains the model in place; `None` takes `saikei.fit`, with
            its default learning rate.
        groups: One for each row; rows of one group are never divided.
        refit: Whether to train one more model of each on all rows. It takes the place of the
            folds' models in a fused model, which then costs one member and not as many as folds.
        seed: The seed of the folds, from which that of each model that `fit` trains is derived.
        **arguments: For `saikei.fit`, such as `epochs=20`.

    Returns:
        The models and their predictions; fusions take it in the place of members and data.

    Raises:
        InputError: When `build` gives no new model, arguments are given beside `trainer`, or folds
            are empty, overlap or are no folds.
        DataError: When the data does not fit the models, or a class is missing from a fold.
        FusionError: When a model has already been trained on rows that it is to predict.

    Example:
        >>> import keras, numpy as np
        >>> def build():
        ...     return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> x = np.random.default_rng(0).normal(size=(20, 2))
        >>> made = cross_fit(build, (x, x.sum(axis=1)), folds=2, epochs=1, progress=False)
        >>> len(made.members["model"]), made.predictions["model"][0].shape
        (2, (20, 1))
    """
    check_seed(seed, InputError)
    builds = dict(build) if isinstance(build, Mapping) else {"model": build}
    # Models can be called too, but give no new one.
    if not builds or any(isinstance(b, keras.Model) or not callable(b) for b in builds.values()):
        raise InputError("'build' must be a function that gives a new model, or named ones.")
    if trainer is not None and arguments:
        raise InputError(
            f"{', '.join(sorted(arguments))} would go to saikei.fit, but 'trainer' is given: set "
            "them in 'trainer'."
        )
    models = _Fresh(builds)
    first = models.peek()
    whole = _whole(first, data)
    tasks, labels, classes = _task(first, whole)
    parts = make_folds(folds, len(whole), classes, groups, seed, _needed(classes))
    run = trainer or _by_fit(seed, arguments)
    members: dict[str, tuple[keras.Model, ...]] = {}
    predictions: dict[str, tuple[Array, ...]] = {}
    masks: list[Array | None] = []
    rows = np.sort(np.concatenate([fold.test for fold in parts]))
    digests = digest_rows(whole.x)
    for name in builds:
        made = [_trained(models.new(name), whole, digests, fold.train, run) for fold in parts]
        for number, (model, fold) in enumerate(zip(made, parts, strict=True), start=1):
            _check_unseen(model, name, number, digests[fold.train], digests[fold.test])
        members[name] = tuple(made)
        predictions[name], own = _predicted(made, whole, parts, rows)
        masks += own
    everything = np.arange(len(whole))
    return CrossFit(
        members=members,
        predictions=predictions,
        folds=parts,
        rows=rows,
        fold_of=_fold_of(parts, rows),
        tasks=tasks,
        labels=_counted(tasks, labels, whole, rows, shared_masks(masks, len(builds), len(tasks))),
        x=_take(whole.x, rows),
        digests=digests[rows],
        refitted={
            name: _trained(models.new(name), whole, digests, everything, run)
            for name in (builds if refit else ())
        },
    )


def _whole(model: keras.Model, data: Any) -> ArrayData:
    whole = gathered(data, inputs=input_count(model), as_is=False)
    check_inputs(model, whole.x, "given")
    return whole


def _counted(
    tasks: tuple[Task, ...],
    labels: list[Array],
    data: ArrayData,
    rows: Indices,
    masks: list[Array | None],
) -> tuple[Labels, ...]:
    """The labels of the rows that were predicted, with what counts of them."""
    weights = flat_weights(data.weights, len(labels))
    return tuple(
        count(y[rows], task.known(y[rows]), mask, None if weight is None else weight[rows])
        for task, y, mask, weight in zip(tasks, labels, masks, weights, strict=True)
    )


class _Fresh:
    """Models from the callers' functions, each of them new."""

    def __init__(self, builds: Mapping[str, Build]) -> None:
        self._builds = builds
        self._variables: dict[int, Any] = {}
        self._waiting: dict[str, keras.Model] = {}

    def peek(self) -> keras.Model:
        """The first model, which `new` will give."""
        name = next(iter(self._builds))
        self._waiting[name] = self._make(name)
        return self._waiting[name]

    def new(self, name: str) -> keras.Model:
        if name in self._waiting:
            return self._waiting.pop(name)
        return self._make(name)

    def _make(self, name: str) -> keras.Model:
        model = self._builds[name]()
        # Refuses what is no model, or not built.
        read(model)
        variables = {id(variable): variable for variable in model.trainable_variables}
        if variables.keys() & self._variables.keys():
            raise InputError(
                f"'build' of '{name}' gave a model with weights of an earlier one, so that it "
                "would know rows that it is to predict: make new layers at each call."
            )
        # Held, so that no later variable can have the `id` of one that is gone.
        self._variables.update(variables)
        return model


def _task(model: keras.Model, data: ArrayData) -> tuple[tuple[Task, ...], list[Array], Any]:
    tasks, labels = infer_tasks(model, data.y), flat_labels(model, data.y)
    return tasks, labels, class_numbers(tasks[0], labels[0]) if len(tasks) == 1 else None


def _needed(classes: Indices | None) -> list[int]:
    return [] if classes is None else np.unique(classes).tolist()


def _by_fit(seed: int, arguments: Mapping[str, Any]) -> Trainer:
    seeds: Iterator[int] = iter(range(seed, seed + 2**31))

    def run(model: keras.Model, data: tuple[Any, ...]) -> None:
        fit(model, data, seed=next(seeds), **arguments)

    return run


def _trained(
    model: keras.Model, data: ArrayData, digests: Digests, rows: Indices, run: Trainer
) -> keras.Model:
    # Also when the caller's own function trains, whose rows are not recorded otherwise.
    record_rows(model, digests[rows], "cross_fit")
    run(model, data.take(rows).parts)
    return model


def _predicted(
    members: list[keras.Model], data: ArrayData, folds: tuple[Fold, ...], rows: Indices
) -> tuple[tuple[Array, ...], list[Array | None]]:
    """What the models of the folds predict of the rows, for each output, and its masks."""
    each = [
        predict_all(member, data.take(fold.test).parts, _PREDICT_BATCH)
        for member, fold in zip(members, folds, strict=True)
    ]
    order = np.argsort(np.concatenate([fold.test for fold in folds]))
    assert len(order) == len(rows)
    outputs = zip(*(one.outputs for one in each), strict=True)
    masks = zip(*(one.masks for one in each), strict=True)
    return (
        tuple(np.concatenate(parts)[order] for parts in outputs),
        [None if parts[0] is None else np.concatenate(parts)[order] for parts in masks],
    )


def _fold_of(folds: tuple[Fold, ...], rows: Indices) -> Indices:
    number = np.empty(int(rows.max()) + 1, dtype=np.intp)
    for index, fold in enumerate(folds):
        number[fold.test] = index
    return number[rows]


def _take(x: Any, rows: Indices) -> Any:
    return tree.map_structure(lambda leaf: leaf[rows], x)


def _check_unseen(model: keras.Model, name: str, fold: int, train: Digests, test: Digests) -> None:
    # A row that occurs twice in the data may be in both parts, as it may be in new data.
    own = test[~np.isin(test, train)]
    known = int(rows_in_sample(model, own).sum())
    if known:
        raise FusionError(
            f"Model '{name}' of fold {fold} was trained on {known:,} of the {len(test):,} rows "
            "that it predicts: let 'build' make fresh models, and 'trainer' train on the data that "
            "it is given."
        )
