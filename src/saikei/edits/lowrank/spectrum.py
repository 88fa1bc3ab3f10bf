"""The best products of two thin matrices for a matrix, or for each of a stack of them."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Spectrum:
    """Singular values of a stack of matrices, and their truncated decompositions.

    What a truncation to rank r loses, in squared Frobenius norm, is the sum of the discarded
    squared singular values, and no product of rank r loses less (Eckart and Young, 1936).

    The eigenvectors of the smaller Gram matrix are used, in float64: several times faster than
    a singular value decomposition, and singular values are then exact to 1e-8 of the largest,
    which is below the precision of float32 weights.

    Args:
        matrices: Finite numbers, `(stack, rows, columns)`.

    Attributes:
        energies: For each rank from 1 up, the squared singular value that it adds, summed over
            the stack; largest first.
    """

    def __init__(self, matrices: Array) -> None:
        self._matrices = np.asarray(matrices, dtype=np.float64)
        transposed = np.swapaxes(self._matrices, 1, 2)
        self._by_columns = self._matrices.shape[1] >= self._matrices.shape[2]
        gram = transposed @ self._matrices if self._by_columns else self._matrices @ transposed
        values, vectors = np.linalg.eigh(gram)
        self._vectors = vectors[:, :, ::-1]
        self.energies: Array = np.clip(values[:, ::-1], 0.0, None).sum(axis=0)

    @property
    def rank(self) -> int:
        """The largest rank there can be."""
        return len(self.energies)

    def losses(self) -> Array:
        """For each rank from 1 up, the share of the energy that is lost by it."""
        total = float(self.energies.sum())
        if total == 0.0:
            return np.zeros(self.rank)
        # Summed from the small end, so that a rank that holds everything loses about nothing.
        tails = np.concatenate([np.cumsum(self.energies[::-1])[::-1][1:], [0.0]])
        return np.asarray(tails / total)

    def factors(self, rank: int) -> tuple[Array, Array]:
        """Two stacks of matrices whose products are the best of that rank.

        Both carry the square root of each singular value, so that neither is much larger than
        the other, and gradients of both are of one size.

        Returns:
            Left `(stack, rows, rank)` and right `(stack, rank, columns)`.
        """
        vectors = self._vectors[:, :, :rank]
        if self._by_columns:
            left, right = self._matrices @ vectors, np.swapaxes(vectors, 1, 2)
            norms = np.linalg.norm(left, axis=1)
        else:
            left, right = vectors, np.swapaxes(vectors, 1, 2) @ self._matrices
            norms = np.linalg.norm(right, axis=2)
        scale = np.sqrt(np.where(norms > 0, norms, 1.0))
        if self._by_columns:
            return left / scale[:, None, :], right * scale[:, :, None]
        return left * scale[:, None, :], right / scale[:, :, None]
