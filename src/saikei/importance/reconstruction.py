"""Reconstruction: the error that is left when the other channels make up for a lost one.

What a layer reads of a group, X, with covariance C, meets its weights W. Cutting the channels
with the others refitted by least squares costs tr(Wᵀ S W), where S is the Schur complement of C:
the part of the lost channels that the kept ones do not explain. Channels are taken away one after
the other, each time the one that costs least (optimal brain surgeon by columns; Hassibi & Stork,
1993; Frantar et al., "Optimal Brain Compression", 2022; for channels, Luo et al., "ThiNet", 2017).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saikei.blas import one_thread
from saikei.calibration.samples import Samples
from saikei.channels import ChannelGroup, ChannelMap
from saikei.importance.readers import ReadAxis, in_channels, read_arrays

Matrix = NDArray[np.float64]

# Rows of a covariance; more hardly change it.
ROWS = 4096
ROWS_PER_CHANNEL = 4
# Added to the covariance, relative to the mean of its diagonal.
RIDGE = 1e-4
# Channels of wide groups go several at a time, so that a group takes at most this many steps.
STEPS = 64


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
    views = _views(channel_map, generator, samples, names)
    for number, group in enumerate(channel_map.groups):
        if views[number]:
            with one_thread(group.size):
                scores[group.channels] = _eliminate(views[number])
    return scores


@dataclass
class _View:
    """A group as one reader sees it.

    Args:
        inverse: The inverse covariance of the channels that are left.
        gram: W Wᵀ of the weights, changed as the others make up for those that went.
        total: tr(Wᵀ C W), what the reader computes of the group.
    """

    inverse: Matrix
    gram: Matrix
    total: float

    @classmethod
    def of(cls, rows: Matrix, weights: Matrix) -> _View:
        """The view of inputs `(rows, channels)` and weights `(outputs, channels)`."""
        centred = rows - rows.mean(axis=0)
        covariance = centred.T @ centred / len(rows)
        size = len(covariance)
        ridge = RIDGE * np.trace(covariance) / size or 1.0
        gram = weights.T @ weights
        total = float(np.vdot(gram, covariance))
        return cls(np.linalg.inv(covariance + ridge * np.eye(size)), gram, total)

    def costs(self) -> Matrix:
        """The increase of the error if a channel that is left goes next, one for each."""
        if self.total <= 0:
            return np.zeros(len(self.gram))
        return np.asarray(np.diag(self.gram) / np.diag(self.inverse) / self.total)

    def remove(self, gone: NDArray[np.int64], left: NDArray[np.int64]) -> float:
        """Take channels away and let those that are left make up for them; what that costs."""
        block = self.inverse[np.ix_(gone, gone)]
        own = self.gram[np.ix_(gone, gone)]
        cost = float(np.trace(np.linalg.solve(block, own)))
        across = self.inverse[np.ix_(gone, left)]
        gain = np.linalg.solve(block, across).T
        # V ← V - GᵀV_g - V_gᵀG + GᵀV_ggG, in one product and its transpose.
        change = gain @ (self.gram[np.ix_(gone, left)] - 0.5 * own @ gain.T)
        self.gram = self.gram[np.ix_(left, left)]
        self.gram -= change
        self.gram -= change.T
        self.inverse = self.inverse[np.ix_(left, left)]
        self.inverse -= gain @ across
        return cost / self.total if self.total > 0 else 0.0


def _views(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples, names: set[str]
) -> dict[int, list[_View]]:
    group_of = np.full(channel_map.count, -1)
    for number, group in enumerate(channel_map.groups):
        group_of[group.channels] = number if group.free.any() and group.name in names else -1
    found: dict[int, list[_View]] = defaultdict(list)
    for carrier, array in read_arrays(channel_map, samples):
        for number in np.unique(group_of[carrier.channels]):
            if number < 0:
                continue
            group = channel_map.groups[number]
            rows = in_channels(array, carrier.axis, carrier.channels, group)
            limit = max(ROWS, ROWS_PER_CHANNEL * group.size)
            if len(rows) > limit:
                rows = rows[np.sort(generator.choice(len(rows), limit, replace=False))]
            weights = _weights(channel_map, carrier, group)
            with one_thread(group.size):
                found[int(number)].append(_View.of(rows.astype(np.float64), weights))
    return found


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
    alive = np.arange(size)
    step = max(1, size // STEPS)
    reached = 0.0
    while len(alive):
        costs = np.sum([view.costs() for view in views], axis=0)
        order = np.argsort(costs, kind="stable")
        gone, left = order[:step], np.sort(order[step:])
        # One after the other within a step too, so that no two channels score the same.
        shares = np.cumsum(costs[gone]) / max(float(costs[gone].sum()), np.finfo(float).tiny)
        cost = sum(view.remove(gone, left) for view in views)
        scores[alive[gone]] = reached + max(cost, 0.0) * shares
        reached += max(cost, 0.0)
        alive = alive[left]
    return scores
