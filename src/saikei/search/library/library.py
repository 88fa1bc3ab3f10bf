"""`Library`: what each option of a model loses and costs, as a value that goes through JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from saikei.codec import from_jsonable, to_jsonable
from saikei.costs import Counts
from saikei.edits.options import Option
from saikei.errors import InputError
from saikei.reading import parse_json
from saikei.writing import write_text

NAME = "library.json"

Unit = Literal["nats", "share of variance", "nats and shares of variance"]


@dataclass(frozen=True)
class Measured:
    """An option that was applied alone, refitted, and compared with the original.

    Args:
        option: The option.
        loss: Divergence of the outputs from those of the original, in the library's unit.
        error: Standard error of the loss, from the differences between rows.
        costs: What the whole model costs with this option alone.
    """

    option: Option
    loss: float
    error: float
    costs: Counts


@dataclass(frozen=True)
class Pair:
    """Two options that lose more together than alone.

    Args:
        first: The one that replaces layers by new ones.
        both: The other one, of the layers that the new layers read, with the loss and the costs of
            both together.
    """

    first: Option
    both: Measured


@dataclass(frozen=True)
class LeftOut:
    """An option that cannot be applied, or changes nothing.

    Args:
        option: The option.
        reason: Why, in a sentence.
    """

    option: Option
    reason: str


@dataclass(frozen=True)
class Library:
    """Every option of a model alone, with what it loses and what the model costs with it.

    Args:
        entries: The options that can be applied, in the order of their places in the model.
        left_out: The other options that were offered, with the reason.
        depth: Blocks that are removed one after the other, the least harmful first: loss and
            costs of each entry are those of the model without this block and all before it.
        original: What the original costs.
        rows: How many held-out rows the losses are measured on.
        unit: Of the losses: `"nats"` for classes, `"share of variance"` for numbers; a sum of
            both for a model with outputs of both kinds.
        passes: Work that it took, as rows for which the whole original was computed once.
        pairs: Options that replace layers, together with others of what the new layers read.
    """

    entries: tuple[Measured, ...]
    left_out: tuple[LeftOut, ...]
    depth: tuple[Measured, ...]
    original: Counts
    rows: int
    unit: Unit
    passes: float
    pairs: tuple[Pair, ...] = ()

    @property
    def sites(self) -> Mapping[str, tuple[Measured, ...]]:
        """The entries of each place, of which a structure has at most one."""
        found: dict[str, list[Measured]] = defaultdict(list)
        for entry in self.entries:
            found[entry.option.site].append(entry)
        return {site: tuple(entries) for site, entries in found.items()}

    def added_loss(self, entry: Measured, replaced: Measured | None) -> float:
        """What an option adds to the loss of a structure.

        Args:
            entry: The option alone.
            replaced: The option of the structure that replaces layers; `None` for none.
        """
        if replaced is not None:
            both = self._together.get((*_place(replaced.option), *_place(entry.option)))
            if both is not None:
                return max(both.loss - max(replaced.loss, 0.0), 0.0)
        return max(entry.loss, 0.0)

    @cached_property
    def _together(self) -> Mapping[tuple[str, ...], Measured]:
        return {(*_place(pair.first), *_place(pair.both.option)): pair.both for pair in self.pairs}

    def save(self, folder: Path) -> Path:
        """Write the library into a folder, as `library.json`.

        Args:
            folder: Path of the folder.

        Raises:
            DiskError: When the file cannot be written.
        """
        return write_text(folder / NAME, json.dumps(to_jsonable(self), indent=1))

    @classmethod
    def load(cls, folder: Path) -> Library:
        """Read the library of a folder.

        Args:
            folder: Path of the folder.

        Raises:
            InputError: When there is no such file, or it is damaged.
        """
        path = folder / NAME
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"'{path}' cannot be read: {error}.") from error
        return from_jsonable(cls, parse_json(text, f"'{path}'", InputError))


def _place(option: Option) -> tuple[str, str]:
    return option.site, option.change
