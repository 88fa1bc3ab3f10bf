"""One model explained: channel groups by what their removal costs, and maps of what it looks at."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from saikei import PruneChannels, explain
from saikei.errors import DataError, InputError
from saikei.judging.explaining.attention import maps_of
from saikei.report import render_explanation
from saikei.scoring import infer_tasks
from tests.judging.explaining.nets import CLASSES as CLASSES_OF_MEMBERS
from tests.judging.explaining.nets import HELD_OUT, MEMBERS

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(40, 8, 8, 1)).astype("float32")
# The class is the brightness of one corner.
CLASSES = (IMAGES[:, :3, :3].mean(axis=(1, 2, 3)) > 0).astype("int32")


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(6, 3, padding="same", activation="relu"),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(2, activation="softmax"),
        ]
    )


@pytest.mark.backends
@pytest.mark.parametrize("link", ["softmax", "linear"])
def test_gradient_times_input_is_that_of_finite_differences(link: str) -> None:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 1), name="image")
    hidden = layers.Conv2D(3, 3, activation="tanh")(inputs)
    outputs = layers.Dense(2, activation=link)(layers.GlobalAveragePooling2D()(hidden))
    model = keras.Model(inputs, outputs)
    x, about = IMAGES[:3], np.tile(np.array([[0.5, -0.5]], "float32"), (3, 1))
    labels = CLASSES if link == "softmax" else RNG.normal(size=(40, 2))
    found = maps_of(model, infer_tasks(model, labels), x, [about])

    def value(images: np.ndarray) -> np.ndarray:
        predicted = keras.ops.convert_to_numpy(model(images)).astype("float64")
        return ((np.log(predicted) if link == "softmax" else predicted) * about).sum(axis=1)

    for place in ((0, 0), (3, 4), (7, 7)):
        step = np.zeros((8, 8, 1), "float32")
        step[place] = 0.05
        slope = (value(x + step) - value(x - step)) / 0.1
        expected = slope * x[:, place[0], place[1], 0]
        np.testing.assert_allclose(
            found.gradients["image"][:, *place, 0], expected, rtol=0.02, atol=2e-4
        )


def test_grad_cam_is_the_feature_map_that_the_output_reads() -> None:
    inputs = keras.Input((8, 8, 1))
    conv = layers.Conv2D(2, 1, use_bias=False, name="last")
    outputs = layers.Dense(1, use_bias=False)(layers.GlobalAveragePooling2D()(conv(inputs)))
    model = keras.Model(inputs, outputs)
    # The second channel, the negated image, is not read.
    model.set_weights([np.array([[[[1.0, -1.0]]]]), np.array([[64.0], [0.0]])])
    tasks = infer_tasks(model, RNG.normal(size=(40, 1)))
    found = maps_of(model, tasks, IMAGES[:2], [np.ones((2, 1), "float32")])
    np.testing.assert_allclose(found.cam, np.maximum(IMAGES[:2, ..., 0], 0), rtol=1e-5)


def test_a_model_beside_itself_looks_at_the_same(network: keras.Model) -> None:
    found = explain(network, (IMAGES, CLASSES), original=network, class_names=["dark", "bright"])
    assert found.models == ("original", network.name)
    assert {one.method for one in found.attention.agreement} == {"gradient × input", "Grad-CAM"}
    for one in found.attention.agreement:
        assert one.value == pytest.approx(1, abs=1e-4)
        assert one.chance < 0.9
    assert {sample.about for sample in found.attention.samples} <= {"dark", "bright"}
    assert len(found.attention.samples[0].gradients) == len(found.attention.samples[0].cams) == 2


def test_a_group_whose_channels_do_nothing_costs_nothing(network: keras.Model) -> None:
    model = keras.models.clone_model(network)
    weights = network.get_weights()
    weights[2] = weights[2].copy()
    weights[2][:, :, 3:] = 0  # the second convolution reads three of six channels
    model.set_weights(weights)
    found = explain(model, (IMAGES, CLASSES), metric="loss")
    first, second, last = found.groups
    assert dict(first.curve)[0.5] == pytest.approx(0, abs=1e-6)
    assert first.carrying <= 3
    assert len(second.curve) == 3
    assert last.pinned
    assert last.importance is None
    assert "25 % removed" in str(found)


def test_rows_without_a_weight_do_not_count(network: keras.Model) -> None:
    counts = (np.arange(40) % 2).astype("float32")
    changed = np.where(counts > 0, CLASSES, 1 - CLASSES)
    ours, same = (explain(network, (IMAGES, y, counts)) for y in (CLASSES, changed))
    half = explain(network, (IMAGES[counts > 0], CLASSES[counts > 0]))
    assert ours.scores[0].value == same.scores[0].value == half.scores[0].value
    assert ours.groups == same.groups
    assert ours.groups != explain(network, (IMAGES, CLASSES)).groups


def test_numbers_are_named_by_what_the_output_reads_of_them() -> None:
    inputs = keras.Input((3,), name="table")
    model = keras.Model(inputs, layers.Dense(1, use_bias=False)(inputs))
    model.set_weights([np.array([[0.0], [1.0], [0.0]])])
    x = RNG.normal(size=(30, 3)).astype("float32")
    found = explain(model, (x, x[:, 1:2]))
    assert found.attention.features[0].name == "table[1]"
    assert found.attention.features[0].shares == pytest.approx((1.0,))
    with pytest.raises(InputError, match="one output with classes"):
        explain(model, (x, x[:, 1:2]), metric="accuracy")
    wide = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    with pytest.raises(InputError, match="the model that"):
        explain(model, (x, x[:, 1:2]), original=wide)
    with pytest.raises(DataError):
        explain(model, x[:, :2])


def test_without_labels_the_predictions_take_their_place(network: keras.Model) -> None:
    small = PruneChannels(keep=0.5)(network)
    found = explain(small, IMAGES, original=network)
    assert found.scores[0].value == 1
    assert found.criterion == "activation"
    assert found.attention.samples[0].label == ""
    page = render_explanation(found)
    assert page.count("data:image/png") == len(found.attention.samples) * 5


def test_classes_of_a_fusion_have_their_names() -> None:
    names = [f"kind {number}" for number in range(CLASSES_OF_MEMBERS)]
    assert "kind 2" in str(explain(MEMBERS, HELD_OUT, class_names=names))


def test_hostile_names_stay_text(network: keras.Model) -> None:
    hostile = "</script><img src=x onerror=alert(1)>"
    found = explain(network, (IMAGES, CLASSES), class_names=[hostile, hostile])
    page = render_explanation(found)
    assert hostile not in page
    assert "&lt;/script&gt;" in page
