"""Reconstruction: the error that is left when the other channels make up for a lost one.

What a layer reads of a group, X, with covariance C, meets its weights W. Cutting the channels
with the others refitted by least squares costs tr(Wᵀ S W), where S is the Schur complement of C:
the part of the lost channels that the kept ones do not explain. Channels are taken away one after
the other, each time the one that costs least (optimal brain surgeon by columns; Hassibi & Stork,
1993; Frantar et al., "Optimal Brain Compression", 2022; for channels, Luo et al., "ThiNet", 2017).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, cho_solve, lapack, solve_triangular

from saikei.blas import one_thread
from saikei.calibration.samples import Samples
from saikei.channels import ChannelGroup, ChannelMap
from saikei.importance.readers import ReadAxis, Reading, in_channels, read_arrays, read_axes
from saikei.rules.labels import Vector

Matrix = NDArray[np.float64]

# Rows of a covariance; more hardly change it.
ROWS = 4096
ROWS_PER_CHANNEL = 4
# Added to the covariance, relative to the mean of its diagonal.
RIDGE = 1e-4
# Channels of wide groups go several at a time, so that a group takes at most this many steps.
STEPS = 64
# Matrices are made smaller when so many of their channels are gone.
MOST_GONE = 0.2


def reconstruction(
    channel_map: ChannelMap,
    generator: np.random.Generator,
    samples: Samples | None,
    groups: Collection[ChannelGroup] | None = None,
) -> NDArray[np.float64]:
    """The error there is once a channel and all that matter less have gone.

    It is the squared error after a refit of the layers that read the group, relative to what they
    compute of it, so it means the same in every group. Channels of groups that are not among
    `groups` get 0.
    """
    assert samples is not None
    scores = np.zeros(channel_map.count)
    chosen = channel_map.groups if groups is None else groups
    names = {group.name for group in chosen}
    for number, views in _views(channel_map, generator, samples, names):
        group = channel_map.groups[number]
        with one_thread(group.size):
            scores[group.channels] = _eliminate(views)
    return scores


class _View:
    """A group as the readers of one tensor see it.

    Of both matrices, which are symmetric, only the lower triangle is kept up to date.

    Args:
        covariance: Of the inputs, `(channels, channels)`. It is overwritten.
        readers: The weights `(outputs, channels)` of each reader.
    """

    def __init__(self, covariance: Matrix, readers: Iterable[Matrix]) -> None:
        size = len(covariance)
        self.gram = _gram(covariance, readers)
        covariance[np.diag_indices(size)] += RIDGE * np.trace(covariance) / size or 1.0
        # The inverse covariance of the channels that are left. A symmetric matrix is its transpose,
        # which is in the order that LAPACK overwrites.
        factor, _ = lapack.dpotrf(covariance.T, lower=1, overwrite_a=1)
        self.inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)

    def costs(self) -> Matrix:
        """The increase of the error if a channel that is left goes next, one for each."""
        return np.asarray(np.diag(self.gram) / np.diag(self.inverse))

    def remove(self, gone: NDArray[np.int64]) -> float:
        """Let the others make up for channels that go; what that costs.

        What the matrices have for those channels means nothing afterwards.
        """
        across, reads = _rows_of(self.inverse, gone), _rows_of(self.gram, gone)
        factor = np.linalg.cholesky(across[:, gone])
        half = solve_triangular(factor, across, lower=True)
        gain = solve_triangular(factor, half, lower=True, trans="T")
        cost = float(np.trace(cho_solve((factor, True), reads[:, gone])))
        # V ← V - GᵀV_g - V_gᵀG + GᵀV_ggG
        change = reads - 0.5 * reads[:, gone] @ gain
        update = {"beta": 1.0, "trans": 1, "lower": 1, "overwrite_c": 1}
        self.gram = blas.dsyr2k(-1.0, gain, change, c=self.gram, **update)
        self.inverse = blas.dsyrk(-1.0, half, c=self.inverse, **update)
        self.inverse[gone, gone] = 1.0
        return cost

    def compress(self, left: NDArray[np.int64]) -> None:
        """Forget all channels but those that are left, whose positions rise."""
        self.gram, self.inverse = (
            matrix.T[np.ix_(left, left)].T for matrix in (self.gram, self.inverse)
        )


def _gram(covariance: Matrix, readers: Iterable[Matrix]) -> Matrix:
    """The sum over readers of W Wᵀ / tr(Wᵀ C W), their weights relative to what they compute."""
    gram = np.zeros(covariance.shape, order="F")
    for weights in readers:
        own = weights.T @ weights
        total = float(np.vdot(own, covariance))
        if total > 0:
            own /= total
            gram += own
    return gram


def _rows_of(matrix: Matrix, rows: NDArray[np.int64]) -> Matrix:
    """Whole rows of a symmetric matrix of which only the lower triangle is up to date."""
    lower = np.arange(len(matrix)) <= rows[:, None]
    return np.where(lower, matrix[rows], matrix[:, rows].T)


def _views(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples, names: set[str]
) -> Iterator[tuple[int, list[_View]]]:
    """Each group with its views, as soon as all its readers have been met."""
    group_of = np.full(channel_map.count, -1)
    for number, group in enumerate(channel_map.groups):
        group_of[group.channels] = number if group.free.any() and group.name in names else -1
    waiting = Counter(
        number
        for _, channels in {(c.ref, c.axis): c.channels for c in read_axes(channel_map)}.items()
        for number in _groups_in(group_of, channels)
    )
    found: dict[int, list[_View]] = defaultdict(list)
    for reading in read_arrays(channel_map, samples):
        numbers = _groups_in(group_of, reading.axes[0].channels)
        covariances = _covariances(channel_map, generator, reading, numbers)
        for number in numbers:
            group = channel_map.groups[number]
            readers = (_weights(channel_map, carrier, group) for carrier in reading.axes)
            with one_thread(group.size):
                found[number].append(_View(covariances.pop(number), readers))
            waiting[number] -= 1
            if not waiting[number]:
                yield number, found.pop(number)


def _groups_in(group_of: NDArray[np.int64], channels: Vector) -> list[int]:
    return [int(number) for number in np.unique(group_of[channels]) if number >= 0]


def _covariances(
    channel_map: ChannelMap, generator: np.random.Generator, reading: Reading, numbers: list[int]
) -> dict[int, Matrix]:
    """The covariance of some rows of a tensor, in the channels of each of several groups."""
    found: dict[int, list[NDArray[Any]]] = {number: [] for number in numbers}
    carrier = reading.axes[0]
    for share, array in reading.parts if numbers else ():
        for number, parts in found.items():
            group = channel_map.groups[number]
            rows = in_channels(array, carrier.axis, carrier.channels, group)
            limit = round(share * max(ROWS, ROWS_PER_CHANNEL * group.size))
            if len(rows) > limit:
                rows = rows[np.sort(generator.choice(len(rows), limit, replace=False))]
            parts.append(rows)
    return {
        number: _covariance(found.pop(number), channel_map.groups[number].size)
        for number in numbers
    }


def _covariance(parts: list[NDArray[Any]], size: int) -> Matrix:
    """The covariance of the rows of all parts, which are let go of first."""
    rows = np.concatenate(parts, dtype=np.float64)
    parts.clear()
    rows -= rows.mean(axis=0)
    with one_thread(size):
        covariance = rows.T @ rows
    covariance /= len(rows)
    return covariance


def _weights(channel_map: ChannelMap, carrier: ReadAxis, group: ChannelGroup) -> Matrix:
    if not carrier.weights:
        return np.eye(group.size)
    parts = []
    for _, operation, name, axis in carrier.weights:
        array = channel_map.graph.operations[operation].weights[name].numpy().astype(np.float64)
        parts.append(in_channels(array, axis, carrier.channels, group))
    return np.concatenate(parts)


def _eliminate(views: list[_View]) -> Matrix:
    size = len(views[0].gram)
    scores = np.zeros(size)
    step = max(1, size // STEPS)
    # Which channels the matrices have, and whether they are gone.
    alive, gone = np.arange(size), np.zeros(size, dtype=bool)
    reached = 0.0
    while len(alive):
        costs = np.where(gone, np.inf, np.sum([view.costs() for view in views], axis=0))
        next_ones = np.argsort(costs, kind="stable")[: min(step, int((~gone).sum()))]
        # One after the other within a step too, so that no two channels score the same.
        own = np.maximum(costs[next_ones], 0)
        shares = np.cumsum(own) / max(float(own.sum()), np.finfo(float).tiny)
        cost = max(sum(view.remove(next_ones) for view in views), 0.0)
        scores[alive[next_ones]] = reached + cost * shares
        reached += cost
        gone[next_ones] = True
        if gone.mean() >= MOST_GONE:
            left = np.flatnonzero(~gone)
            alive, gone = alive[left], gone[left]
            for view in views:
                view.compress(left)
    return scores
