"""Label vectors: which source channel each index of a tensor axis is.

A *label* is an integer. A *label vector* is a 1-D array with one label for each index of an
axis. An axis without a vector (`None`) cannot be cut. `Labels` has one entry for each axis of
a tensor, the batch axis first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.int64]
Labels: TypeAlias = tuple[Vector | None, ...]


@dataclass(frozen=True)
class Tie:
    """Two vectors of one length whose labels are the same channels, index by index."""

    first: Vector
    second: Vector


@dataclass(frozen=True)
class Pin:
    """Labels that must never be cut, and why."""

    labels: Vector
    reason: str


@dataclass(frozen=True)
class Rescale:
    """Weights that a cut multiplies by `(kept / all) ** power`, so that the function stays.

    Attention divides its scores by the square root of the key width; with fewer key channels
    it divides by less, and the query weights make up for it.

    Args:
        weights: Names of the weights.
        labels: The vector whose share of kept labels counts.
        power: Exponent of that share.
    """

    weights: tuple[str, ...]
    labels: Vector
    power: float


@dataclass(frozen=True)
class Flow:
    """How labels pass through one call.

    Args:
        outputs: Labels of each output tensor.
        weights: Labels of each axis of each weight, by weight name.
        sizes: Config entries that are channel counts: a vector stands for the number of its
            labels that are kept; tuples nest, and anything else stays as it is. `"a/b"` is the
            entry `b` of the entry `a`.
        settings: Labels of config entries that are arrays.
        constants: Labels of constant arrays among the arguments, by their flat position.
        arguments: Arguments that are channel counts, by their flat position, written like
            `sizes`; slices nest too.
        ties: Vectors that this call makes equal.
        pins: Labels that this call makes uncuttable.
        produces: For each weight, its axes whose channels the call makes; when not given, those
            whose labels the outputs have.
        rescale: Weights that a cut multiplies by a number.
        inexact: Why the other channels change when a silent one goes; `None` where they do not.
        whole: Why none of the layer's weights is cut; empty where one is, or it has none.
    """

    outputs: tuple[Labels, ...]
    weights: dict[str, Labels] = field(default_factory=dict)
    sizes: dict[str, object] = field(default_factory=dict)
    settings: dict[str, Labels] = field(default_factory=dict)
    constants: dict[int, Labels] = field(default_factory=dict)
    arguments: dict[int, object] = field(default_factory=dict)
    ties: tuple[Tie, ...] = ()
    pins: tuple[Pin, ...] = ()
    produces: Mapping[str, tuple[int, ...]] | None = None
    rescale: tuple[Rescale, ...] = ()
    inexact: str | None = None
    whole: str = ""


@dataclass
class LabelSource:
    """Makes labels that are not in use yet, and records the operation that each is for.

    Args:
        outer: Whether labels stay on the last but one axis, not the last, where they can stay on
            one of several only (in a reshape that splits or joins axes).
        chosen: Labels that had to choose.
    """

    count: int = 0
    blocks: list[tuple[int, int, str]] = field(default_factory=list)
    outer: bool = False
    chosen: list[Vector] = field(default_factory=list)

    def fresh(self, size: int, owner: str, part: str = "") -> Vector:
        """`size` new labels for the operation `owner`.

        Args:
            size: The number of labels.
            owner: The operation's name.
            part: What they are, where the operation makes labels of several kinds.
        """
        start = self.count
        self.count += size
        self.blocks.append((start, size, f"{owner}/{part}" if part else owner))
        return np.arange(start, start + size, dtype=np.int64)

    def choose(self, axes: Sequence[int], vectors: Sequence[Vector]) -> int:
        """One of several axes to carry labels; remembered, so that another can be tried.

        Args:
            axes: Two axes or more, in order.
            vectors: The labels at stake.
        """
        self.chosen.extend(vectors)
        return axes[-2] if self.outer else axes[-1]


def labelled(labels: Labels) -> list[tuple[int, Vector]]:
    """The axes that have labels, with their vectors."""
    return [(axis, vector) for axis, vector in enumerate(labels) if vector is not None]


def pin_all(tensors: tuple[Labels, ...], reason: str) -> tuple[Pin, ...]:
    """Pins for every label of every tensor."""
    return tuple(Pin(vector, reason) for labels in tensors for _, vector in labelled(labels))


def bind_blocks(vector: Vector, blocks: int) -> tuple[Tie, ...]:
    """Tie the labels within each of `blocks` equal runs of the vector together."""
    table = vector.reshape(blocks, -1)
    first = np.repeat(table[:, :1], table.shape[1] - 1, axis=1)
    return (Tie(first.ravel(), table[:, 1:].ravel()),)
