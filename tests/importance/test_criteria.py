"""Each criterion, on networks where the answer is known."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei import PruneChannels, Recipe
from saikei.calibration.samples import Samples, calibration_samples
from saikei.channels import ChannelGroup, ChannelMap, map_channels
from saikei.errors import EditError
from saikei.graph import build, read
from saikei.graph.compiling import Compiled
from saikei.importance import CRITERIA, Scores
from saikei.importance.objective import objective
from saikei.importance.readers import in_channels
from saikei.testing import randomise_statistics
from tests.calibration.nets import NETS, data_for, made

pytestmark = pytest.mark.backends


def scored(model: keras.Model, name: str, data: object = None) -> tuple[ChannelMap, Scores]:
    channel_map = map_channels(read(model))
    criterion = CRITERIA[name]
    samples = None
    if criterion.needs != "nothing":
        samples = calibration_samples(channel_map.graph, data)
    return channel_map, criterion.score(channel_map, np.random.default_rng(0), samples)


def group_of(channel_map: ChannelMap, layer: str) -> ChannelGroup:
    return next(group for group in channel_map.groups if layer in group.blocks)


def classifier(seed: int = 0, activation: str = "relu") -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            L.Conv2D(6, 3, name="conv"),
            L.BatchNormalization(name="norm"),
            L.ReLU(),
            L.Flatten(),
            L.Dense(8, activation=activation, name="hidden"),
            L.Dense(3, activation="softmax", name="classes"),
        ]
    )
    randomise_statistics(model, seed)
    return model


def labelled(model: keras.Model, count: int = 160) -> tuple[np.ndarray, np.ndarray]:
    x, _ = data_for(model, count)
    return np.asarray(x), np.random.default_rng(1).integers(0, 3, count)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("net", "name"),
    [
        pytest.param(
            net,
            name,
            # Each criterion on one network, and one of each kind of data on all of them.
            marks=()
            if net == "residual" or name in ("magnitude", "taylor", "reconstruction")
            else pytest.mark.slow,
        )
        for net in NETS
        for name in CRITERIA
        if name != "bn_scale"
    ],
)
def test_every_channel_of_every_net_gets_a_finite_score(net: str, name: str) -> None:
    model = made(net)
    x, _ = data_for(model, 40)
    shapes = model.output_shape
    labels = keras.tree.map_shape_structure(lambda s: np.zeros((40, *s[1:])), shapes)
    channel_map, scores = scored(model, name, (x, labels))
    assert scores.shape == (channel_map.count,)
    assert np.isfinite(scores).all() and (scores >= 0).all()
    for group in channel_map.groups:
        if not group.pinned and name != "random":
            assert scores[group.channels].max() > 0


@pytest.mark.sampled
@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "random"])
def test_a_channel_that_does_nothing_is_the_first_to_go(name: str) -> None:
    model = classifier()
    norm = model.get_layer("norm")
    gamma, beta, *rest = norm.get_weights()
    kernel, bias = model.get_layer("conv").get_weights()
    gamma[4] = beta[4] = 0
    kernel[..., 4] = bias[4] = 0
    if name == "geometric_median":  # amid the others, rather than 0
        kernel[..., 4] = np.delete(kernel, 4, axis=-1).mean(axis=-1)
        gamma[4] = np.delete(gamma, 4).mean()
    norm.set_weights([gamma, beta, *rest])
    model.get_layer("conv").set_weights([kernel, bias])
    channel_map, scores = scored(model, name, labelled(model))
    assert int(np.argmin(scores[group_of(channel_map, "conv").channels])) == 4


def test_what_the_others_make_up_for_matters_least_however_strong_it_is() -> None:
    model = classifier()
    kernel, bias = model.get_layer("hidden").get_weights()
    kernel[:, 5], bias[5] = 10 * kernel[:, 2], 10 * bias[2]
    model.get_layer("hidden").set_weights([kernel, bias])
    channel_map, scores = scored(model, "reconstruction", labelled(model))
    ranks = np.argsort(scores[group_of(channel_map, "hidden").channels])
    # One of the twins goes for nothing; the other is then as precious as it is.
    assert ranks[0] in (2, 5)
    channel_map, scores = scored(model, "magnitude")
    assert np.argsort(scores[group_of(channel_map, "hidden").channels])[-1] == 5


def test_reconstruction_is_the_error_that_least_squares_leaves() -> None:
    """Against the definition: drop, refit the reader by lstsq, measure."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((6,)), L.Dense(5, activation="relu", name="a"), L.Dense(4, name="b")]
    )
    x, y = data_for(model, 300)
    channel_map, scores = scored(model, "reconstruction", (x, y))
    group = group_of(channel_map, "a")
    order = np.argsort(scores[group.channels])
    kernel, bias = model.get_layer("a").get_weights()
    hidden = np.maximum(np.asarray(x) @ kernel + bias, 0).astype(np.float64)
    hidden -= hidden.mean(axis=0)
    target = hidden @ model.get_layer("b").get_weights()[0]
    for gone in (1, 2, 3):
        left = hidden[:, order[gone:]]
        residual = target - left @ np.linalg.lstsq(left, target, rcond=None)[0]
        error = np.square(residual).sum() / np.square(target).sum()
        assert scores[group.channels][order[gone - 1]] == pytest.approx(error, rel=0.02, abs=1e-4)


def test_taylor_is_the_derivative_by_a_gate_on_the_channel() -> None:
    """Against finite differences of the loss, with one batch and no kinks."""
    model = classifier(activation="tanh")
    x, y = labelled(model, 8)
    channel_map, scores = scored(model, "taylor", (x, y))
    group = group_of(channel_map, "conv")
    kernel, bias = model.get_layer("hidden").get_weights()
    entropy = keras.losses.SparseCategoricalCrossentropy()

    def loss(channel: int, gate: float) -> float:
        gated = kernel.copy().reshape(6, 6, 6, 8)
        gated[:, :, channel] *= gate
        model.get_layer("hidden").set_weights([gated.reshape(kernel.shape), bias])
        return float(keras.ops.convert_to_numpy(entropy(y, model(x, training=False))))

    slopes = np.array([abs(loss(c, 1.02) - loss(c, 0.98)) / 0.04 for c in range(6)])
    np.testing.assert_allclose(scores[group.channels], slopes / slopes.mean(), rtol=0.02)


def test_hessian_is_half_the_squared_gradient_times_weight() -> None:
    model = classifier()
    x, y = labelled(model, 8)
    channel_map, scores = scored(model, "hessian", (x, y))
    kernel, _ = model.get_layer("classes").get_weights()
    hidden = keras.Model(model.inputs[0], model.get_layer("hidden").output)
    a = keras.ops.convert_to_numpy(hidden(x, training=False))
    p = keras.ops.convert_to_numpy(model(x, training=False))
    gradient = a.T @ (p - np.eye(3)[y]) / 8
    expected = np.square(gradient * kernel).sum(axis=1)
    found = scores[group_of(channel_map, "hidden").channels]
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-3)


def test_activation_and_apoz_look_at_what_is_read() -> None:
    model = classifier()
    data = labelled(model)
    hidden = keras.Model(model.inputs[0], model.get_layer("hidden").output)
    a = keras.ops.convert_to_numpy(hidden(data[0], training=False))
    for name, expected in (("activation", np.abs(a).mean(0)), ("apoz", (a != 0).mean(0))):
        channel_map, scores = scored(model, name, data)
        found = scores[group_of(channel_map, "hidden").channels]
        np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-4)


def test_norms_are_those_of_numpy() -> None:
    model = classifier()
    kernel = model.get_layer("hidden").get_weights()[0]
    for name, order in (("l1", 1), ("magnitude", 2)):
        channel_map, scores = scored(model, name)
        expected = np.linalg.norm(kernel, order, axis=0)
        found = scores[group_of(channel_map, "hidden").channels]
        np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-5)


def test_batch_norm_scale_needs_batch_norm() -> None:
    with pytest.raises(EditError, match="BatchNormalization"):
        PruneChannels(0.5, "bn_scale")(made("plain"))


@pytest.mark.parametrize("name", [n for n, c in CRITERIA.items() if c.needs != "nothing"])
def test_a_criterion_that_looks_at_data_asks_for_it(name: str) -> None:
    with pytest.raises(EditError, match="hand in"):
        PruneChannels(0.5, name)(classifier())


def test_gradients_are_of_the_compiled_loss_where_it_suits_the_outputs() -> None:
    outputs, y = [np.array([[0.2], [0.9], [-3.0]], "float32")], np.array([0.0, 2.0, 1.0])

    def value(loss: Any, outputs: list[Any], y: Any) -> float:
        return float(objective(outputs, y, (Compiled((loss,), {}, None, (), ()),))(outputs, [y]))

    assert value("mae", outputs, y) == pytest.approx((0.2 + 1.1 + 4.0) / 3, rel=1e-5)
    assert value(None, outputs, y) == pytest.approx((0.04 + 1.21 + 16.0) / 3, rel=1e-5)
    assert value(lambda y, p: 3 * y, outputs, y) == pytest.approx(3.0)
    chances, classes = [np.array([[0.25, 0.75]], "float32")], np.array([1])
    for loss in ("sparse_categorical_crossentropy", logits_loss()):
        # A head of probabilities in the place of one of logits.
        assert value(loss, chances, classes) == pytest.approx(-np.log(0.75), rel=1e-5)
    assert value(logits_loss(), [3 * chances[0]], classes) == pytest.approx(0.2014, abs=1e-4)


def logits_loss() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_the_compiled_loss_stays_with_the_graph() -> None:
    model = classifier()
    model.compile(loss="mse")
    for one in (model, build(read(model), compiled=True)):
        assert [mark.each for mark in read(one).marks] == [("mse",)]


def test_labels_that_fit_no_loss_are_refused() -> None:
    model = classifier()
    x, _ = labelled(model)
    with pytest.raises(EditError, match="Labels of shape"):
        PruneChannels(0.5, "taylor")(model, (x, np.zeros((len(x), 7))))


@pytest.mark.parametrize("name", ["taylor", "reconstruction"])
def test_same_data_same_scores_and_the_model_is_not_changed(name: str) -> None:
    model = classifier()
    data = labelled(model)
    before = [w.copy() for w in model.get_weights()]
    first, second = (scored(model, name, data)[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_function_can_score() -> None:
    def first_channels(
        channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None
    ) -> Scores:
        return -np.arange(channel_map.count, dtype=np.float64)

    edit = PruneChannels(0.5, first_channels, scope="layer")
    assert edit.plan(classifier()).channels == {"conv": (3, 4, 5), "hidden": (4, 5, 6, 7)}
    with pytest.raises(EditError, match="JSON"):
        Recipe([edit]).to_json()


def test_a_function_that_gives_too_few_scores_is_refused() -> None:
    with pytest.raises(EditError, match="one finite score for each"):
        PruneChannels(0.5, lambda channel_map, generator, samples: np.ones(2))(classifier())


def test_repeated_channels_become_rows() -> None:
    group = map_channels(read(classifier())).groups[0]
    channels = np.concatenate([group.channels, group.channels[:2], [10_000]])
    array = np.arange(2 * len(channels)).reshape(2, -1)
    rows = in_channels(array, 1, channels, group)
    assert rows.shape == (4, group.size)
    np.testing.assert_array_equal(rows[:2], array[:, : group.size])
    np.testing.assert_array_equal(rows[2:, :2], array[:, group.size : group.size + 2])
    assert not rows[2:, 2:].any()


def reader_of_tokens() -> keras.Model:
    keras.utils.set_random_seed(0)
    tokens = keras.Input((5,), dtype="int32")
    x = L.Dense(6, activation="tanh", name="hidden")(L.Embedding(7, 8)(tokens))
    return keras.Model(tokens, L.Dense(7, name="logits")(x))


@pytest.mark.parametrize("loss", ["compiled", "own", "usual"])
@pytest.mark.parametrize("name", ["taylor", "hessian"])
def test_what_has_a_weight_of_zero_does_not_count(name: str, loss: str) -> None:
    model = reader_of_tokens()
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def own(y: Any, p: Any) -> Any:
        return keras.ops.sparse_categorical_crossentropy(y, p, from_logits=True)

    if loss != "usual":
        model.compile(loss=entropy if loss == "compiled" else own)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 7, (24, 5)), rng.integers(0, 7, (24, 5))
    padded = np.ones((24, 5), np.float32)
    padded[::2, 3:] = 0
    other = np.where(padded > 0, y, (y + 3) % 7)
    plain, weighted, changed, twice = (
        scored(model, name, data)[1]
        for data in ((x, y), (x, y, padded), (x, other, padded), (x, y, 2 * padded))
    )
    np.testing.assert_allclose(weighted, changed, rtol=1e-4)
    np.testing.assert_allclose(weighted, twice, rtol=1e-4)
    assert np.abs(weighted - plain).max() > 0.01
    rows, alone = padded[:, 0] * (np.arange(24) % 3 > 0), np.where(np.arange(24) % 3 > 0, 1, 0)
    np.testing.assert_allclose(
        scored(model, name, (x, y, rows))[1],
        scored(model, name, (x, np.where(alone[:, None], y, (y + 1) % 7), alone))[1],
        rtol=1e-4,
    )


@pytest.mark.parametrize("shape", [(24,), (24, 1)])
def test_weights_of_rows_and_of_two_outputs_count(shape: tuple[int, ...]) -> None:
    keras.utils.set_random_seed(0)
    tensor = keras.Input((4,))
    x = L.Dense(6, activation="tanh", name="hidden")(tensor)
    model = keras.Model(tensor, [L.Dense(3, activation="softmax")(x), L.Dense(1)(x)])
    rng = np.random.default_rng(0)
    inputs, classes = rng.normal(size=(24, 4)).astype("float32"), rng.integers(0, 3, 24)
    numbers, weights = rng.normal(size=(24, 1)).astype("float32"), rng.random(24)
    ignored = (weights > 0.5).astype("float32").reshape(shape)
    changed = np.where(ignored.reshape(-1) > 0, classes, (classes + 1) % 3)

    def scores(y: np.ndarray, *given: Any) -> Scores:
        return scored(model, "taylor", (inputs, [y, numbers], *given))[1]

    each = [ignored, np.ones(24, np.float32)]
    np.testing.assert_allclose(scores(classes, each), scores(changed, each), rtol=1e-4)
    assert np.abs(scores(classes, ignored) - scores(classes)).max() > 1e-3
    np.testing.assert_allclose(scores(classes, np.ones(24)), scores(classes), rtol=1e-4)


def test_a_loss_of_ones_own_with_a_value_for_each_sequence_takes_weights_of_rows() -> None:
    model = reader_of_tokens()

    def own(y: Any, p: Any) -> Any:
        each = keras.ops.sparse_categorical_crossentropy(y, p, from_logits=True)
        return keras.ops.mean(each, axis=-1)

    model.compile(loss=own)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 7, (24, 5)), rng.integers(0, 7, (24, 5))
    rows = (np.arange(24) % 3 > 0).astype("float32")
    changed = np.where(rows[:, None] > 0, y, (y + 1) % 7)
    for weights in (rows, np.repeat(rows[:, None], 5, axis=1)):
        ours, theirs = (scored(model, "taylor", (x, labels, weights))[1] for labels in (y, changed))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert np.abs(ours - scored(model, "taylor", (x, y))[1]).max() > 0.01
