"""From a library to structures: how fast a front is, and how well real losses are predicted.

The first part makes a library of ResNet50 whose costs are counted and whose losses are made up,
since time does not depend on them, and answers 20 budgets from it. The second part trains a small
residual network on digits, measures its library, stitches and refits random structures, and
compares predicted with real divergence.

    pip install '.[tensorflow]'
    python benchmarks/search_library.py
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import saikei as sk
from saikei.channels import map_channels
from saikei.costs import Counts, count_costs
from saikei.costs.per_call import CallCosts, calls_of
from saikei.datasets import digits
from saikei.edits import Factorize, PruneChannels, RemoveLayers
from saikei.edits.options import Option, stitch
from saikei.errors import SaikeiError
from saikei.graph import Graph, build, read
from saikei.search.library import Library, Measured
from saikei.search.propose import Proposer, agreement, random_structures

BUDGETS = np.linspace(0.1, 0.9, 20)
ROWS = 256


def main() -> None:
    """Run both parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structures", type=int, default=50, help="random structures to measure")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--skip-resnet", action="store_true", help="only the second part")
    arguments = parser.parse_args()
    if not arguments.skip_resnet:
        front_of_resnet()
    for seed in arguments.seeds:
        predicted_and_real(seed, arguments.structures)


def front_of_resnet() -> None:
    """The time of 20 budgets on ResNet50."""
    graph = read(keras.applications.ResNet50(weights=None))
    library = made_up(graph)
    print(f"ResNet50: {len(library.sites)} sites, {len(library.entries)} options")
    begin = time.perf_counter()
    proposer = Proposer(graph, library)
    spaces = proposer.spaces()
    print(f"  tables of costs: {time.perf_counter() - begin:.2f} s, once ({len(spaces)} depths)")
    begin = time.perf_counter()
    front = proposer.path("macs")
    found = [front.within(share * library.original.macs) for share in BUDGETS]
    seconds = time.perf_counter() - begin
    kept = sum(one is not None for one in found)
    print(f"  front of {len(front.points)} steps and {kept} of 20 budgets: {seconds:.2f} s")
    begin = time.perf_counter()
    structure = sk.search.propose.resolved(proposer, sk.Budget(macs=0.3))
    seconds = time.perf_counter() - begin
    share = structure.costs.macs / library.original.macs
    print(f"  one budget with its graph counted: {seconds:.2f} s, {share:.4f} of the MACs for 0.3")


def made_up(graph: Graph) -> Library:
    """A library of channel cuts with counted costs and made-up losses."""
    channel_map = map_channels(graph)
    whole = count_costs(channel_map)
    costs, draw = CallCosts(channel_map), np.random.default_rng(0)
    groups = [group for group in channel_map.groups if not group.pinned]
    by_group = zip(groups, calls_of(channel_map, groups), strict=True)
    calls = {group.name: indices for group, indices in by_group}
    entries = []
    for option in PruneChannels.options(graph):
        name = option.site.removeprefix("channels:")
        keep = np.ones(channel_map.count, dtype=bool)
        starts = {owner: start for start, _, owner in channel_map.blocks}
        assert isinstance(option.edit, sk.DropChannels)
        for layer, gone in option.edit.channels.items():
            keep[channel_map.channel_of[starts[layer] + np.array(gone)]] = False
        saved = sum(costs.of(i) - costs.of(i, keep) for i in calls[name])
        counts = Counts(
            params=whole.params - int(saved[1]),
            macs=whole.macs - int(saved[0]),
            bytes=whole.bytes - int(saved[2]),
        )
        loss = float(draw.uniform(0.2, 2) * (saved[0] / whole.macs) ** 0.7)
        entries.append(Measured(option, loss, 0.0, counts))
    return Library(tuple(entries), (), (), whole, 0, "nats", 0.0)


def predicted_and_real(seed: int, count: int) -> None:
    """Rank correlation of predicted and real divergence of random structures."""
    data = digits(seed)
    x, y = data.train
    held_out = data.validation[0][:ROWS] if data.validation is not None else x[-ROWS:]
    model = trained(seed, (x, y))
    graph = read(model)
    given = np.asarray(model(held_out), np.float64)

    def loss(options: tuple[Option, ...]) -> float:
        made = build(stitch(graph, options, (x[:ROWS], y[:ROWS]))[1])
        outputs = np.asarray(made(held_out), np.float64)
        return float(np.mean(np.sum(given * np.log((given + 1e-9) / (outputs + 1e-9)), axis=1)))

    begin = time.perf_counter()
    library = measured(graph, loss, (x[:ROWS], y[:ROWS]))
    print(
        f"digits, seed {seed}: {len(library.sites)} sites, {len(library.entries)} options, "
        f"{time.perf_counter() - begin:.0f} s"
    )
    space = Proposer(graph, library).space(0)
    structures = random_structures(space, count, np.random.default_rng(seed))
    found = agreement(library, structures, [loss(options) for options in structures])
    print(
        f"  {count} random structures: rank correlation {found.correlation:.3f}, with a weight for "
        f"each method {found.reweighted_correlation:.3f}; real over predicted {found.ratio:.2f}"
    )


def trained(seed: int, data: tuple[np.ndarray, np.ndarray]) -> keras.Model:
    """A small residual network."""
    keras.utils.set_random_seed(seed)
    tensor = keras.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(tensor)
    for number in range(2):
        y = layers.Conv2D(24, 3, padding="same", activation="relu", name=f"wide{number}")(x)
        y = layers.Conv2D(16, 3, padding="same", name=f"narrow{number}")(y)
        x = layers.Activation("relu")(layers.Add(name=f"add{number}")([x, y]))
    x = layers.Conv2D(32, 3, activation="relu", name="top")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(layers.Flatten()(x))
    model = keras.Model(tensor, layers.Dense(10, activation="softmax", name="classes")(x))
    sk.fit(model, data, epochs=8, batch_size=32, learning_rate=3e-3, seed=seed, progress=False)
    return model


def measured(
    graph: Graph, loss: Callable[[tuple[Option, ...]], float], data: tuple[np.ndarray, np.ndarray]
) -> Library:
    """The library of channels, ranks and blocks."""
    entries = []
    for kind in (PruneChannels, Factorize, RemoveLayers):
        for option in kind.options(graph, data):
            try:
                costs = count_costs(map_channels(stitch(graph, (option,))[1]))
                entries.append(Measured(option, loss((option,)), 0.0, costs))
            except SaikeiError:
                continue
    whole = count_costs(map_channels(graph))
    return Library(tuple(entries), (), (), whole, ROWS, "nats", 0.0)


if __name__ == "__main__":
    main()
