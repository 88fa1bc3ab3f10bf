"""Whether networks were fine-tuned from one network, judged by the correlation of their weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saikei.errors import FusionError
from saikei.merging.files import Store
from saikei.merging.kernels.blocks import Array, is_float

# Kernels of different seeds correlate by about 0, fine-tuned ones by more than 0.9.
_LEAST = 0.5
# Numbers of each kernel that are compared: a few runs, far apart from each other.
_RUNS, _RUN = 8, 512


def check_correlation(stores: Sequence[Store], with_base: bool) -> float | None:
    """The least correlation of the members' kernels, over a sample of each.

    Args:
        stores: The tensors of the members, and those of a base behind them.
        with_base: Whether the last store is a base, which all members are compared with;
            otherwise they are compared with the first member.

    Returns:
        The least correlation; `None` without kernels.

    Raises:
        FusionError: Naming a file whose kernels do not correlate.
    """
    root = stores[-1] if with_base else stores[0]
    kernels = [
        name
        for name, entry in root.entries.items()
        if len(entry.shape) > 1
        and entry.nbytes
        and is_float(entry.dtype)
        and all(name in s.entries and s.entries[name].shape == entry.shape for s in stores)
    ]
    if not kernels:
        return None
    ours = _sampled(root, kernels)
    least = 1.0
    for store in stores:
        if store is root:
            continue
        correlation = _correlation(ours, _sampled(store, kernels))
        if correlation < _LEAST:
            raise FusionError(
                f"The kernels of '{store.path}' do not correlate with those of '{root.path}' "
                f"({correlation:.2f}), as if they came from another seed, so a merge is useless: "
                "load them and use Soup, which aligns their channels, or skip "
                "this check with check=False."
            )
        least = min(least, correlation)
    return least


def _sampled(store: Store, names: Sequence[str]) -> list[Array]:
    found = []
    for name in names:
        flat = store.array(name).reshape(-1)
        starts = np.linspace(0, max(0, flat.size - _RUN), _RUNS).astype(int)
        parts = [flat[start : start + _RUN] for start in np.unique(starts)]
        found.append(np.concatenate(parts).astype(np.float64))
    return found


def _correlation(ours: Sequence[Array], theirs: Sequence[Array]) -> float:
    """The mean correlation of kernels, weighted by how many numbers were taken of each."""
    total, size = 0.0, 0
    for a, b in zip(ours, theirs, strict=True):
        a, b = a - a.mean(), b - b.mean()
        lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
        same = 1.0 if np.array_equal(a, b) else 0.0
        total += len(a) * (float(a @ b) / lengths if lengths > 0 else same)
        size += len(a)
    return total / size if size else 1.0
