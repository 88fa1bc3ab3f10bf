"""Label vectors: which source channel each index of a tensor axis is.

A *label* is an integer. A *label vector* is a 1-D array with one label for each index of an
axis. An axis without a vector (`None`) cannot be cut. `Labels` has one entry for each axis of
a tensor, the batch axis first.
"""

from __future__ import annotations

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
class Flow:
    """How labels pass through one call.

    Args:
        outputs: labels of each output tensor.
        weights: labels of each axis of each weight, by weight name.
        sizes: config entries that are channel counts: a vector stands for the number of its
            labels that are kept; tuples nest, and integers in them stay as they are;
            dictionaries are entries of a nested config.
        constants: labels of constant arrays among the arguments, by their flat position.
        ties: vectors that this call makes equal.
        pins: labels that this call makes uncuttable.
        produced: `(weight, axis)` of axes that make channels, beyond those of the outputs'.
        rescale: for a weight, the vector and the power: when the vector is cut, the weight is
            multiplied by the kept share to that power.
        inexact: why the call is another function once its channels are cut, even if they were
            silent; `None` where it is the same.
    """

    outputs: tuple[Labels, ...]
    weights: dict[str, Labels] = field(default_factory=dict)
    sizes: dict[str, object] = field(default_factory=dict)
    constants: dict[int, Labels] = field(default_factory=dict)
    ties: tuple[Tie, ...] = ()
    pins: tuple[Pin, ...] = ()
    produced: tuple[tuple[str, int], ...] = ()
    rescale: dict[str, tuple[Vector, float]] = field(default_factory=dict)
    inexact: str | None = None


@dataclass
class LabelSource:
    """Hands out labels that nobody has yet, and remembers for whom."""

    count: int = 0
    blocks: list[tuple[int, int, str]] = field(default_factory=list)

    def fresh(self, size: int, owner: str) -> Vector:
        """`size` new labels for the operation `owner`."""
        start = self.count
        self.count += size
        self.blocks.append((start, size, owner))
        return np.arange(start, start + size, dtype=np.int64)


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
