"""The oracle over real architectures, with random weights and small inputs."""

from __future__ import annotations

import keras
import pytest

from saikei.costs import profile
from saikei.graph import read
from saikei.testing import assert_cuts_exactly, randomise_statistics

NAMES = ["MobileNetV2", "ResNet50", "DenseNet121", "InceptionV3"]


def application(name: str) -> keras.Model:
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    size = 75 if name == "InceptionV3" else 64
    model: keras.Model = getattr(keras.applications, name)(
        weights=None, classes=10, input_shape=(size, size, 3), classifier_activation=None
    )
    randomise_statistics(model)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_a_quarter_of_the_silent_channels_goes_without_a_trace(name: str) -> None:
    model = application(name)
    check = assert_cuts_exactly(model, share=0.25, seed=1)
    assert check.cut >= 0.2 * check.total
    # Otherwise no signal reaches the output, and any cut would look exact.
    assert check.spread > 0.01


# What the literature gives for 224×224 (299×299 for InceptionV3) inputs and 1000 classes.
KNOWN = {
    "MobileNetV2": (3_538_984, 0.300e9),
    "ResNet50": (25_636_712, 3.86e9),
    "DenseNet121": (8_062_504, 2.83e9),
    "InceptionV3": (23_851_784, 5.71e9),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
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
