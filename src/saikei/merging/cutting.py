"""Cut a checkpoint of a language model that need not fit in memory, one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saikei.arguments import checked
from saikei.errors import FusionError
from saikei.limits import check_whole, is_number
from saikei.merging import files
from saikei.merging.files import Entry, Store
from saikei.merging.stacking import block_prefix, blocks_of
from saikei.merging.streaming import MergedFile, check_paths
from saikei.reading import parse_json
from saikei.writing import write_whole

# For each cut, the axis of each of a block's tensors that goes along. Names are those of Llama,
# Mistral, Qwen, Gemma and others that are stored like them.
_FEED_FORWARD = {"gate_proj.weight": 0, "up_proj.weight": 0, "down_proj.weight": 1}
_FEED_FORWARD |= {"gate_proj.bias": 0, "up_proj.bias": 0}
_HEADS = {"q_proj.weight": 0, "k_proj.weight": 0, "v_proj.weight": 0, "o_proj.weight": 1}
_HEADS |= {"q_proj.bias": 0, "k_proj.bias": 0, "v_proj.bias": 0}
# The tensors whose norms are multiplied to the importance of a channel.
_WEIGHED = ("gate_proj.weight", "up_proj.weight", "down_proj.weight")
_WEIGHED_HEADS = ("v_proj.weight", "o_proj.weight")
# For the width of the network, the axis that goes along of tensors in blocks and outside of them;
# the weights of normalisations go too, but for those of heads.
_WIDTH = dict.fromkeys(("embed_tokens.weight", "lm_head.weight", "gate_proj.weight"), 1)
_WIDTH |= dict.fromkeys(("up_proj.weight", "q_proj.weight", "k_proj.weight", "v_proj.weight"), 1)
_WIDTH |= dict.fromkeys(("o_proj.weight", "o_proj.bias", "down_proj.weight", "down_proj.bias"), 0)
_HEAD_NORMS = ("q_norm.weight", "k_norm.weight")
# Numbers that are read at once.
_PART = 1 << 22

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class _Cut:
    """What is left of an axis of a tensor."""

    axis: int
    keep: Mask


@checked
def cut_checkpoint(
    path: str | Path,
    out: str | Path,
    *,
    feed_forward: float | int | None = None,
    heads: float | int | None = None,
    width: float | int | None = None,
    multiple_of: int = 1,
    overwrite: bool = False,
) -> MergedFile:
    """Cut a checkpoint's feed-forward channels, heads and width, one tensor at a time.

    A network that does not fit in memory can be cut so, and trained on when it does. Each block
    keeps as many channels, those with the largest product of the norms of their weights; a head of
    keys and values goes with the heads that read it. Of the width, those channels stay whose
    weights in all tensors have the largest norm. The size of heads, which the config names as
    `head_dim`, and the number of blocks stay; `stack_blocks` leaves blocks out.

    Args:
        path: A folder of `.safetensors` with a `config.json`, sharded with an index or not, whose
            tensors are named as those of Llama: `model.layers.0.mlp.up_proj.weight`.
        out: The new folder.
        feed_forward: How many of the feed-forward channels of each block stay: a share (`float`) or
            a number (`int`); `None` keeps all.
        heads: How many of the heads of keys and values of each block stay: a share or a number;
            `None` keeps all.
        width: How many channels of what passes from block to block stay (`hidden_size`): a share
            or a number; `None` keeps all.
        multiple_of: Keep multiples of so many feed-forward channels.
        overwrite: Whether an existing folder may be replaced.

    Returns:
        The new folder, which is written whole or not at all; its config has the new sizes.

    Raises:
        FusionError: When the checkpoint has other tensors or another config, or nothing would be
            cut.
        ModelError: When the folder cannot be read.
        InputError: When the folder cannot be written at this path.

    Example:
        >>> cut_checkpoint("llama", "half", feed_forward=0.5, heads=0.5)  # doctest: +SKIP
    """
    check_whole("multiple_of", multiple_of, kind=FusionError)
    target = check_paths([path], out, overwrite)
    with files.open_store(Path(path)) as store:
        config = _config(Path(path))
        sizes = _new_sizes(config, feed_forward, heads, width, multiple_of)
        cuts = _cuts(store, config, sizes)
        entries = {
            name: replace(entry, shape=_shape(entry, cuts[name]))
            for name, entry in store.entries.items()
        }
        write_whole(target, lambda draft: _write(draft, store, entries, cuts, config | sizes))
    return MergedFile(target, len(entries), sum(e.nbytes for e in entries.values()), None, ())


def _config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise FusionError(f"'{path}' has no config.json, which the sizes are in: give the folder.")
    found = parse_json(file.read_text(encoding="utf-8"), f"'{file}'", FusionError)
    needed = ("hidden_size", "intermediate_size", "num_attention_heads")
    missing = [name for name in needed if not isinstance(found, dict) or name not in found]
    if missing:
        raise FusionError(
            f"'{file}' has no {', '.join(missing)}: only checkpoints like those of Llama can be "
            "cut without a model."
        )
    heads = found["num_attention_heads"]
    return {
        **found,
        "num_key_value_heads": found.get("num_key_value_heads") or heads,
        "head_dim": found.get("head_dim") or found["hidden_size"] // heads,
    }


def _new_sizes(
    config: Mapping[str, Any],
    feed_forward: float | int | None,
    heads: float | int | None,
    width: float | int | None,
    multiple_of: int,
) -> dict[str, int]:
    inner, keys = config["intermediate_size"], config["num_key_value_heads"]
    hidden = _left("width", width, config["hidden_size"])
    left = _left("feed_forward", feed_forward, inner)
    if left < inner:
        left = max(multiple_of, left // multiple_of * multiple_of)
    keys_left = _left("heads", heads, keys)
    if left >= inner and keys_left >= keys and hidden >= config["hidden_size"]:
        raise FusionError(
            f"Nothing would be cut: all {inner} feed-forward channels, {keys} heads of keys and "
            f"values and a width of {hidden} stay. Give a lower feed_forward, heads or width."
        )
    if hidden < config["hidden_size"] and str(config.get("model_type")).startswith("gemma"):
        raise FusionError(
            "Gemma multiplies its embeddings by the root of its width, so that width= would change "
            "them: cut the loaded model with PruneChannels, or give feed_forward or heads."
        )
    readers = config["num_attention_heads"] // keys
    return {
        "intermediate_size": min(left, inner),
        "num_key_value_heads": keys_left,
        "num_attention_heads": keys_left * readers,
        "hidden_size": hidden,
    }


def _left(name: str, wanted: float | int | None, size: int) -> int:
    if wanted is None:
        return size
    whole = isinstance(wanted, int)
    if not is_number(wanted) or not 0 < wanted <= (size if whole else 1):
        raise FusionError(
            f"{name}={wanted!r}: give a share up to 1.0, or a number from 1 to {size}."
        )
    return int(wanted) if whole else max(1, round(wanted * size))


def _cuts(
    store: Store, config: Mapping[str, Any], sizes: Mapping[str, int]
) -> dict[str, tuple[_Cut, ...]]:
    """For each tensor, the axes that get smaller and what is left of them."""
    inner, keys, width = (
        config[name] for name in ("intermediate_size", "num_key_value_heads", "hidden_size")
    )
    found: dict[str, _Cut] = {}
    for block in blocks_of(store, block_prefix(store)).values():
        names = {".".join(after.split(".")[-2:]): name for after, name in block.items()}
        if sizes["intermediate_size"] < inner:
            scores = _scores(store, names, _FEED_FORWARD, _WEIGHED, inner)
            keep = _best(scores, sizes["intermediate_size"])
            found |= _of_axes(store, names, _FEED_FORWARD, keep)
        if sizes["num_key_value_heads"] < keys:
            scores = _scores(store, names, _HEADS, _WEIGHED_HEADS, keys)
            keep = _best(scores, sizes["num_key_value_heads"])
            found |= _of_axes(store, names, _HEADS, keep)
    cuts: dict[str, tuple[_Cut, ...]] = {
        name: (found[name],) if name in found else () for name in store.entries
    }
    if sizes["hidden_size"] < width:
        axes = _width_axes(store, width)
        squares = sum((_squares(store, *one) for one in axes.items()), start=np.zeros(width))
        keep = _best(squares, sizes["hidden_size"])
        for name, axis in axes.items():
            cuts[name] += (_Cut(axis, keep),)
    return cuts


def _width_axes(store: Store, width: int) -> dict[str, int]:
    """The axis of each tensor that is as long as the network is wide."""
    found = {}
    for name, entry in store.entries.items():
        part = ".".join(name.split(".")[-2:])
        norm = part.endswith("norm.weight") and part not in _HEAD_NORMS
        axis = 0 if norm else _WIDTH.get(part)
        if axis is not None and entry.shape[axis : axis + 1] == (width,):
            found[name] = axis
        elif axis is not None or (width in entry.shape and part not in {**_FEED_FORWARD, **_HEADS}):
            raise FusionError(
                f"Tensor '{name}' of '{store.path}' has shape {entry.shape}, and which of it goes "
                f"with a width of {width} is known only of networks like Llama: leave out width=."
            )
    return found


def _squares(store: Store, name: str, axis: int) -> NDArray[np.float64]:
    """The sum of the squares of a tensor along all axes but one, of the first two."""
    shape = store.entries[name].shape
    squares = np.zeros(shape[axis])
    array = store.array(name)
    for rows in _parts(shape):
        chunk = np.square(np.asarray(array[rows]).astype(np.float64))
        if axis == 0:
            squares[rows] = chunk.reshape(len(chunk), -1).sum(axis=1)
        else:
            squares += chunk.sum(axis=0)
    return squares


def _scores(
    store: Store,
    names: Mapping[str, str],
    axes: Mapping[str, int],
    weighed: tuple[str, ...],
    count: int,
) -> NDArray[np.float64]:
    """The product of the norms of the weights of each channel, or of all channels of a head."""
    scores = np.ones(count)
    met = [part for part in weighed if part in names]
    # What is written to the stream decides, whatever else there is.
    if weighed[-1] not in met:
        raise FusionError(
            f"A block of '{store.path}' has no {weighed[-1]}, but {', '.join(sorted(names))}: only "
            "checkpoints with tensors named as in Llama can be cut without a model."
        )
    for part in met:
        entry = store.entries[names[part]]
        size, axis = entry.shape[axes[part]], axes[part]
        if size % count:
            raise FusionError(
                f"Tensor '{names[part]}' of '{store.path}' has {size} channels, which are no "
                f"multiple of the {count} in its config: the config belongs to another network."
            )
        squares = _squares(store, names[part], axis)
        scores *= np.sqrt(squares.reshape(count, -1).sum(axis=1))
    return scores


def _best(scores: NDArray[np.float64], count: int) -> Mask:
    keep = np.zeros(len(scores), dtype=bool)
    keep[np.argsort(-scores, kind="stable")[:count]] = True
    return keep


def _of_axes(
    store: Store, names: Mapping[str, str], axes: Mapping[str, int], keep: Mask
) -> dict[str, _Cut]:
    found = {}
    for part, axis in axes.items():
        if part in names:
            size = store.entries[names[part]].shape[axis]
            found[names[part]] = _Cut(axis, np.repeat(keep, size // len(keep)))
    return found


def _shape(entry: Entry, cuts: tuple[_Cut, ...]) -> tuple[int, ...]:
    left = {cut.axis: int(cut.keep.sum()) for cut in cuts}
    return tuple(left.get(axis, size) for axis, size in enumerate(entry.shape))


def _parts(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of a tensor, a few at a time."""
    step = max(1, _PART // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0] if shape else 0, step):
        yield slice(start, min(start + step, shape[0]))


def _write(
    draft: Path,
    store: Store,
    entries: Mapping[str, Entry],
    cuts: Mapping[str, tuple[_Cut, ...]],
    config: Mapping[str, Any],
) -> None:
    with files.new_store(draft, store, entries) as made:
        for name, entry in store.entries.items():
            given, taken = store.array(name), made.array(name)
            done = 0
            if not entry.shape:
                taken[...] = given
            for rows in _parts(entry.shape):
                part = given[rows]
                for cut in cuts[name]:
                    keep = cut.keep[rows] if cut.axis == 0 else cut.keep
                    part = np.compress(keep, part, axis=cut.axis)
                taken[done : done + len(part)] = part
                done += len(part)
    (draft / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
