"""Merge weight files tensor by tensor, whatever their size."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saikei.arguments import checked
from saikei.codec import ToDict
from saikei.errors import FusionError
from saikei.merging import files
from saikei.merging.files import Store, keras_zip
from saikei.merging.kernels.blocks import Array, is_float
from saikei.merging.methods import Merge
from saikei.merging.names import Method, find_method
from saikei.merging.weight_similarity import check_correlation
from saikei.writing import check_target, write_whole


@dataclass(frozen=True)
class MergedFile(ToDict):
    """The merged file.

    Args:
        path: The path of the new file.
        tensors: How many tensors it holds.
        nbytes: The size of the tensors in bytes.
        correlation: The least correlation of a member's kernels with those of the first member, or
            of the base; `None` where it was not measured.
        kept: Names of tensors that are no floats and were copied from the first member.
    """

    path: Path
    tensors: int
    nbytes: int
    correlation: float | None
    kept: tuple[str, ...]


@checked
def merge_files(
    paths: Sequence[str | Path],
    out: str | Path,
    method: Method | str = "uniform",
    *,
    base: str | Path | None = None,
    check: bool = True,
    overwrite: bool = False,
) -> MergedFile:
    """Merge files of weights without loading a model: one tensor of each member at a time.

    Tensors are merged by name, moving statistics of BatchNormalization among them: these should be
    measured anew afterwards. The state of an optimizer is left out, and counters are copied from
    the first file.

    Args:
        paths: Two or more `.safetensors`, `.weights.h5` or `.keras` files, or folders of shards
            with a `.safetensors.index.json`, all of one kind, with tensors of the same names,
            shapes and types.
        out: The new file or folder, of the same kind; what else the first one holds, such as
            configs and a tokenizer, is copied.
        method: The method, as in `Soup`, except `"greedy"` and `"fisher"`, which need data.
        base: The file of the model that the members were fine-tuned from, for methods that need it.
        check: Whether members whose kernels do not correlate are refused: the mean of networks of
            different seeds is useless. `Soup` measures the loss and aligns channels; here there is
            no data.
        overwrite: Whether an existing file may be replaced.

    Returns:
        The merged file, which is written whole or not at all.

    Raises:
        FusionError: Naming the file and the tensor that does not fit, or the argument to fix.
        ModelError: When a file cannot be read.
        InputError: When the file cannot be written at this path.
        WorkError: When the disk is full.
    """
    merge = _streaming(method, len(paths), base)
    kinds = {files.ending(Path(path)) for path in (*paths, out)}
    if len(kinds) > 1:
        raise FusionError(f"Files of {', '.join(sorted(kinds))} are mixed: use one kind for all.")
    target = check_target(out, Path(out).suffix, overwrite)
    with ExitStack() as stack:
        given = [*paths] if base is None else [*paths, base]
        stores = [stack.enter_context(files.open_store(Path(path))) for path in given]
        _check_alike(stores)
        correlation = check_correlation(stores, base is not None) if check else None
        kept = _not_merged(stores[: len(paths)])
        write_whole(target, lambda draft: _write(draft, stores, merge, kept, base is not None))
        entries = stores[0].entries
        nbytes = sum(entry.nbytes for entry in entries.values())
    return MergedFile(target, len(entries), nbytes, correlation, tuple(sorted(kept)))


def _streaming(method: Method | str, members: int, base: object) -> Merge:
    merge = find_method(method)
    if not isinstance(merge, Merge):
        raise FusionError(
            f"{type(merge).__name__} is fitted to data, and files come without: use Soup, or "
            "another method."
        )
    if members < 2:
        raise FusionError(f"A merge needs at least two files, got {members}: give more.")
    merge.check_count(members)
    if merge.needs_base != (base is not None):
        problem = "needs the file of a base: give" if base is None else "needs no base: leave out"
        raise FusionError(f"{type(merge).__name__} {problem} base=.")
    return merge


def _check_alike(stores: Sequence[Store]) -> None:
    first = stores[0]
    for other in stores[1:]:
        pair = f"'{first.path}' and '{other.path}'"
        lonely = sorted(first.entries.keys() ^ other.entries.keys())
        if lonely:
            raise FusionError(
                f"{pair} hold other tensors ('{lonely[0]}' is in one of them only): merge files "
                "of one architecture."
            )
        for name, entry in first.entries.items():
            theirs = other.entries[name]
            if (entry.shape, np.dtype(entry.dtype)) != (theirs.shape, np.dtype(theirs.dtype)):
                raise FusionError(
                    f"Tensor '{name}' is {np.dtype(entry.dtype)} of {entry.shape} and "
                    f"{np.dtype(theirs.dtype)} of {theirs.shape} in {pair}: merge files of one "
                    "architecture and precision."
                )
        if first.path.suffix == ".keras":
            _check_archives(first, other, pair)


def _check_archives(first: Store, other: Store, pair: str) -> None:
    if keras_zip.settings(first) != keras_zip.settings(other):
        raise FusionError(f"{pair} hold layers of other settings: merge files of one architecture.")
    if keras_zip.assets(first) != keras_zip.assets(other):
        raise FusionError(f"{pair} hold other assets, such as vocabularies: they cannot be merged.")


def _not_merged(stores: Sequence[Store]) -> set[str]:
    """Tensors that are no floats: counters and random states are copied from the first file.

    A single whole number counts something, such as the batches that a normalisation has seen.
    """
    kept = {name for name, e in stores[0].entries.items() if not is_float(e.dtype)}
    for name in sorted(kept):
        ours = stores[0].array(name)
        if "seed_generator" in name or ours.size == 1:
            continue
        for store in stores[1:]:
            if not np.array_equal(ours, store.array(name)):
                raise FusionError(
                    f"Tensor '{name}' is {np.dtype(ours.dtype)} and differs in '{store.path}': "
                    "whole numbers cannot be averaged. Merge models before they are quantised."
                )
    return kept


def _write(
    draft: Path, stores: Sequence[Store], merge: Merge, kept: set[str], with_base: bool
) -> None:
    with files.new_store(draft, stores[0]) as made:
        for name in stores[0].entries:
            arrays: list[Array] = [store.array(name) for store in stores]
            base = arrays.pop() if with_base else None
            out = made.array(name)
            if name in kept:
                out[...] = arrays[0]
                continue
            try:
                merge.tensor(name, arrays, base, out)
            except FusionError as error:
                raise FusionError(f"Tensor '{name}': {error}") from error
