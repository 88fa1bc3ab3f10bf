"""MiniRocket (Dempster, Schmidt and Webb, 2021) in NumPy, for one channel or several.

The authors' numbers are kept: 84 kernels of nine weights, of which three are 2 and six are -1;
dilations on an exponential scale up to the length of the series; biases that are quantiles of what
a kernel gives on a random training series; for each bias the share of values above it. With several
channels each pair of kernel and dilation adds up a random choice of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

KERNELS = [*combinations(range(9), 3)]
DILATIONS = 32
GOLDEN = (5**0.5 + 1) / 2


class MiniRocket(TransformerMixin, BaseEstimator):
    """Features of series `(n, time, channels)`, about as many as `count`."""

    def __init__(self, count: int = 10_000, seed: int = 0) -> None:
        self.count = count
        self.seed = seed

    def fit(self, x: np.ndarray, y: Any = None) -> MiniRocket:  # noqa: ARG002 - scikit-learn's
        """Choose dilations, channels and biases."""
        rng = np.random.default_rng(self.seed)
        length, channels = x.shape[1:]
        each = self.count // len(KERNELS)
        exponents = np.linspace(0, np.log2((length - 1) / 8), min(each, DILATIONS))
        self.dilations_, counts = np.unique(np.floor(2**exponents).astype(int), return_counts=True)
        counts = counts * each // counts.sum()
        counts[: each - counts.sum()] += 1
        wide = [[channel_subset(rng, channels) for _ in KERNELS] for _ in self.dilations_]
        self.channels_ = wide
        quantiles = np.arange(1, len(KERNELS) * each + 1) * GOLDEN % 1
        self.biases_ = []
        used = 0
        for place, count in enumerate(counts):
            row = x[rng.integers(len(x), size=1)]
            for _, values in self._convolved(row, place):
                self.biases_.append(np.quantile(values, quantiles[used : used + count]))
                used += count
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        """The features, `(n, about count)`."""
        parts, biases = [], iter(self.biases_)
        for place, dilation in enumerate(self.dilations_):
            margin = 4 * dilation
            for kernel, values in self._convolved(x, place):
                inner = values if (kernel + place) % 2 == 0 else values[:, margin:-margin]
                parts += [(inner > bias).mean(axis=1) for bias in next(biases)]
        return np.stack(parts, axis=1).astype("float32")

    def _convolved(self, x: np.ndarray, place: int) -> Iterator[tuple[int, np.ndarray]]:
        """What each kernel gives with one of the dilations, `(n, time)`, padded by zeros."""
        dilation, length = self.dilations_[place], x.shape[1]
        padded = np.pad(x, ((0, 0), (4 * dilation, 4 * dilation), (0, 0)))
        shifted = [padded[:, tap * dilation : tap * dilation + length] for tap in range(9)]
        whole = np.sum(shifted, axis=0)
        for kernel, taps in enumerate(KERNELS):
            chosen = self.channels_[place][kernel]
            three = shifted[taps[0]] + shifted[taps[1]] + shifted[taps[2]]
            yield kernel, (3 * three - whole)[:, :, chosen].sum(axis=2)


def channel_subset(rng: np.random.Generator, channels: int) -> np.ndarray:
    """Few channels more often than many, at most nine."""
    count = int(2 ** rng.uniform(0, np.log2(min(channels, 9) + 1)))
    return rng.choice(channels, count, replace=False)
