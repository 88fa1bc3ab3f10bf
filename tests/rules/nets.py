"""Small models around one layer, and the oracle over them."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers as L

from saikei.channels import channel_groups
from saikei.testing import assert_cuts_exactly, randomise_statistics


def checked(
    model: keras.Model, readers: bool = False, loaded: bool | None = True
) -> dict[str, int]:
    """Run the oracle over a model, built and loaded; how many channels of each group can be cut."""
    randomise_statistics(model)
    for seed in range(2):
        also = loaded if seed == 0 else False
        check = assert_cuts_exactly(model, share=0.4, seed=seed, readers=readers, loaded=also)
        assert check.spread > 1e-4, "no signal reaches the output, so the check shows nothing"
    return {group.name: int(group.free.sum()) for group in channel_groups(model)}


def between(*layers: Any, channels: int = 12, shape: tuple[int, ...] = (6, 6, 2)) -> keras.Model:
    """Layers between a pointwise layer `a` and a classifier `out`, which read all positions."""
    rank = len(shape) - 1
    return keras.Sequential(
        [
            keras.Input(shape),
            L.Dense(channels, name="a"),
            *layers,
            getattr(L, f"GlobalMaxPooling{rank}D")(),
            L.Dense(3, name="out"),
        ]
    )


class Remembering(L.Layer):
    """A layer that cannot be traced, since it adds a loss."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.table = self.add_weight(shape=(shape[-1], 4), name="table")

    def call(self, x: object) -> object:
        self.add_loss(keras.ops.sum(x))
        return keras.ops.matmul(x, self.table)
