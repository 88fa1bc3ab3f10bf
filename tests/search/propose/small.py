"""A small network with a library whose costs are counted and whose losses are made up."""

from __future__ import annotations

import zlib
from functools import cache

import keras
from keras import layers

from saikei.channels import map_channels
from saikei.costs import count_costs
from saikei.edits import (
    Factorize,
    PruneChannels,
    RemoveLayers,
    ReplaceActivation,
    ReplaceHead,
)
from saikei.edits.options import Option, stitch
from saikei.errors import SaikeiError
from saikei.graph import Graph, read
from saikei.search.library import Library, Measured


@cache
def network() -> keras.Model:
    """Convolutions, two of them beside shortcuts, and a dense head; untrained."""
    keras.utils.set_random_seed(0)
    tensor = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(12, 3, padding="same", activation="relu", name="conv1")(tensor)
    for number in (2, 3):
        y = layers.Conv2D(12, 3, padding="same", activation="relu", name=f"conv{number}")(x)
        x = layers.Add(name=f"add{number}")([x, y])
    x = layers.Conv2D(16, 3, activation="relu", name="conv4")(x)
    x = layers.Dense(24, activation="relu", name="hidden")(layers.Flatten(name="flatten")(x))
    return keras.Model(tensor, layers.Dense(10, activation="softmax", name="classes")(x))


@cache
def graph() -> Graph:
    return read(network())


def made_up_loss(option: Option, share: float) -> float:
    """More is lost where more is saved, at a rate that differs between sites."""
    rate = 0.2 + zlib.crc32(option.site.encode()) % 100 / 50
    kind = {"factorize": 0.5, "activation": 0.3}.get(option.method, 1.0)
    return kind * rate * (0.002 + (1 - share) ** 1.5)


@cache
def library() -> Library:
    """Every option of five methods, and two blocks that are removed one after the other."""
    whole = count_costs(map_channels(graph()))
    entries = []
    for kind in (PruneChannels, Factorize, ReplaceActivation, ReplaceHead):
        for option in kind.options(graph()):
            try:
                _, made = stitch(graph(), (option,))
            except SaikeiError:
                continue
            costs = count_costs(map_channels(made))
            loss = made_up_loss(option, costs.macs / whole.macs)
            entries.append(Measured(option, loss, 0.01, costs))
    depth: list[Measured] = []
    blocks = [o for o in RemoveLayers.options(graph()) if o.site in ("block:add2", "block:add3")]
    for number, option in enumerate(blocks, 1):
        _, made = stitch(graph(), blocks[:number])
        depth.append(Measured(option, 0.2 * number**2, 0.01, count_costs(map_channels(made))))
    assert len(depth) == 2
    return Library(tuple(entries), (), tuple(depth), whole, 64, "nats", 1.0)


def made_up_reality(options: tuple[Option, ...]) -> float:
    """What options lose together: more than the sum, and twice as much of ranks as is predicted."""
    known = {(e.option.site, e.option.change): e.loss for e in library().entries}
    blocks = {e.option.site: e.loss for e in library().depth}
    total = max((blocks.get(o.site, 0.0) for o in options), default=0.0)
    for option in options:
        loss = known.get((option.site, option.change), 0.1)
        total += loss * (2.0 if option.method == "factorize" else 1.0)
    return total**1.1
