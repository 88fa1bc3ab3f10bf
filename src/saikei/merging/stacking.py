"""Stack blocks of several checkpoints into one deeper or shallower network, without a model."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from saikei.arguments import checked, shown
from saikei.errors import FusionError
from saikei.merging import files
from saikei.merging.files import Entry, Store
from saikei.merging.kernels.blocks import is_float
from saikei.merging.plan import TYPES, Precision
from saikei.merging.streaming import MergedFile, check_paths, copy_cast
from saikei.reading import parse_json
from saikei.writing import write_whole

# The number of a block in the name of a tensor: `model.layers.12.mlp.up_proj.weight`.
_NUMBERED = re.compile(r"^(?P<before>(?:.*?[./])?)(?P<number>\d+)(?P<after>[./].*)$")
# Where configs of checkpoints have the number of blocks.
_DEPTHS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")

# A checkpoint, its first block and the one behind its last.
Slice: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class _Source:
    """Where a tensor of the result comes from."""

    store: Store
    name: str
    entry: Entry


@checked
def stack_blocks(
    slices: Sequence[Slice],
    out: str | Path,
    *,
    prefix: str | None = None,
    dtype: Precision | None = None,
    overwrite: bool = False,
) -> MergedFile:
    """Stack blocks of checkpoints one behind another ("passthrough"), one tensor at a time.

    The blocks get new numbers in the order of the slices; a block may be taken several times. All
    other tensors, such as embeddings and the head, are those of the first checkpoint, and so are
    its configs, in which the number of blocks is set anew. A stack that repeats blocks usually has
    to be trained on (Kim et al., "SOLAR 10.7B: depth up-scaling", 2023).

    Args:
        slices: Triples of a checkpoint, its first block and the one behind its last, from 0: a
            `.safetensors` file, or a folder of shards.
        out: The new file or folder, of the same kind.
        prefix: What stands before the number of a block in the names of tensors, such as
            `"model.layers."`; `None` for the prefix with the most blocks in the first checkpoint.
        dtype: The precision of the result's floats; `None` keeps that of each tensor.
        overwrite: Whether an existing file may be replaced.

    Returns:
        The new file, which is written whole or not at all.

    Raises:
        FusionError: When there are no such blocks, or their tensors have other shapes.
        ModelError: When a file cannot be read.
        InputError: When the file cannot be written at this path.

    Example:
        >>> stack_blocks([("base", 0, 24), ("base", 8, 32)], "deeper")  # doctest: +SKIP
    """
    if not slices or not all(_is_slice(part) for part in slices):
        raise FusionError(
            f"slices={shown(slices)}: give triples of a path, the first block and the one behind "
            "the last, such as [('folder', 0, 12)]."
        )
    target = check_paths([path for path, _, _ in slices], out, overwrite)
    if files.ending(target) not in files.RESHAPED:
        raise FusionError(f"Blocks of {target.suffix} files cannot be stacked: use safetensors.")
    with ExitStack() as stack:
        opened: dict[Path, Store] = {}
        for path in dict.fromkeys(Path(path) for path, _, _ in slices):
            opened[path] = stack.enter_context(files.open_store(path))
        taken = [(opened[Path(path)], start, stop) for path, start, stop in slices]
        before = prefix or block_prefix(taken[0][0])
        depth = sum(stop - start for _, start, stop in taken)
        sources = _planned(taken, before, dtype)
        write_whole(target, lambda draft: _write(draft, taken[0][0], sources, before, depth))
    nbytes = sum(source.entry.nbytes for source in sources.values())
    return MergedFile(target, len(sources), nbytes, None, ())


def _is_slice(part: Slice) -> bool:
    return (
        len(part) == 3
        and isinstance(part[0], (str, Path))
        and all(isinstance(end, int) and not isinstance(end, bool) for end in part[1:])
    )


def block_prefix(store: Store) -> str:
    """What stands before the numbers of blocks: the prefix with the most numbers."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in store.entries:
        found = _NUMBERED.match(name)
        if found:
            numbers[found["before"]].add(int(found["number"]))
    if not numbers:
        raise FusionError(
            f"No tensor of '{store.path}' has a number of a block in its name, as "
            "'model.layers.0.mlp.weight' has: give files of a network of blocks."
        )
    return max(numbers, key=lambda before: len(numbers[before]))


def blocks_of(store: Store, prefix: str) -> dict[int, dict[str, str]]:
    """The names of the tensors of each block, by what follows the number."""
    found: dict[int, dict[str, str]] = defaultdict(dict)
    for name in store.entries:
        number, _, _ = name.removeprefix(prefix).replace("/", ".").partition(".")
        if name.startswith(prefix) and number.isdigit():
            found[int(number)][name[len(prefix) + len(number) :]] = name
    if not found:
        raise FusionError(f"No tensor of '{store.path}' begins with '{prefix}' and a number.")
    return found


def _planned(
    taken: Sequence[tuple[Store, int, int]], prefix: str, dtype: Precision | None
) -> dict[str, _Source]:
    """The tensors of the result, in order: the blocks stand where the first one's blocks did."""
    first = taken[0][0]
    own = {name for block in blocks_of(first, prefix).values() for name in block.values()}
    stacked = _stacked(taken, prefix)
    made: dict[str, _Source] = {}
    for name, entry in first.entries.items():
        made |= stacked if name in own else {name: _Source(first, name, entry)}
    if dtype is None:
        return made
    return {
        name: replace(source, entry=replace(source.entry, dtype=TYPES[dtype]))
        if is_float(source.entry.dtype)
        else source
        for name, source in made.items()
    }


def _stacked(taken: Sequence[tuple[Store, int, int]], prefix: str) -> dict[str, _Source]:
    made: dict[str, _Source] = {}
    shapes: dict[str, _Source] = {}
    number = 0
    for store, start, stop in taken:
        blocks = blocks_of(store, prefix)
        if not 0 <= start < stop <= len(blocks):
            raise FusionError(
                f"Blocks {start} to {stop} of '{store.path}' are none: it has {len(blocks)}, "
                f"so give a start from 0 and an end behind it of at most {len(blocks)}."
            )
        for block in range(start, stop):
            for after, name in blocks[block].items():
                source = _Source(store, name, store.entries[name])
                _check_shape(shapes.setdefault(after, source), source)
                made[f"{prefix}{number}{after}"] = source
            number += 1
    return made


def _check_shape(known: _Source, source: _Source) -> None:
    if source.entry.shape != known.entry.shape:
        raise FusionError(
            f"Tensor '{source.name}' of '{source.store.path}' has the shape {source.entry.shape}, "
            f"and '{known.name}' of '{known.store.path}' {known.entry.shape}: stack blocks of one "
            "width."
        )


def _write(
    draft: Path, first: Store, sources: Mapping[str, _Source], prefix: str, depth: int
) -> None:
    entries = {name: source.entry for name, source in sources.items()}
    with files.new_store(draft, first, entries) as made:
        for name, source in sources.items():
            copy_cast(np.asarray(source.store.array(source.name)), made.array(name))
    config = draft / "config.json"
    if config.is_file():
        before = len(blocks_of(first, prefix))
        found = parse_json(config.read_text(encoding="utf-8"), f"'{config.name}'", FusionError)
        config.write_text(json.dumps(_deeper(found, before, depth), indent=2), encoding="utf-8")


def _deeper(config: object, before: int, depth: int) -> object:
    """A config with another number of blocks, wherever it has that of the first checkpoint."""
    if not isinstance(config, dict):
        return config
    return {
        key: depth if key in _DEPTHS and value == before else _deeper(value, before, depth)
        for key, value in config.items()
    }
