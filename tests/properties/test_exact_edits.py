"""Edits that are declared exact are exact, over random graphs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei.edits import FoldBatchNorm, RemoveNoOps
from saikei.graph import Graph, build, new_operation, read, replace_operations, unused_name
from saikei.testing import random_inputs, randomise_statistics
from tests.properties.random_graphs import ANY, STEPS, make_model

SEEDS = [*range(2), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))]


def random_model(seed: int) -> keras.Model:
    steps = np.random.default_rng(seed).choice(STEPS, 8)
    # Each of these brings a BatchNormalization.
    model = make_model(["nested", *map(str, steps), "normalised"], seed, ANY)
    randomise_statistics(model, seed)
    return model


def assert_same(model: keras.Model, other: keras.Model, seed: int) -> None:
    batch = random_inputs(model, np.random.default_rng(seed))
    pairs = zip(outputs(model, batch), outputs(other, batch), strict=True)
    for ours, theirs in pairs:
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(ours).max()


def outputs(model: keras.Model, batch: object) -> list[np.ndarray]:
    flat = keras.tree.flatten(model(batch, training=False))
    return [keras.ops.convert_to_numpy(y) for y in flat]


@pytest.mark.parametrize("seed", SEEDS)
def test_folding_batch_normalisation_predicts_the_same(seed: int) -> None:
    assert FoldBatchNorm.exact
    model = random_model(seed)
    folded = FoldBatchNorm()(model)
    assert folded.count_params() < model.count_params()
    assert_same(model, folded, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_ops_put_in_anywhere_are_found_again(seed: int) -> None:
    assert RemoveNoOps.exact
    model = random_model(seed)
    graph = read(model)
    padded = with_no_ops(graph, np.random.default_rng(seed))
    smaller = RemoveNoOps().apply(padded)
    # Activations of their own outputs may go as well.
    assert len(smaller.calls) <= len(graph.calls) < len(padded.calls)
    assert_same(model, build(smaller), seed)


def with_no_ops(graph: Graph, generator: np.random.Generator) -> Graph:
    """One behind every third operation of one input that gives none of the outputs."""
    unfit = {graph.calls[ref.call].operation for ref in graph.output_refs()}
    # What takes other arguments beside its input is not rewritten as a chain.
    unfit |= {
        call.operation
        for call in graph.calls
        if len(call.inputs()) != 1 or len(call.args) + len(call.kwargs) != 1
    }
    chains = {}
    for name, operation in graph.operations.items():
        if name in unfit or generator.random() > 0.33:
            continue
        made = [L.Dropout(0.3), L.Activation("linear"), L.Identity(), L.Rescaling(1.0)]
        layer = made[generator.integers(len(made))]
        chains[name] = (operation, new_operation(unused_name(graph, f"{name}_no_op"), layer))
    return replace_operations(graph, chains)
