"""The oracle over real architectures, with random weights and small inputs."""

from __future__ import annotations

import inspect
from functools import partial

import keras
import pytest

from saikei.channels import channel_groups
from saikei.costs import profile
from saikei.graph import read
from saikei.testing import assert_cuts_exactly, randomise_statistics

# Layer scale with shortcuts, and a plain flattening network; then concatenations, inverted
# residuals, and gates over channels. The others, of the same blocks, are slow.
QUICK = ("ConvNeXtTiny", "VGG16")
LONG = ("InceptionV3", "MobileNetV2", "MobileNetV3Small")
NAMES = sorted(
    name
    for name, value in vars(keras.applications).items()
    if inspect.isfunction(value) and name[0].isupper()
)
OTHERS = {name: pytest.mark.long if name in LONG else pytest.mark.slow for name in NAMES}
EACH = [pytest.param(name, marks=() if name in QUICK else OTHERS[name]) for name in NAMES]
# The smallest inputs that these take.
SIDES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}


# Through their hundreds of layers, rounding to float32 alone grows above the tolerance.
DEEP = ("EfficientNetV2S", "EfficientNetV2M", "EfficientNetV2L")


def application(name: str) -> keras.Model:
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    size = SIDES.get(name, 32)
    model: keras.Model = getattr(keras.applications, name)(
        weights=None, classes=10, input_shape=(size, size, 3), classifier_activation=None
    )
    randomise_statistics(model)
    return model


def test_every_constructor_has_its_test() -> None:
    """Keras 3 has had these forty since its first release."""
    assert len(NAMES) == 40 and set(QUICK) <= set(NAMES)


@pytest.mark.parametrize("name", EACH)
def test_all_channels_but_the_classes_can_be_cut_without_a_trace(
    name: str, request: pytest.FixtureRequest
) -> None:
    tolerance = 1e-5
    if name in DEEP:
        usual = keras.config.floatx()
        # Keras makes a policy of it, which would be that of every later model.
        request.addfinalizer(partial(keras.config.set_dtype_policy, usual))
        request.addfinalizer(partial(keras.config.set_floatx, usual))
        keras.config.set_floatx("float64")
        tolerance = 1e-12
    model = application(name)
    pinned = {g.pinned: g.size for g in channel_groups(model) if not g.free.all()}
    assert pinned == {"a model output": 10}
    check = assert_cuts_exactly(model, share=0.25, seed=1, tolerance=tolerance)
    # A group of channels that go together may be larger than a quarter of a small layer.
    assert check.cut >= 0.24 * (check.total - 10)
    # Otherwise no signal reaches the output, and any cut would look exact.
    assert check.spread > 1e-3


# What the literature gives for 224×224 (299×299 for InceptionV3) inputs and 1000 classes.
KNOWN = {
    "MobileNetV2": (3_538_984, 0.300e9),
    "ResNet50": (25_636_712, 3.86e9),
    "DenseNet121": (8_062_504, 2.83e9),
    "InceptionV3": (23_851_784, 5.71e9),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_costs_are_those_of_the_literature(name: str) -> None:
    model = getattr(keras.applications, name)(weights=None)
    costs = profile(model, latency=False)
    params, macs = KNOWN[name]
    assert costs.params == params == model.count_params()
    assert costs.macs == pytest.approx(macs, rel=0.01)
    assert not costs.uncounted


def test_reading_leaves_the_model_as_it_was() -> None:
    model = application("MobileNetV2")
    before = [len(operation._inbound_nodes) for operation in model.operations]
    read(model)
    assert before == [len(operation._inbound_nodes) for operation in model.operations]
