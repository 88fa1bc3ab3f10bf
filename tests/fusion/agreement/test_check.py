"""Members that mean something else by the same shapes are refused by name; the fix works."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from sklearn import datasets
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

import saikei as sk
from saikei.errors import FusionError

ORDER = [3, 0, 2, 1, 4, 5, 9, 7, 8, 6]


def _linear(inputs, kernel, bias, activation, name):
    model = keras.Sequential(
        [
            keras.Input(inputs),
            keras.layers.Flatten(),
            keras.layers.Dense(len(bias), activation=activation),
        ],
        name=name,
    )
    model.layers[-1].set_weights([kernel, bias])
    return model


@pytest.fixture(scope="module")
def digits():
    x, y = datasets.load_digits(return_X_y=True)
    return (x / 16).astype("float32").reshape(-1, 8, 8, 1), y


def digits_net(digits, name, prepare=lambda x: x, order=range(10), rows=slice(0, 900)):
    """A softmax regression of prepared images, and its classes in an order of their own."""
    x, y = digits
    flat = prepare(x[rows]).reshape(-1, 64)
    # The penalty is the same whatever the scale of the inputs.
    fitted = LogisticRegression(C=1.0 / flat.var(), max_iter=3000).fit(flat, y[rows])
    kernel, bias = fitted.coef_.T[:, np.argsort(order)], fitted.intercept_[np.argsort(order)]
    return _linear((8, 8, 1), kernel, bias, "softmax", name)


@pytest.fixture(scope="module")
def held(digits):
    x, y = digits
    return x[900:], y[900:]


@pytest.fixture(scope="module")
def good(digits):
    return digits_net(digits, "good")


@pytest.fixture(scope="module")
def reordered(digits):
    return digits_net(digits, "other", order=ORDER)


@pytest.fixture(scope="module")
def of_bytes(digits):
    return digits_net(digits, "other", lambda x: x * 255)


def test_members_that_agree_are_fused(digits, good, held):
    half = digits_net(digits, "half", rows=slice(0, 300))
    assert sk.Average("learn")([good, half], held).count_params()


@pytest.mark.parametrize(
    "fusion",
    [
        sk.Average("learn"),
        sk.BestMember(),
        *(
            pytest.param(fusion, marks=pytest.mark.slow)
            for fusion in (sk.Average(), sk.Average("greedy"), sk.Stack())
        ),
    ],
    ids=repr,
)
def test_classes_in_another_order_are_refused_and_the_fix_works(fusion, good, reordered, held):
    with pytest.raises(FusionError, match=r"Member 2 \('other'\) gives its classes") as refused:
        fusion([good, reordered], held)
    code = re.search(r"labels: (keras\.Model\(.*\))\.$", str(refused.value)).group(1)
    fixed = eval(code, {"keras": keras, "model": reordered})
    fused = fusion([good, fixed], held)
    assert sk.evaluate(fused, held).value > 0.9


def test_the_order_of_a_fused_model_survives_its_file(good, reordered, held, tmp_path):
    fixed = keras.Model(reordered.inputs[0], keras.ops.take(reordered.outputs[0], ORDER, axis=-1))
    fused = sk.Average("learn")([good, fixed], held)
    fused.save(tmp_path / "fused.keras")
    again = keras.saving.load_model(tmp_path / "fused.keras")
    np.testing.assert_allclose(again(held[0]), fused(held[0]), atol=1e-6)


@pytest.mark.parametrize(
    ("prepare", "done"),
    [
        (lambda x: x * 255, "multiplied by 255"),
        (lambda x: (x - 0.305) / 0.376, "brought to mean 0 and variance 1"),
    ],
)
def test_inputs_prepared_otherwise_are_refused(prepare, done, digits, good, held):
    other = digits_net(digits, "other", prepare)
    with pytest.raises(FusionError, match=f"other preprocessing.* with inputs {done}") as refused:
        sk.Average("learn")([good, other], held)
    assert "Member 2 ('other')" in str(refused.value)
    assert "other preprocessing than member 1" in str(refused.value)


def test_inputs_in_another_range_are_refused_and_the_fix_works(good, of_bytes, held):
    inputs, labels = held
    with pytest.raises(FusionError, match=r"'good'.* with inputs divided by 255") as refused:
        sk.Stack()([of_bytes, good], (inputs * 255, labels))
    code = re.search(r"keras\.Model\(x, model\((.*)\)\)\.$", str(refused.value)).group(1)
    x = keras.Input((8, 8, 1))
    prepared = eval(code, {"keras": keras, "x": x})
    fixed = keras.Model(x, good(prepared))
    fused = sk.Average("learn")([of_bytes, fixed], (inputs * 255, labels))
    assert sk.evaluate(fused, (inputs * 255, labels)).value > 0.9


def test_a_table_that_was_standardised_is_distinguished_from_one_that_was_not():
    x, y = datasets.load_breast_cancer(return_X_y=True)
    scaler = StandardScaler().fit(x[:300])
    fitted = LogisticRegression(C=0.1).fit(scaler.transform(x[:300]), y[:300])
    kernel, bias = fitted.coef_.T, fitted.intercept_
    scaled = _linear((30,), kernel, bias, "sigmoid", "scaled")
    kernel = kernel / scaler.scale_[:, None]
    raw = _linear((30,), kernel, bias - scaler.mean_ @ kernel, "sigmoid", "raw")
    with pytest.raises(FusionError, match=r"'scaled'.* brought to mean 0 and variance 1"):
        sk.Average("learn")([raw, scaled], (x[300:].astype("float32"), y[300:]))


@pytest.mark.parametrize("end", ["sigmoid", "linear"])
def test_the_probability_of_the_other_class_is_refused_and_the_fix_works(end):
    x, y = datasets.load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x).astype("float32")
    fitted = LogisticRegression().fit(x[:300], y[:300])
    kernel, bias = fitted.coef_.T, fitted.intercept_
    good = _linear((30,), kernel, bias, end, "good")
    turned = _linear((30,), -kernel, -bias, end, "turned")
    held = x[300:], y[300:]
    with pytest.raises(FusionError, match=r"'turned'\) gives its classes.* \[1, 0\]") as refused:
        sk.Average("learn")([good, turned], held)
    code = re.search(r"labels: (keras\.Model\(.*\))\.$", str(refused.value)).group(1)
    fixed = eval(code, {"keras": keras, "model": turned})
    np.testing.assert_allclose(fixed(held[0]), good(held[0]), atol=1e-6)
    assert sk.evaluate(sk.Average("learn")([good, fixed], held), held).value > 0.95


def test_a_regression_of_other_inputs_is_refused():
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    scaler = StandardScaler().fit(x)

    def net(name, prepare):
        fitted = Ridge().fit(prepare(x[:250]), y[:250])
        return _linear((10,), fitted.coef_[:, None], fitted.intercept_[None], "linear", name)

    raw, scaled = net("raw", lambda v: v), net("scaled", scaler.transform)
    held = x[250:].astype("float32"), y[250:].astype("float32")
    with pytest.raises(FusionError, match=r"'scaled'.* its loss drops"):
        sk.Average("learn")([raw, scaled], held)


@pytest.mark.parametrize("mode", ["BGR", "caffe", pytest.param("torch", marks=pytest.mark.slow)])
def test_colours_prepared_otherwise_are_refused(mode):
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 255, size=(400, 4, 4, 3)).astype("float32")
    x += generator.uniform(-60, 60, size=(400, 1, 1, 3)).astype("float32")
    x = np.clip(x, 0, 255)
    red = x[..., 0].mean(axis=(1, 2))
    y = (red > np.median(red)).astype(int)

    def net(name, prepared, channel):
        means = prepared[..., channel].mean(axis=(1, 2))
        steep = 4 / means.std()
        kernel = np.zeros((4, 4, 3, 1))
        kernel[..., channel, 0] = steep / 16
        bias = np.array([-steep * np.median(means)])
        return _linear((4, 4, 3), kernel.reshape(48, 1), bias, "sigmoid", name)

    if mode == "BGR":
        prepared, done, channel = x[..., ::-1], "read as BGR", 2
    else:
        prepare = keras.applications.imagenet_utils.preprocess_input
        prepared = prepare(x.copy(), data_format="channels_last", mode=mode)
        done, channel = f"prepared as for ImageNet in {mode.capitalize()}", 2 * (mode == "caffe")
    other = net("other", prepared, channel)
    with pytest.raises(FusionError, match=f"'other'.* other preprocessing.* inputs {done}"):
        sk.Average("learn")([net("rgb", x, 0), other], (x, y))


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))]
)
def test_untrained_networks_are_no_reason(seed):
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 3, 240)
    x = (3 * generator.normal(size=(240, 4)) - y[:, None]).astype("float32")
    members = []
    for number in range(3):
        keras.utils.set_random_seed(10 * seed + number)
        layers = [keras.layers.Dense(5, "relu"), keras.layers.Dense(3, "softmax")]
        members.append(keras.Sequential([keras.Input((4,)), *layers]))
    assert sk.Average("learn").fuse(members, (x, y)).head.fitted.values


def test_a_weak_member_is_no_reason(digits, good, held):
    generator = np.random.default_rng(0)
    blind = _linear((8, 8, 1), generator.normal(size=(64, 10)), np.zeros(10), "softmax", "blind")
    weak = digits_net(digits, "weak", rows=slice(0, 30))
    fused = sk.Average("learn")([good, weak, blind], held)
    assert sk.evaluate(fused, held).value > 0.9


@pytest.mark.parametrize("fusion", [sk.Soup(), sk.Cascade()])
def test_a_soup_and_a_cascade_refuse_them_too(fusion, good, reordered, held):
    with pytest.raises(FusionError, match=r"Member 2 \('other'\) gives its classes"):
        fusion([good, reordered], held)


def test_a_dataset_is_checked_as_arrays_are(good, of_bytes, held):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return -(-len(held[0]) // 128)

        def __getitem__(self, index):
            rows = slice(index * 128, (index + 1) * 128)
            return held[0][rows], held[1][rows]

    with pytest.raises(FusionError, match=r"'other'.* other preprocessing"):
        sk.Average("learn")([good, of_bytes], Batches())


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="text runs on TensorFlow alone")
def test_a_text_model_that_is_far_behind_is_no_reason():
    tf = pytest.importorskip("tensorflow")

    def net(name, weights):
        split = keras.layers.TextVectorization(vocabulary=["yes", "no"], output_mode="multi_hot")
        x = keras.Input((), dtype="string")
        model = keras.Model(x, keras.layers.Dense(2, activation="softmax")(split(x)), name=name)
        model.set_weights([np.array(weights, "float32"), np.zeros(2)])
        return model

    words = np.array(["yes", "no"] * 50)
    data = tf.data.Dataset.from_tensor_slices((words, np.array([1, 0] * 50))).batch(16)
    knows = net("knows", [[0, 0], [-4, 4], [4, -4]])
    fitted = sk.Average("learn").fuse([knows, net("silent", np.zeros((3, 2)))], data).head.fitted
    assert fitted.values[0] > 0.99
