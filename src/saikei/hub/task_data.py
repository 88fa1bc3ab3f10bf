"""Strings as tokens: what a task's preprocessor makes of data, once, before anything runs."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, as_numpy, is_text
from saikei.data import gathered
from saikei.dataset_batches import dataset_length, first_batch
from saikei.errors import DataError, in_one_line
from saikei.graph import internals
from saikei.hub.family import Family, family_of, is_task
from saikei.hub.streaming import PreprocessedBatches
from saikei.tensors import to_numpy

_P = ParamSpec("_P")
_R = TypeVar("_R")

# Samples that are preprocessed together.
_ROWS = 1024


def runs_tasks(
    models: str, data: tuple[str, ...]
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """A function of models and data that takes tasks of KerasHub, and data as these take it.

    The function gets a plain Functional model of the same layers, since tasks preprocess whatever
    they are fitted to or predict, and the data preprocessed.

    Args:
        models: The names of the arguments that are models, with spaces between them. The
            preprocessor of the first is used.
        data: The names of the arguments that are data.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            bound = signature.bind(*args, **kwargs)
            names = [name for name in models.split() if name in bound.arguments]
            task = bound.arguments[names[0]] if names else None
            task = task[0] if isinstance(task, (list, tuple)) and task else task
            for name in data:
                if name in bound.arguments:
                    given = bound.arguments[name]
                    bound.arguments[name] = task_data(task, given, name)
            for name in names:
                bound.arguments[name] = without_preprocessor(bound.arguments[name])
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate


def without_preprocessor(model: Any) -> Any:
    """A task as a plain Functional model with the same layers; any other object as it is.

    Args:
        model: Any object, or several in a list. Training what is returned trains the task.
    """
    if isinstance(model, (list, tuple)):
        return [without_preprocessor(one) for one in model]
    if not is_task(model) or not internals.is_graph_model(model):
        return model
    view = keras.Model(model.input, model.output, name=model.name)
    if model.loss is not None:
        view.compile(loss=model.loss)
    return view


def task_data(model: Any, data: Any, name: str = "given") -> Any:
    """Data as a model takes it, where it is given as the preprocessor of a task takes it.

    Args:
        model: Any model; of models that are no tasks of KerasHub the data stays as it is.
        data: Strings or images, with labels where the task needs them, in arrays, lists or a
            dataset; or what the preprocessor would make of them, which stays as it is. Of a causal
            language model also tokens without labels, `(n, length)`, as an array or with their
            padding mask: each token is then the label of the one before it.
        name: The name of the argument, for messages.

    Returns:
        `(x, y, sample_weight)` as arrays, or the data that was given. Datasets of strings are
        preprocessed batch by batch in each pass; those of unknown length are read into memory.

    Raises:
        DataError: When the preprocessor cannot read the data, its tokenizer has more tokens than
            the embedding, or sequences are longer than the table of positions.
    """
    if data is None or not (is_task(model) or family_of(model)):
        return data
    data = _with_next_tokens(model, data)
    family, preprocessor = family_of(model), getattr(model, "preprocessor", None)
    if family is not None:
        _check_tokens(family, data, name)
    if preprocessor is None:
        return data
    if family is not None:
        check_preprocessor(family)
    images = getattr(preprocessor, "image_converter", None) is not None
    if not isinstance(data, (list, tuple, dict, np.ndarray)):
        if not (images or _is_text(first_batch(data, name, labels=False).x)):
            return data
        count = dataset_length(data, name)
        if count is not None:
            return PreprocessedBatches(data, partial(_batch_made, preprocessor, name), name, count)
        data = gathered(data, name, labels=False).parts
    x, *rest = data if isinstance(data, tuple) else (data,)
    if not (images or _is_text(x)):
        return data
    parts = [_made(preprocessor, rows, name) for rows in _in_rows((x, *rest))]
    return tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def _with_next_tokens(model: Any, data: Any) -> Any:
    """Tokens of a causal language model without labels: `(x, y, sample_weight)`.

    Any other data is returned as it is.
    """
    if not isinstance(model, sys.modules["keras_hub"].models.CausalLM):
        return data
    x, *rest = data if isinstance(data, tuple) else (data,)
    named = x if isinstance(x, dict) else {"token_ids": x}
    tokens: Any = named.get("token_ids")
    whole = isinstance(tokens, np.ndarray) and tokens.ndim == 2 and tokens.dtype.kind in "iu"
    if any(part is not None for part in rest) or not whole:
        return data
    if not set(named) <= {"token_ids", "padding_mask"} or tokens.shape[1] < 2:
        return data
    mask = np.asarray(named.get("padding_mask", np.ones_like(tokens)))
    inputs = {"token_ids": tokens[:, :-1], "padding_mask": mask[:, :-1]}
    return inputs, tokens[:, 1:], mask[:, 1:]


def _is_text(x: Any) -> bool:
    return any(is_text(np.asarray(leaf)) for leaf in _leaves(x))


def check_preprocessor(family: Family) -> None:
    """Refuse a tokenizer or a length that the backbone has no table entries for.

    Raises:
        DataError: Naming both numbers.
    """
    preprocessor, config = family.model.preprocessor, family.backbone.get_config()
    tokenizer = getattr(preprocessor, "tokenizer", None)
    tokens = None if tokenizer is None else int(tokenizer.vocabulary_size())
    entries = config.get("vocabulary_size")
    if tokens is not None and entries is not None and tokens > entries:
        raise DataError(
            f"The tokenizer of {family.name} has {tokens:,} tokens, and the embedding of its "
            f"backbone {entries:,}: use the tokenizer that the model was trained with."
        )
    length, longest = (
        getattr(preprocessor, "sequence_length", None),
        config.get("max_sequence_length"),
    )
    if length is not None and longest is not None and length > longest:
        raise DataError(
            f"The preprocessor of {family.name} makes sequences of {length:,} tokens, and its "
            f"backbone has positions for {longest:,}: set preprocessor.sequence_length."
        )


def _check_tokens(family: Family, data: Any, name: str) -> None:
    """Refuse arrays of tokens that the backbone has no table entries for."""
    x = data[0] if isinstance(data, tuple) and data else data
    named = x.items() if isinstance(x, dict) else ()
    config = family.backbone.get_config()
    longest, entries = config.get("max_sequence_length"), config.get("vocabulary_size")
    for key, array in named:
        tokens = np.asarray(array)
        if not key.endswith("token_ids") or tokens.ndim != 2 or tokens.dtype.kind not in "iu":
            continue
        if longest is not None and tokens.shape[1] > longest:
            raise DataError(
                f"The {name} data has sequences of {tokens.shape[1]:,} tokens, and the backbone of "
                f"{family.name} has positions for {longest:,}: give shorter sequences."
            )
        if entries is not None and tokens.size and int(tokens.max()) >= entries:
            raise DataError(
                f"The {name} data has token {int(tokens.max()):,}, and the embedding of "
                f"{family.name} has {entries:,} entries, from 0 on: use the tokenizer that the "
                "model was trained with."
            )


def _leaves(x: Any) -> list[Any]:
    """The arrays and lists of samples in inputs: tuples and dictionaries nest, lists do not."""
    if isinstance(x, tuple):
        return [leaf for part in x for leaf in _leaves(part)]
    return [leaf for part in x.values() for leaf in _leaves(part)] if isinstance(x, dict) else [x]


def _in_rows(parts: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    count = len(_leaves(parts[0])[0])
    return [_rows(parts, slice(at, at + _ROWS)) for at in range(0, count, _ROWS)]


def _rows(part: Any, rows: slice) -> Any:
    if part is None:
        return None
    if isinstance(part, tuple):
        return tuple(_rows(one, rows) for one in part)
    if isinstance(part, dict):
        return {key: _rows(one, rows) for key, one in part.items()}
    return _strings(part[rows])


def _strings(part: Any) -> Any:
    """An array of texts as a list of strings, as preprocessors take them; others as they are."""
    if isinstance(part, np.ndarray) and is_text(part):
        return [one.decode() if isinstance(one, bytes) else str(one) for one in part]
    return part


def _read(batch: Any) -> Any:
    """A batch of a dataset as preprocessors take it: strings, and arrays of NumPy."""
    return tree.map_structure(
        lambda leaf: None if leaf is None else _strings(as_numpy(leaf)), tuple(batch)
    )


def _batch_made(preprocessor: Any, name: str, batch: tuple[Any, ...]) -> Any:
    return _made(preprocessor, _read(batch), name)


def _made(preprocessor: Any, parts: tuple[Any, ...], name: str) -> Any:
    x, y, weights = (*parts, None, None)[:3]
    try:
        made = preprocessor(x, y=y, sample_weight=weights)
    # Each preprocessor refuses what it cannot read in its own way.
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        raise DataError(
            f"{type(preprocessor).__name__} cannot read the {name} data: {in_one_line(error)}."
        ) from error
    return tree.map_structure(_array, made)


def _array(leaf: Any) -> Array:
    return to_numpy(leaf) if hasattr(leaf, "shape") else np.asarray(leaf)
