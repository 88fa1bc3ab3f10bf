"""Checkpoints in a folder: shards of safetensors, and an index of which tensor is in which."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from saikei.errors import ModelError
from saikei.merging.files import safetensors
from saikei.merging.files.store import Entry, Store
from saikei.reading import parse_json

INDEX = ".safetensors.index.json"
# The most bytes of a new shard.
_SHARD = 5_000_000_000
# What a merged checkpoint does not take from the first folder: weights in other forms.
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".h5", ".msgpack", ".onnx", ".pt", ".pth")


@dataclass(frozen=True)
class _Shards:
    """The shards of a folder by name, each with its tensors, and its other files.

    Args:
        stores: The shards by the names of their files.
        others: Files that a copy takes over, such as configs and a tokenizer.
        index: The name of the index; `None` for one file of weights without an index.
    """

    stores: Mapping[str, Store]
    others: tuple[Path, ...]
    index: str | None


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    """The tensors of all shards.

    Args:
        path: The folder, or its index file.

    Raises:
        ModelError: When there is no index, or the shards do not fit it, by their headers alone.
    """
    folder = path if path.is_dir() else path.parent
    where = _where(folder)
    with ExitStack() as stack:
        stores = {name: stack.enter_context(_shard(folder, name)) for name in _in_order(where)}
        for tensor, name in where.items():
            if tensor not in stores[name].entries:
                raise ModelError(
                    f"The index of '{folder}' has tensor '{tensor}' in '{name}', which does not "
                    "hold it: copy the whole folder again."
                )
        entries: dict[str, Entry] = {}
        for name, store in stores.items():
            for tensor, entry in store.entries.items():
                if where.get(tensor) != name:
                    raise ModelError(
                        f"'{folder / name}' holds tensor '{tensor}', which the index has not "
                        "there: copy the whole folder again."
                    )
                entries[tensor] = replace(entry, file=store.path)
        others = tuple(
            file
            for file in sorted(folder.iterdir())
            if file.is_file() and not file.name.endswith((*_WEIGHTS, INDEX))
        )
        index = next((file.name for file in folder.glob(f"*{INDEX}")), None)
        yield Store(folder, folder, entries, extra=_Shards(stores, others, index))


def with_entries(store: Store, entries: Mapping[str, Entry]) -> Store:
    """A folder as it would be with other tensors, to be created.

    Tensors stay in their shards where all names are the same; otherwise they are put into new
    shards in their order.
    """
    shards: _Shards = store.extra
    if entries.keys() == store.entries.keys():
        kept = {
            name: replace(shard, entries={tensor: entries[tensor] for tensor in shard.entries})
            for name, shard in shards.stores.items()
        }
        return replace(store, entries=entries, extra=replace(shards, stores=kept))
    like = next(iter(shards.stores.values()))
    parts = _in_parts(entries)
    made = {
        f"model-{number:05}-of-{len(parts):05}.safetensors": replace(
            like, entries={tensor: entries[tensor] for tensor in part}
        )
        for number, part in enumerate(parts, start=1)
    }
    index = shards.index or f"model{INDEX}"
    return replace(store, entries=entries, extra=replace(shards, stores=made, index=index))


def _in_parts(entries: Mapping[str, Entry]) -> list[list[str]]:
    """The names in shards of a size that file systems and downloads take easily."""
    parts: list[list[str]] = [[]]
    size = 0
    for name, entry in entries.items():
        if parts[-1] and size + entry.nbytes > _SHARD:
            parts.append([])
            size = 0
        parts[-1].append(name)
        size += entry.nbytes
    return parts


@contextmanager
def created(path: Path, like: Store) -> Iterator[Store]:
    """A new folder with the same shards, index, configs and tokenizer, to be written to."""
    shards: _Shards = like.extra
    path.mkdir()
    for file in shards.others:
        shutil.copyfile(file, path / file.name)
    entries: dict[str, Entry] = {}
    with ExitStack() as stack:
        for name, store in shards.stores.items():
            made = stack.enter_context(safetensors.created(path / name, store))
            entries |= {
                tensor: replace(entry, file=made.path) for tensor, entry in made.entries.items()
            }
        if shards.index is not None:
            (path / shards.index).write_text(_index(shards.stores), encoding="utf-8")
        yield Store(path, path, entries, writable=True)


def _index(shards: Mapping[str, Store]) -> str:
    where = {tensor: name for name, shard in shards.items() for tensor in shard.entries}
    size = sum(entry.nbytes for shard in shards.values() for entry in shard.entries.values())
    return json.dumps({"metadata": {"total_size": size}, "weight_map": where}, indent=2)


def _where(folder: Path) -> dict[str, str]:
    """The shard of every tensor: as the index has it, or all in the one file that there is."""
    indices = sorted(folder.glob(f"*{INDEX}"))
    files = sorted(folder.glob("*.safetensors"))
    if not indices and len(files) == 1:
        with safetensors.opened(files[0]) as store:
            return dict.fromkeys(store.entries, files[0].name)
    if len(indices) != 1:
        raise ModelError(
            f"'{folder}' has {len(indices)} files *{INDEX} and {len(files)} *.safetensors: give a "
            "folder with one index, or one file of weights."
        )
    found = parse_json(indices[0].read_text(encoding="utf-8"), f"'{indices[0]}'", ModelError)
    where = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(where, dict) or not all(_is_plain(name) for name in where.values()):
        raise ModelError(f"'{indices[0]}' has no weight_map of file names: it is damaged.")
    return where


def _is_plain(name: object) -> bool:
    """Whether it is the name of a file in the same folder: no path may lead elsewhere."""
    return isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")


def _in_order(where: Mapping[str, str]) -> list[str]:
    return sorted(set(where.values()))


@contextmanager
def _shard(folder: Path, name: str) -> Iterator[Store]:
    if not (folder / name).is_file():
        raise ModelError(
            f"The index of '{folder}' names '{name}', which is missing: copy the whole folder."
        )
    with safetensors.opened(folder / name) as store:
        yield store
