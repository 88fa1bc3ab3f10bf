"""What becomes of each tensor when files are merged, decided from their headers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import ml_dtypes
import numpy as np

from saikei.errors import FusionError
from saikei.merging import files
from saikei.merging.files import Store, keras_zip
from saikei.merging.files.store import Entry
from saikei.merging.kernels.blocks import Array, is_float
from saikei.merging.methods import Merge

Missing: TypeAlias = Literal["error", "keep"]
Rows: TypeAlias = Literal["error", "first", "cut", "pad"]
Precision: TypeAlias = Literal["float32", "float16", "bfloat16"]
TYPES: Mapping[str, Any] = MappingProxyType(
    {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
)


@dataclass(frozen=True)
class Rules:
    """What to do with tensors that are not alike in all files; see `merge_files`."""

    missing: Missing = "error"
    rows: Rows = "error"
    dtype: Precision | None = None


@dataclass(frozen=True)
class PlannedTensor:
    """How one tensor of the result is made.

    Args:
        entry: Its shape and type.
        method: How the members' tensors are merged; `None` copies the first file's.
        shared: The number of rows that all files have, where these numbers differ: these rows are
            merged, and each row behind them is copied from the first file that has it.
    """

    entry: Entry
    method: Merge | None
    shared: int | None = None


def plan_tensors(
    stores: Sequence[Store],
    members: int,
    method: Merge,
    by_pattern: Mapping[str, Merge],
    rules: Rules,
) -> dict[str, PlannedTensor]:
    """How each tensor of the result is made.

    Args:
        stores: The tensors of the members, and those of a base behind them.
        members: How many of the stores are members.
        method: The method for tensors that no pattern fits.
        by_pattern: Methods for the tensors whose names fit a pattern; the first that fits counts.
        rules: What to do with tensors that are not alike.

    Raises:
        FusionError: When tensors are not alike and no rule covers them, or a pattern fits no name.
    """
    first = stores[0]
    for pattern in by_pattern:
        if not any(fnmatchcase(name, pattern) for name in first.entries):
            raise FusionError(
                f"The pattern '{pattern}' fits no tensor of '{first.path}', which has such as "
                f"'{next(iter(first.entries), '')}'."
            )
    for other in stores[1:]:
        _check_names(first, other, rules.missing)
    planned = {}
    for name, entry in first.entries.items():
        made, shared = _agreed(stores, name, rules)
        own = next((m for pattern, m in by_pattern.items() if fnmatchcase(name, pattern)), method)
        merged = is_float(entry.dtype) and all(name in store.entries for store in stores)
        if not merged:
            _check_whole_numbers(stores[:members], name)
        planned[name] = PlannedTensor(made, own if merged else None, shared)
    changed = next((n for n, p in planned.items() if _differs(p.entry, first.entries[n])), None)
    if changed is not None and files.ending(first.path) not in files.RESHAPED:
        raise FusionError(
            f"Tensor '{changed}' would get another shape or type than the config of "
            f"'{first.path}' has: use rows='first' and no dtype=, or files of safetensors."
        )
    return planned


def _check_names(first: Store, other: Store, missing: Missing) -> None:
    pair = f"'{first.path}' and '{other.path}'"
    lonely = sorted(first.entries.keys() ^ other.entries.keys())
    if lonely and missing == "error":
        raise FusionError(
            f"{pair} hold other tensors ('{lonely[0]}' is in one of them only): merge files of one "
            "architecture, or go by the tensors of the first file with missing='keep'."
        )
    if not first.entries.keys() & other.entries.keys():
        raise FusionError(f"{pair} have no tensor of the same name: there is nothing to merge.")
    if first.path.suffix == ".keras":
        if keras_zip.settings(first) != keras_zip.settings(other):
            raise FusionError(
                f"{pair} hold layers of other settings: merge files of one architecture."
            )
        if keras_zip.assets(first) != keras_zip.assets(other):
            raise FusionError(
                f"{pair} hold other assets, such as vocabularies: they cannot be merged."
            )


def _agreed(stores: Sequence[Store], name: str, rules: Rules) -> tuple[Entry, int | None]:
    """The shape and type of a tensor in the result, and the rows that all files have."""
    entry = stores[0].entries[name]
    shared: int | None = None
    heights = [entry.shape[0] if entry.shape else 0]
    for store in stores[1:]:
        theirs = store.entries.get(name)
        if theirs is None:
            continue
        if theirs.shape != entry.shape:
            _check_shapes(stores[0], store, name, rules.rows)
            heights.append(theirs.shape[0])
        if np.dtype(theirs.dtype) != np.dtype(entry.dtype) and (
            rules.dtype is None or not is_float(entry.dtype) or not is_float(theirs.dtype)
        ):
            raise FusionError(
                f"{_both(stores[0], store, name)}: merge files of one precision, or give dtype=, "
                "the precision of the result."
            )
    shape = entry.shape
    if len(heights) > 1:
        shared = min(heights)
        rows = {"first": heights[0], "cut": shared, "pad": max(heights)}[rules.rows]
        shape = (rows, *shape[1:])
    dtype = entry.dtype if rules.dtype is None or not is_float(entry.dtype) else TYPES[rules.dtype]
    return replace(entry, shape=shape, dtype=dtype), shared


def _check_shapes(first: Store, other: Store, name: str, rows: Rows) -> None:
    ours, theirs = first.entries[name].shape, other.entries[name].shape
    if not ours or not theirs or ours[1:] != theirs[1:]:
        raise FusionError(
            f"{_both(first, other, name)}: merge files of one architecture and precision."
        )
    if rows == "error":
        raise FusionError(
            f"{_both(first, other, name)}: if both count the tokens of vocabularies that begin "
            "alike, give rows='first', 'cut' or 'pad'."
        )


def _both(first: Store, other: Store, name: str) -> str:
    ours, theirs = first.entries[name], other.entries[name]
    return (
        f"Tensor '{name}' is {np.dtype(ours.dtype)} of {ours.shape} and {np.dtype(theirs.dtype)} "
        f"of {theirs.shape} in '{first.path}' and '{other.path}'"
    )


def _check_whole_numbers(stores: Sequence[Store], name: str) -> None:
    """Refuse tables of whole numbers that differ: they are copied from the first file.

    A single whole number counts something, such as the batches that a normalisation has seen.
    """
    ours: Array = stores[0].array(name)
    if is_float(ours.dtype) or "seed_generator" in name or ours.size == 1:
        return
    for store in stores[1:]:
        if name in store.entries and not np.array_equal(ours, store.array(name)):
            raise FusionError(
                f"Tensor '{name}' is {np.dtype(ours.dtype)} and differs in '{store.path}': "
                "whole numbers cannot be averaged. Merge models before they are quantised."
            )


def _differs(made: Entry, given: Entry) -> bool:
    return made.shape != given.shape or np.dtype(made.dtype) != np.dtype(given.dtype)
