"""Structures under a budget: kept when counted, of every family, nested for deep cuts."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import keras
import numpy as np
import pytest

from saikei import Budget, PruneChannels
from saikei.channels import map_channels
from saikei.costs import Counts, count_costs
from saikei.edits import DropChannels
from saikei.edits.options import stitch
from saikei.errors import BudgetError
from saikei.search.propose import Proposal, Proposer, Structure, check_reachable, propose, resolve
from saikei.search.propose.exact import Counter
from saikei.search.propose.reality import (
    agreement,
    fit_weights,
    parts_of,
    random_structures,
)
from saikei.search.propose.space import AXES
from tests.search.propose.small import graph, library, made_up_reality, network


@cache
def proposer() -> Proposer:
    return Proposer(graph(), library())


@cache
def proposed() -> Proposal:
    return propose(graph(), library(), Budget(macs=0.3), measure=made_up_reality, shares=(1, 0.5))


def counted(structure: Structure) -> Counts:
    """The costs of the graph that its recipe makes."""
    assert structure.recipe is not None
    return count_costs(map_channels(structure.recipe.apply(graph())))


@pytest.mark.long
def test_every_structure_keeps_its_share_of_the_budget_when_it_is_counted() -> None:
    for structure in proposed().structures:
        assert counted(structure) == structure.costs
        if structure.family != "halfway":
            assert structure.costs.macs <= 0.3 * structure.share * library().original.macs


def test_uniform_shape_is_among_the_structures_of_every_share() -> None:
    for share in (1, 0.5):
        found = [s for s in proposed().structures if s.share == share and s.family == "uniform"]
        assert len(found) == 1
        # Nothing near the limit is given away.
        assert found[0].costs.macs >= 0.8 * 0.3 * share * library().original.macs


def test_the_best_loses_no_more_than_the_others_as_predicted_and_exchanged_as_measured() -> None:
    whole = [s for s in proposed().structures if s.share == 1 and s.family != "halfway"]
    by_family = {s.family: s for s in reversed(whole)}
    best = by_family["knapsack"]
    for family in ("no depth", "depth", "uniform"):
        if family in by_family:
            assert best.predicted <= by_family[family].predicted + 1e-9
    if "swapped" in by_family:
        swapped = by_family["swapped"]
        assert swapped.measured is not None and best.measured is not None
        assert swapped.measured < best.measured


def test_methods_that_save_nothing_are_tried_on_the_best() -> None:
    variants = [s for s in proposed().structures if s.family == "variant"]
    assert variants and all(
        any(option.method == "activation" for option in s.options) for s in variants
    )


def test_names_are_unique() -> None:
    structures = proposed().structures
    assert len({s.name for s in structures}) == len(structures)


def test_a_deep_cut_is_reached_in_two_steps() -> None:
    structures = {s.name: s for s in proposed().structures}
    deep = [s for s in structures.values() if s.via is not None]
    assert deep
    for structure in deep:
        assert structure.via is not None and structure.step is not None
        first = structures[structure.via]
        assert first.recipe is not None and first.costs.macs > structure.costs.macs
        second = structure.step.apply(first.recipe.apply(graph()))
        assert count_costs(map_channels(second)).macs <= 1.05 * structure.costs.macs


@pytest.mark.parametrize("share", [0.3, 0.2])
def test_the_second_step_goes_on_in_the_order_of_recipes(share: float) -> None:
    # As if every other activation were better, and splitting a layer cheaper than cutting it.
    factors = {"activation": -1.0, "factorize": 0.1}
    entries = tuple(
        replace(e, loss=factors.get(e.option.method, 1.0) * e.loss) for e in library().entries
    )
    found = propose(graph(), replace(library(), entries=entries), Budget(macs=share))
    structures = {s.name: s for s in found.structures}
    deep = [s for s in structures.values() if s.via is not None]
    assert any({"activation", "factorize"} <= {o.method for o in s.options} for s in deep)
    for structure in deep:
        assert structure.via is not None and structure.step is not None
        first = structures[structure.via].recipe
        assert first is not None
        # A layer whose activation is replaced has another name: it is split before that.
        before, after = (
            [edit.stage for edit in recipe.edits if not isinstance(edit, DropChannels)]
            for recipe in (first, structure.step)
        )
        assert max(before, default=0) <= min(after, default=9)
        second = structure.step.apply(first.apply(graph()))
        assert count_costs(map_channels(second)).macs <= 1.05 * structure.costs.macs


@pytest.mark.parametrize(
    "budget",
    [
        Budget(macs=0.6),
        Budget(params=0.4),
        Budget(bytes=30_000),
        Budget(memory=0.7),
        Budget(macs=0.5, bytes=0.5, memory=0.8),
        Budget(macs=0.05),
    ],
    ids=str,
)
def test_a_budget_is_resolved_from_the_library_alone(budget: Budget) -> None:
    structure = resolve(library(), graph(), budget)
    assert budget.fits(counted(structure), library().original)
    assert structure.measured is None and structure.predicted > 0


def test_the_original_is_resolved_where_it_keeps_the_budget() -> None:
    structure = resolve(library(), network(), Budget(macs=1.0))
    assert structure.recipe is None and structure.predicted == 0


@pytest.mark.long
def test_a_latency_is_measured_on_the_built_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def milliseconds(model: object, batch_size: int = 32, **_: object) -> float:
        # Half of the time does not depend on the MACs.
        from saikei.graph import read

        share = count_costs(map_channels(read(model))).macs / library().original.macs
        return batch_size * (0.5 + 0.5 * share)

    for module in ("exact", "proposer"):
        monkeypatch.setattr(f"saikei.search.propose.{module}.measure_latency", milliseconds)
    entries = tuple(e for e in library().entries if e.option.method == "prune")
    channels = replace(library(), entries=entries)
    structure = resolve(channels, graph(), Budget(latency=0.7, batch_size=4))
    assert structure.costs.latency is not None and structure.costs.latency <= 0.7 * 4
    assert structure.costs.macs <= 0.4 * library().original.macs
    with pytest.raises(BudgetError, match="latency can be brought down to"):
        resolve(channels, graph(), Budget(latency=0.4, batch_size=4))


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(macs=10), r"macs can be brought down to [\d,]+ \(.*\) by .*prune"),
        (Budget(memory=0.01, macs=0.5), "memory can be brought down to .* bytes"),
    ],
    ids=str,
)
def test_a_budget_below_all_methods_is_refused_with_the_smallest_value(
    budget: Budget, message: str
) -> None:
    for ask in (resolve, lambda *a: propose(a[1], a[0], a[2])):
        with pytest.raises(BudgetError, match=message):
            ask(library(), graph(), budget)


@pytest.mark.parametrize(("method", "median", "most"), [("prune", 1e-9, 1e-9), ("", 0.15, 1.5)])
def test_predicted_costs_are_those_of_the_graph_for_channels_and_near_them_for_others(
    method: str, median: float, most: float
) -> None:
    draw = np.random.default_rng(1)
    counter = Counter(graph(), Budget(macs=0.5))
    errors = []
    for depth in range(3):
        space = proposer().space(depth, memory=True)
        for _ in range(4):
            levels = np.array(
                [
                    int(draw.integers(len(site.losses)))
                    if method in ("", site.options[0].method)
                    else 0
                    for site in space.sites
                ]
            )
            costs = counter(space.options(levels))[1]
            predicted = space.costs(levels)
            errors.append([predicted[n] / getattr(costs, axis) - 1 for n, axis in enumerate(AXES)])
    assert (np.median(np.abs(errors), axis=0) <= median).all()
    assert (np.abs(errors) <= most).all()


def test_no_option_of_layers_that_are_replaced_goes_with_their_replacement() -> None:
    spaces = [s for s in proposer().spaces() if any(o.method == "head" for o in s.first)]
    assert len(spaces) == 6  # two poolings, after 0, 1 and 2 blocks
    for structure in random_structures(spaces, 20, np.random.default_rng(0)):
        (head,) = (option for option in structure if option.method == "head")
        rest = [option for option in structure if option is not head]
        assert not any(set(option.layers) & set(head.layers) for option in rest)
        dense = next(o.option for o in library().sites["channels:hidden"])
        assert stitch(graph(), (*structure, dense))[0] == stitch(graph(), structure)[0]
        assert parts_of(library(), structure)["head"] > 0


def test_weights_of_methods_are_learned_from_real_losses() -> None:
    draw = np.random.default_rng(0)
    parts = [{"prune": draw.uniform(), "factorize": draw.uniform()} for _ in range(12)]
    real = [one["prune"] + 3 * one["factorize"] for one in parts]
    weights = fit_weights(parts, real)
    assert weights["factorize"] / weights["prune"] == pytest.approx(3, rel=0.25)


def test_the_rank_correlation_rises_by_the_weights() -> None:
    structures = random_structures(proposer().spaces(), 25, np.random.default_rng(0))
    found = agreement(library(), structures, [made_up_reality(one) for one in structures])
    assert found.reweighted_correlation >= max(found.correlation, 0.9)
    assert found.ratio > 1


def test_a_library_of_blocks_alone_and_one_without_options() -> None:
    blocks = replace(library(), entries=())
    found = propose(graph(), blocks, Budget(macs=0.7), shares=(1,)).structures
    assert found and all(s.options and s.costs.macs <= 0.7 * blocks.original.macs for s in found)
    empty = replace(blocks, depth=())
    assert resolve(empty, graph(), Budget(macs=1.0)).recipe is None
    with pytest.raises(BudgetError, match="can be brought down to 249,072"):
        resolve(empty, graph(), Budget(macs=0.5))


def test_a_budget_out_of_reach_is_refused_from_costs_alone() -> None:
    x = keras.Input((6,))
    dense = keras.layers.Dense(16, activation="relu")(x)
    model = keras.Model(x, keras.layers.Dense(3)(dense))
    data = np.zeros((20, 6), "float32")
    check_reachable(model, Budget(macs=0.3), data, [PruneChannels])
    with pytest.raises(BudgetError, match="macs"):
        check_reachable(model, Budget(macs=0.01), data, [PruneChannels])
