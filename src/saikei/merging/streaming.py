"""Merge weight files tensor by tensor, whatever their size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saikei.arguments import checked
from saikei.codec import ToDict
from saikei.errors import FusionError
from saikei.merging import files
from saikei.merging.files import Store
from saikei.merging.kernels.blocks import Array
from saikei.merging.methods import Merge
from saikei.merging.names import Method, find_method
from saikei.merging.plan import Missing, PlannedTensor, Precision, Rows, Rules, plan_tensors
from saikei.merging.weight_similarity import check_correlation
from saikei.writing import check_target, write_whole

# Numbers that are converted to another type at once.
_PART = 1 << 22


@dataclass(frozen=True)
class MergedFile(ToDict):
    """The merged file.

    Args:
        path: The path of the new file.
        tensors: How many tensors it holds.
        nbytes: The size of the tensors in bytes.
        correlation: The least correlation of a member's kernels with those of the first member, or
            of the base; `None` where it was not measured.
        kept: Names of tensors that were copied from the first member: those that are no floats,
            or that another file lacks.
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
    methods: Mapping[str, Method | str] | None = None,
    missing: Missing = "error",
    rows: Rows = "error",
    dtype: Precision | None = None,
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
            shapes and types unless `missing`, `rows` and `dtype` allow others.
        out: The new file or folder, of the same kind; what else the first one holds, such as
            configs and a tokenizer, is copied.
        method: The method, as in `Soup`, except `"greedy"` and `"fisher"`, which need data.
        base: The file of the model that the members were fine-tuned from, for methods that need it.
        methods: Other methods for some tensors, by patterns for their names such as
            `{"*.mlp.*": Linear((0.3, 0.7))}`; the first pattern that fits counts. `None` merges
            all by `method`.
        missing: What to do with tensors that are not in all files: `"error"` refuses them;
            `"keep"` goes by the tensors of the first file: those that another file lacks are
            copied, and what only others have, such as a second head, is left out.
        rows: What to do with tensors, such as embeddings, of which the files have other numbers of
            rows (axis 0). `"error"` refuses them. Otherwise the rows that all have are merged,
            which needs vocabularies that begin alike, and the result has the rows of the first
            file (`"first"`), the fewest (`"cut"`), or the most (`"pad"`); a row that not all have
            is copied from the first file that has it. With `"cut"` and `"pad"`, set the size of
            the vocabulary in the copied config by hand.
        dtype: The precision of the result's floats, for files of safetensors; members may then
            have other precisions. `None` demands one precision of all, and keeps it.
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
    merge, by_pattern = _checked_methods(method, methods or {}, len(paths), base)
    target = check_paths([*paths, *([] if base is None else [base])], out, overwrite)
    with ExitStack() as stack:
        given = [*paths] if base is None else [*paths, base]
        stores = [stack.enter_context(files.open_store(Path(path))) for path in given]
        rules = Rules(missing, rows, dtype)
        planned = plan_tensors(stores, len(paths), merge, by_pattern, rules)
        correlation = check_correlation(stores, base is not None) if check else None
        write_whole(target, lambda draft: _write(draft, stores, planned, base is not None))
    nbytes = sum(plan.entry.nbytes for plan in planned.values())
    kept = tuple(sorted(name for name, plan in planned.items() if plan.method is None))
    return MergedFile(target, len(planned), nbytes, correlation, kept)


def check_paths(paths: Sequence[str | Path], out: str | Path, overwrite: bool) -> Path:
    """The path of the new file, once all files are of one kind.

    Args:
        paths: The files to read.
        out: The new file.
        overwrite: Whether an existing file may be replaced.

    Raises:
        FusionError: When files of several kinds are mixed.
        InputError: When the new file cannot be written.
    """
    kinds = {files.ending(Path(path)) for path in (*paths, out)}
    if len(kinds) > 1:
        raise FusionError(f"Files of {', '.join(sorted(kinds))} are mixed: use one kind for all.")
    return check_target(out, Path(out).suffix, overwrite)


def _checked_methods(
    method: Method | str, by_pattern: Mapping[str, Method | str], members: int, base: object
) -> tuple[Merge, dict[str, Merge]]:
    """The method, and those of some tensors, once they suit files and the base."""
    if members < 2:
        raise FusionError(f"A merge needs at least two files, got {members}: give more.")
    merge = _streaming(method, members)
    others = {pattern: _streaming(own, members) for pattern, own in by_pattern.items()}
    needing = [m for m in (merge, *others.values()) if m.needs_base]
    if bool(needing) != (base is not None):
        name = type(needing[0] if needing else merge).__name__
        problem = "needs the file of a base: give" if base is None else "needs no base: leave out"
        raise FusionError(f"{name} {problem} base=.")
    return merge, others


def _streaming(method: Method | str, members: int) -> Merge:
    merge = find_method(method)
    if not isinstance(merge, Merge):
        raise FusionError(
            f"{type(merge).__name__} is fitted to data, and files come without: use Soup, or "
            "another method."
        )
    merge.check_count(members)
    return merge


def _write(
    draft: Path,
    stores: Sequence[Store],
    planned: Mapping[str, PlannedTensor],
    with_base: bool,
) -> None:
    entries = {name: plan.entry for name, plan in planned.items()}
    with files.new_store(draft, stores[0], entries) as made:
        for name, plan in planned.items():
            out = made.array(name)
            arrays = [store.array(name) for store in stores if name in store.entries]
            if plan.method is None:
                copy_cast(arrays[0], out)
                continue
            try:
                _merge(name, plan, arrays, with_base, out)
            except FusionError as error:
                raise FusionError(f"Tensor '{name}': {error}") from error


def _merge(
    name: str, plan: PlannedTensor, arrays: Sequence[Array], with_base: bool, out: Array
) -> None:
    """Merge the rows that all files have, and copy the others from the first that has them."""
    assert plan.method is not None
    shared = plan.shared
    if shared is None:
        _merge_alike(name, plan.method, arrays, with_base, out)
        return
    _merge_alike(name, plan.method, [a[:shared] for a in arrays], with_base, out[:shared])
    done = shared
    for array in arrays:
        rows = min(len(array), len(out))
        if rows > done:
            copy_cast(array[done:rows], out[done:rows])
            done = rows


def _merge_alike(
    name: str, method: Merge, arrays: Sequence[Array], with_base: bool, out: Array
) -> None:
    members = list(arrays[:-1] if with_base else arrays)
    base = [arrays[-1]] if method.needs_base else []
    taken = [*members, *base]
    if {array.dtype for array in taken} == {out.dtype}:
        method.tensor(name, members, next(iter(base), None), out)
        return
    # Arrays of several types, or of another one than the result, are merged in a common one.
    wide = np.float64 if any(a.dtype.itemsize > 4 for a in (*taken, out)) else np.float32
    flat, target = [array.reshape(-1) for array in taken], out.reshape(-1)
    size = max(1, target.size)
    shape = (-1,) if method.elementwise else out.shape
    for start in range(0, target.size, _PART if method.elementwise else size):
        part = slice(start, start + (_PART if method.elementwise else size))
        cast = [array[part].astype(wide).reshape(shape) for array in flat]
        last = cast.pop() if base else None
        copy_cast(method.tensor(name, cast, last), target[part].reshape(shape))


def copy_cast(array: Array, out: Array) -> None:
    """Copy numbers to an array of another type.

    Args:
        array: The numbers.
        out: The array to write to, of the same shape.

    Raises:
        FusionError: When a finite number is too large for the type.
    """
    source, target = array.reshape(-1), out.reshape(-1)
    for start in range(0, target.size, _PART):
        part = slice(start, start + _PART)
        with np.errstate(over="ignore"):
            target[part] = source[part].astype(out.dtype)
        if array.dtype != out.dtype and not np.isfinite(target[part].astype(np.float32)).all():
            raise FusionError(
                f"Numbers are not finite in {np.dtype(out.dtype)}: use dtype='bfloat16' or "
                "'float32'."
            )
