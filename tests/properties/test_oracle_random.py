"""The oracle over random graphs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from saikei.channels import map_channels
from saikei.costs import count_costs, profile
from saikei.edits import PruneChannels, Recipe
from saikei.errors import EditError
from saikei.graph import build, copy_model, read
from saikei.testing import (
    assert_cuts_exactly,
    random_inputs,
    randomise_statistics,
)
from tests.properties.random_graphs import ANY, random_models

pytestmark = pytest.mark.backends

# JAX compiles each operation for each shape, which takes some ten seconds for each graph.
BACKEND = keras.backend.backend()
EXAMPLES = {"tensorflow": 3, "torch": 4, "jax": 2}[BACKEND]
FEWER = {"tensorflow": 1, "torch": 2, "jax": 10}[BACKEND]
# To look for a smaller graph that fails takes minutes there; TensorFlow fails on it as well.
FOUND_AS_IT_IS = (Phase.explicit, Phase.reuse, Phase.generate)
thorough = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=settings().phases if BACKEND == "tensorflow" else FOUND_AS_IT_IS,
    suppress_health_check=list(HealthCheck),
)


def predict(model: keras.Model, batch: object) -> list[np.ndarray]:
    outputs = keras.tree.flatten(model(batch, training=False))
    return [keras.ops.convert_to_numpy(output) for output in outputs]


# Other graphs in every run, and many: the run that finds a new fault prints how to repeat it.
fresh = settings(thorough, max_examples=300 // FEWER, derandomize=False, print_blob=True)


@thorough
@given(random_models(), st.integers(0, 1000), st.floats(0.1, 0.9))
def test_pruning_silent_channels_changes_nothing(
    model: keras.Model, seed: int, share: float
) -> None:
    randomise_statistics(model, seed)
    assert_cuts_exactly(model, share, seed)


@thorough
@given(random_models(ANY), st.integers(0, 1000))
def test_pruning_unread_channels_changes_nothing(model: keras.Model, seed: int) -> None:
    randomise_statistics(model, seed)
    assert_cuts_exactly(model, 0.5, seed, readers=True)


@pytest.mark.slow
@fresh
@given(random_models(), st.integers(0, 1000), st.floats(0.1, 0.9))
def test_pruning_silent_channels_of_fresh_graphs_changes_nothing(
    model: keras.Model, seed: int, share: float
) -> None:
    randomise_statistics(model, seed)
    assert_cuts_exactly(model, share, seed)


@pytest.mark.slow
@fresh
@given(random_models(ANY), st.integers(0, 1000))
def test_pruning_unread_channels_of_fresh_graphs_changes_nothing(
    model: keras.Model, seed: int
) -> None:
    randomise_statistics(model, seed)
    assert_cuts_exactly(model, 0.5, seed, readers=True)


@settings(thorough, max_examples=min(EXAMPLES, 4))
@given(random_models(ANY))
def test_a_copy_is_the_same_function_with_other_variables(model: keras.Model) -> None:
    batch = random_inputs(model, np.random.default_rng(0))
    twin = copy_model(model)
    for ours, theirs in zip(predict(twin, batch), predict(model, batch), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not {id(v) for v in twin.variables} & {id(v) for v in model.variables}


@settings(thorough, max_examples=min(EXAMPLES, 4))
@given(random_models(ANY), st.sampled_from(["layer", "global"]), st.integers(0, 100))
def test_costs_counted_before_the_cut_are_those_of_the_model_that_is_built(
    model: keras.Model, scope: str, seed: int
) -> None:
    edit = PruneChannels(0.6, "random", scope=scope, seed=seed)  # type: ignore[arg-type]
    channel_map = map_channels(read(model))
    try:
        mask = edit._mask(channel_map, None)
    except EditError:
        return
    built = profile(Recipe([edit])(model), latency=False)
    counted = count_costs(channel_map, mask)
    assert (counted.params, counted.macs) == (built.params, built.macs)


@settings(thorough, max_examples=min(EXAMPLES, 4))
@given(random_models())
def test_reading_what_was_built_gives_the_same_groups(model: keras.Model) -> None:
    graph = read(model)
    first = [(g.name, g.size, g.pinned is None) for g in map_channels(graph).groups]
    again = [(g.name, g.size, g.pinned is None) for g in map_channels(read(build(graph))).groups]
    assert first == again
