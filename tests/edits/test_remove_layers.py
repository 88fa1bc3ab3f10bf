"""Blocks and layers are found from the graph, ranked by what they do, and left out whole."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import saikei as sk
from saikei.edits import Recipe, RemoveLayers
from saikei.edits.depth.dominators import dead_calls
from saikei.edits.depth.find import find_units
from saikei.edits.depth.ranking import RANKINGS
from saikei.edits.depth.units import KINDS
from saikei.errors import BudgetError, EditError
from saikei.graph import read
from tests.edits import depth_nets
from tests.edits.depth_nets import NETS, finished, outputs, samples

RESIDUAL = ("residual",)


def found(model: keras.Model, *kinds: str) -> list[str]:
    return [unit.name for unit in find_units(read(model), kinds or KINDS)]


def silence(model: keras.Model, layer: str) -> None:
    for weight in model.get_layer(layer).weights:
        weight.assign(np.zeros(weight.shape))


def assert_same(model: keras.Model, other: keras.Model) -> None:
    ours, theirs = outputs(model), outputs(other)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(ours).max()


# --- what is found


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("net", "kinds", "names"),
    [
        ("post_activation", ("residual",), ["sum0", "sum1", "sum2"]),
        ("post_activation", ("projection",), ["down"]),
        ("inverted", ("residual",), ["add", "add_1", "add_2"]),
        ("encoder", ("residual",), ["attended0", "fed0", "attended1", "fed1"]),
        ("encoder", ("block",), ["attended0+fed0", "attended1+fed1"]),
        ("post_norm", ("block",), ["attended0+fed0", "attended1+fed1"]),
        ("decoder", ("block",), ["own0+cross0+fed0", "own1+cross1+fed1"]),
        ("nested", ("residual",), ["inner0", "inner1", "outer", "behind"]),
        ("plain", ("plain",), ["keeps", "narrows"]),
        ("plain", ("residual", "projection", "block"), []),
    ],
)
def test_units_are_found_from_the_graph(net: str, kinds: tuple[str, ...], names: list[str]) -> None:
    keras.backend.clear_session(free_memory=False)
    assert found(NETS[net](), *kinds) == names


@pytest.mark.parametrize(
    ("name", "residual", "projection"),
    [
        ("ResNet50", 12, 4),
        ("MobileNetV2", 10, 0),
        # Where a stage of ResNet50V2 ends, the shortcut is a pooling.
        pytest.param("ResNet50V2", 9, 7, marks=pytest.mark.slow),
        pytest.param("EfficientNetB0", 9, 0, marks=pytest.mark.slow),
        pytest.param("ConvNeXtTiny", 18, 0, marks=pytest.mark.slow),
        pytest.param("InceptionResNetV2", 40, 0, marks=pytest.mark.slow),
    ],
)
def test_known_architectures_have_as_many_as_published(
    name: str, residual: int, projection: int
) -> None:
    size = 75 if name == "InceptionResNetV2" else 32
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3))
    assert len(found(model, "residual")) == residual
    assert len(found(model, "projection")) == projection


def test_plain_layers_within_a_branch_are_units_only_where_branches_are_not() -> None:
    model = depth_nets.post_activation()
    assert found(model, "residual", "plain") == ["sum0", "sum1", "sum2", "last_down"]
    assert "last0" in found(model, "plain")


def test_sums_that_are_no_shortcuts_are_left_alone() -> None:
    x = keras.Input((4,))
    a, b = L.Dense(4, activation="relu")(x), L.Dense(4, activation="relu")(x)
    both = L.Add()([a, b])
    gated = L.Multiply()([both, L.Dense(4)(both)])
    positions = L.Add()([gated, L.ReLU()(gated)])
    model = keras.Model(x, [L.Dense(4)(positions), L.Add()([positions, positions])])
    assert found(model, "residual", "projection", "block") == []


def test_a_bias_that_several_layers_add_is_no_shortcut() -> None:
    """As the relative positions of T5, which all layers add to their attention scores."""
    x = inputs = keras.Input((4,))
    bias = L.Dense(4)(L.Dense(6)(inputs))
    for number in range(2):
        scores = L.Add(name=f"scores{number}")([L.Dense(4)(x), bias])
        x = L.Add(name=f"sum{number}")([x, L.Dense(4)(L.ReLU()(scores))])
    assert found(keras.Model(inputs, L.Dense(2)(x)), "residual") == ["sum0", "sum1"]


def test_what_depends_on_a_shape_alone_is_no_branch() -> None:
    x = keras.Input((5, 4))
    y = L.Dense(4, name="first")(x)
    positions = L.EinsumDense("abc,cd->abd", (5, 4))(keras.ops.ones_like(y))
    y = L.Add(name="located")([y, positions])
    y = L.Add(name="branched")([y, L.Dense(4)(y)])
    assert found(keras.Model(x, L.Dense(2)(y)), "residual") == ["branched"]


def test_a_difference_is_a_shortcut_from_its_first_input() -> None:
    x = keras.Input((4,))
    y = L.Dense(4, name="first")(x)
    y = L.Subtract(name="minus")([y, L.Dense(4)(y)])
    y = L.Subtract(name="turned")([L.Dense(4)(y), y])
    assert found(keras.Model(x, L.Dense(2)(y)), "residual") == ["minus"]


# --- what is left


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("net", "kinds"),
    [
        *((net, KINDS) for net in NETS),
        ("post_activation", ("residual", "plain")),
        ("plain", ("plain",)),
        *(
            pytest.param(net, kinds, marks=pytest.mark.slow)
            for net in NETS
            for kinds in (("residual", "plain"), ("plain",))
            if (net, kinds[0]) not in (("post_activation", "residual"), ("plain", "plain"))
        ),
    ],
)
def test_all_of_them_can_go_and_nothing_dead_is_left(net: str, kinds: tuple[str, ...]) -> None:
    model = NETS[net]()
    graph = RemoveLayers(1.0, kinds=kinds).apply(read(model))
    assert not dead_calls(graph, {})
    assert set(graph.operations) == {call.operation for call in graph.calls}
    smaller = RemoveLayers(1.0, kinds=kinds)(model)
    assert smaller.count_params() < model.count_params()
    assert outputs(smaller).shape == outputs(model).shape
    for unit in find_units(graph, kinds):
        # What was part of a chain may be a unit by itself now.
        assert unit.kind in ("plain", "projection")


SILENT = [
    ("post_activation", "last1", "sum1"),
    ("inverted", "last1", "add_1"),
    ("encoder", "last1", "fed1"),
    ("encoder", "attention1", "attended1"),
    ("post_norm", "last0", "fed0"),
    ("decoder", "last1", "fed1"),
    ("nested", "last1", "inner1"),
]


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("ranking", "net", "layer", "unit"),
    [
        pytest.param(
            ranking,
            *silent,
            # Each compiles a model; one ranking at least tries each network.
            marks=() if ranking == "weights" or silent[0] == "nested" else pytest.mark.slow,
        )
        for ranking in RANKINGS
        for silent in SILENT
    ],
)
def test_a_silent_branch_goes_first_and_without_a_trace(
    net: str, layer: str, unit: str, ranking: str
) -> None:
    keras.backend.clear_session(free_memory=False)
    model = NETS[net]()
    silence(model, layer)
    # With labels at random, another part may well be worse than useless.
    data = (samples(model)[0], np.argmax(outputs(model), axis=-1))
    if ranking == "loss":
        data = (samples(model)[0], outputs(model))
    edit = RemoveLayers(1, ranking, kinds=RESIDUAL)
    plan = edit.plan(model, data)
    assert plan.removed == (unit,)
    smaller = edit(model, data)
    assert smaller.count_params() < model.count_params()
    # The refit leaves alone what is right already.
    assert_same(model, smaller)


def test_a_silent_projection_branch_and_a_silent_block_leave_no_trace() -> None:
    model = depth_nets.post_activation()
    silence(model, "last_down")
    assert_same(model, RemoveLayers(1.0, kinds=("projection",))(model))
    model = depth_nets.encoder(norm_first=False)
    silence(model, "last0")
    silence(model, "attention0")
    edit = RemoveLayers(1, "influence", kinds=("block",))
    assert edit.plan(model, samples(model)).removed == ("attended0+fed0",)
    assert_same(model, edit(model, samples(model)))


def test_a_layer_that_gives_back_what_it_reads_goes_first() -> None:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((4,))
    for number in range(3):
        x = L.Dense(3, activation="relu", name=f"dense{number}")(x)
    model = finished(inputs, L.Dense(3)(x))
    model.get_layer("dense2").kernel.assign(np.eye(3))
    silence_bias(model, "dense2")
    for ranking in ("influence", "output"):
        edit = RemoveLayers(1, ranking)
        assert edit.plan(model, samples(model)).removed == ("dense2",)
        assert_same(model, edit(model, samples(model)))


def silence_bias(model: keras.Model, layer: str) -> None:
    bias = model.get_layer(layer).bias
    bias.assign(np.zeros(bias.shape))


# --- how much goes, and in which order


def offsets(*values: float) -> keras.Model:
    """Residual branches that each add a constant."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((2,))
    for number, value in enumerate(values):
        constant = keras.initializers.Constant(value)
        y = L.Dense(2, kernel_initializer="zeros", bias_initializer=constant)(x)
        x = L.Add(name=f"adds{number}")([x, y])
    return keras.Model(inputs, x)


def test_each_step_looks_at_what_is_gone_already() -> None:
    # The first and the last alone do the least harm; the first two make up for each other.
    model = offsets(1.0, -1.2, 1.1)
    data = (np.random.default_rng(0).standard_normal((50, 2)).astype("float32"), np.zeros(50))
    plan = RemoveLayers(2, "output").plan(model, data)
    first, second, third = (unit.score or 0 for unit in plan.units)
    assert first < third < second
    assert plan.removed == ("adds0", "adds1")


def test_a_harmful_branch_goes_by_the_loss() -> None:
    model = offsets(0.1, 2.0)
    x = np.random.default_rng(0).standard_normal((50, 2)).astype("float32")
    plan = RemoveLayers(1, "loss").plan(model, (x, x))
    assert plan.removed == ("adds1",)
    scores = [unit.score for unit in plan.units]
    assert scores == pytest.approx([0.0 - (2.1**2 - 2.0**2), 0.1**2 - 2.1**2], rel=1e-3)


def test_weights_of_samples_count_for_the_loss() -> None:
    model = offsets(0.1, 2.0)
    x = np.random.default_rng(0).standard_normal((50, 2)).astype("float32")
    # Half of the labels want the branch that the other half, without a weight, does not.
    counts = (np.arange(50) % 2).astype("float32")
    y = np.where(counts[:, None] > 0, x, x + 2.1)
    assert RemoveLayers(1, "loss").plan(model, (x, y, counts)).removed == ("adds1",)
    assert RemoveLayers(1, "loss").plan(model, (x, y, 1 - counts)).removed == ("adds0",)


def test_shares_and_counts_are_of_the_smallest_parts() -> None:
    model = depth_nets.encoder(blocks=3)
    both = RemoveLayers(0.34, kinds=("residual", "block")).plan(model).removed
    assert len(both) + sum("+" in name for name in both) == 2
    assert len(RemoveLayers(0.34, kinds=("block",)).plan(model).removed) == 1
    assert len(RemoveLayers(0.25, kinds=RESIDUAL).plan(model).removed) == 2
    assert len(RemoveLayers(0.01, kinds=RESIDUAL).plan(model).removed) == 1
    # One part that holds two others is too much for a count of one.
    inner = RemoveLayers(1, "influence", layers=("outer", "inner0", "inner1"))
    assert "outer" not in inner.plan(depth_nets.nested(), samples(depth_nets.nested())).removed


@pytest.mark.parametrize("limits", [{"params": 0.7}, {"macs": 0.5}, {"params": 0.8, "macs": 0.8}])
def test_a_budget_is_kept_by_as_few_as_it_takes(limits: dict[str, float]) -> None:
    model = depth_nets.encoder(blocks=3)
    budget = sk.Budget(**limits)
    edit = RemoveLayers(budget, kinds=RESIDUAL)
    original = sk.profile(model, latency=False)
    assert budget.fits(sk.profile(edit(model), latency=False), original)
    names = edit.plan(model).removed
    one_less = RemoveLayers(1.0, kinds=RESIDUAL, layers=names[:-1])(model)
    assert not budget.fits(sk.profile(one_less, latency=False), original)


def test_a_budget_out_of_reach_is_refused_with_what_is_reached() -> None:
    model = depth_nets.encoder()
    reached = r"params can be brought down to 115 \(8\.\d+ %\) by leaving out all 4"
    with pytest.raises(BudgetError, match=reached):
        RemoveLayers(sk.Budget(params=100), kinds=RESIDUAL)(model)
    with pytest.raises(EditError, match=r"keeps the budget 'params ≤ 1,000,000' as it is"):
        RemoveLayers(sk.Budget(params=1_000_000))(model)


@pytest.mark.parametrize(
    "net",
    ["nested", "plain", *(pytest.param(n, marks=pytest.mark.slow) for n in ("decoder", "encoder"))],
)
def test_the_plan_has_the_costs_of_each_part_and_replays(net: str) -> None:
    model = NETS[net]()
    data = samples(model)
    plan = RemoveLayers(0.5, kinds=KINDS).plan(model, data)
    before = sk.profile(model, latency=False)
    for unit in plan.units:
        assert unit.name in str(plan)
        after = sk.profile(
            RemoveLayers(1.0, kinds=KINDS, layers=(unit.name,))(model), latency=False
        )
        gone = (before.params - after.params, before.macs - after.macs)
        assert gone == (unit.params, unit.macs)
    replayed = Recipe.from_json(Recipe([plan.edit]).to_json())(model, data)
    assert_same(RemoveLayers(0.5, kinds=KINDS)(model, data), replayed)


def test_the_refit_makes_up_for_a_branch_that_mattered() -> None:
    model = depth_nets.post_activation()
    x, y = samples(model, 400)
    errors = []
    for compensate in (False, True):
        edit = RemoveLayers(2, "influence", kinds=RESIDUAL, compensate=compensate)
        smaller = edit(model, (x[:300], y[:300]))
        ours, theirs = (m.predict_on_batch(x[300:]) for m in (smaller, model))
        errors.append(float(np.square(ours - theirs).mean()))
    assert errors[1] < 0.8 * errors[0]


# --- choices and refusals


def test_layers_choose_the_smallest_part_that_they_are_in() -> None:
    model = depth_nets.nested()

    def gone(*layers: str) -> set[str]:
        smaller = RemoveLayers(1.0, kinds=RESIDUAL, layers=layers)(model)
        return {la.name for la in model.layers} - {la.name for la in smaller.layers}

    assert {"last1", "inner1"} <= gone("last1") == gone("inner1")
    assert gone("outer") > gone("inner0", "last1")
    assert "behind" not in gone("outer")


def test_what_is_excluded_stays_and_so_does_what_holds_it() -> None:
    model = depth_nets.nested()
    plan = RemoveLayers(1.0, kinds=RESIDUAL, exclude=("last1",)).plan(model)
    assert plan.removed == ("inner0", "behind")
    assert "last1" in {la.name for la in plan.edit(model).layers}


def test_what_gives_an_output_of_the_model_stays() -> None:
    model = depth_nets.plain()
    assert "head" not in found(model)
    x = keras.Input((4,))
    with pytest.raises(EditError, match="finds nothing to leave out of model 'tiny'"):
        RemoveLayers(0.5, kinds=RESIDUAL)(keras.Model(x, L.Add()([x, L.Dense(4)(x)]), name="tiny"))


def test_without_data_plain_layers_stay_and_a_model_of_nothing_else_is_refused() -> None:
    model = depth_nets.post_activation()
    plan = RemoveLayers(0.75).plan(model)
    scores = {unit.name: unit.score for unit in plan.units}
    assert plan.ranking == "weights" and scores["last_down"] is None
    assert "last_down" not in plan.removed and len(plan.removed) == 2
    assert "unknown" in str(plan)
    with pytest.raises(EditError, match=r"cannot rank by weights alone .* hand in data"):
        RemoveLayers(0.5)(depth_nets.plain())
    with pytest.raises(EditError, match=r"ranking='loss'\) looks at data, and none is given"):
        RemoveLayers(0.5, "loss")(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"remove": 0.0}, "a share has to be above 0"),
        ({"remove": 1.5}, "a share has to be above 0"),
        ({"remove": 0}, "has to be at least 1"),
        ({"remove": True}, "give a number or a Budget"),
        ({"remove": 1, "ranking": "luck"}, "use one of influence, loss, output, weights"),
        ({"remove": 1, "kinds": ()}, "give some of residual, projection, block, plain"),
        ({"remove": 1, "kinds": ("dense",)}, "give some of residual"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(EditError, match=message):
        RemoveLayers(**arguments)


def test_names_and_numbers_that_do_not_fit_the_model_are_refused() -> None:
    model = depth_nets.post_activation()
    with pytest.raises(EditError, match="'head', which is in no part .* these are sum0, sum1"):
        RemoveLayers(1.0, layers=("head",))(model)
    with pytest.raises(EditError, match="'nowhere', which is in no part"):
        RemoveLayers(1.0, exclude=("nowhere",))(model)
    with pytest.raises(EditError, match="only 3 parts can be left out"):
        RemoveLayers(4, kinds=RESIDUAL)(model)
    with pytest.raises(EditError, match="all parts .* are excluded"):
        RemoveLayers(1, exclude=("sum0", "sum1", "sum2", "last_down"))(model)


# --- odd models


def test_a_block_that_is_called_twice_can_go_from_one_place() -> None:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((4,))
    dense, add = L.Dense(4, name="shared"), L.Add(name="sum")
    for _ in range(2):
        x = add([x, dense(x)])
    model = finished(inputs, L.Dense(3)(x))
    assert found(model, "residual") == ["sum", "sum#2"]
    once = RemoveLayers(1.0, kinds=RESIDUAL, layers=("sum#2",))(model)
    assert "shared" in {la.name for la in once.layers}
    assert len(read(once).calls) == len(read(model).calls) - 2


def test_two_outputs_with_features_from_within_keep_what_they_need() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = L.Dense(4)(inputs)
    inside = L.Dense(4, name="inside")(x)
    x = L.Add(name="sum")([x, L.Dense(4, name="gone")(inside)])
    model = finished(inputs, {"head": L.Dense(3)(x), "features": inside, "sum": x})
    smaller = RemoveLayers(1.0, kinds=RESIDUAL)(model)
    names = {la.name for la in smaller.layers}
    assert "inside" in names and not {"gone", "sum"} & names
    assert set(smaller.output) == {"head", "features", "sum"}


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_policies_stay_and_every_ranking_works_with_them(policy: str) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = L.Activation("tanh", dtype=policy)(inputs)
    for number in range(3):
        y = L.Dense(4, dtype=policy, trainable=number > 0)(x)
        x = L.Add(dtype=policy)([x, y])
    model = finished(inputs, L.Dense(3, dtype="float32", activation="softmax")(x))
    for ranking in RANKINGS:
        smaller = RemoveLayers(1, ranking, kinds=RESIDUAL)(model, samples(model))
        dense = [la for la in smaller.layers if isinstance(la, L.Dense)]
        assert [la.dtype_policy.name for la in dense] == [policy, policy, "float32"]
        assert sum(not la.trainable for la in dense) <= 1


@pytest.mark.parametrize(
    "attention", [lambda: L.MultiHeadAttention(4, 2), lambda: L.GroupQueryAttention(2, 4, 2)]
)
def test_a_branch_of_attention_is_ranked_by_its_weights(attention: Any) -> None:
    x = keras.Input((5, 8))
    y = L.Add(name="sum")([x, attention()(x, x)])
    (unit,) = RemoveLayers(1).plan(keras.Model(x, L.Dense(3)(y))).units
    assert unit.name == "sum" and 0 < unit.score < 1


def test_many_blocks_are_ranked_on_inputs_alone() -> None:
    tensor = x = keras.Input((8,))
    for _ in range(16):
        x = keras.layers.Add()([x, keras.layers.Dense(8)(x)])
    model = keras.Model(tensor, keras.layers.Dense(3)(x))
    data = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
    assert len(RemoveLayers(0.25)(model, data).layers) == 26
