"""What every fusion declares, gives, and does with its members."""

import sys
from collections import Counter
from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.errors import SaikeiError
from saikei.fusion.base import Fitted, TrainedFusion
from saikei.fusion.registry import FUSIONS

FAST = {"epochs": 5, "learning_rate": 0.05, "seed": 1}
MADE = {
    "Average": sk.Average("learn"),
    "BestMember": sk.fusion.BestMember(),
    "Boost": sk.Boost(rounds=2, **FAST),
    "Cascade": sk.Cascade(cost=0.5, certainty=None, costs=(1, 10, 100)),
    "Chain": sk.Chain("joint", **FAST),
    "Multimodal": sk.fusion.Multimodal(),
    "Soup": sk.fusion.Soup(check=False),
    "Stack": sk.Stack(),
}
X = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
Y = X[:, :3].argmax(axis=1)


def member(seed: int) -> keras.Model:
    initial = keras.initializers.GlorotUniform(seed)
    x = keras.Input((4,), name="row")
    y = keras.layers.Dense(3, "softmax", kernel_initializer=initial, name="top")(x)
    return keras.Model(x, y, name=f"net_{seed}")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each model's graph is read, by its `id`."""
    counted: Counter[int] = Counter()
    module = sys.modules["saikei.graph.read"]
    original = module._read

    def counting(model: Any, opaque: Any) -> Any:
        counted[id(model)] += 1
        return original(model, opaque)

    monkeypatch.setattr(module, "_read", counting)
    return counted


def rows(name: str) -> tuple[Any, Any]:
    return ({"row": X}, Y) if name == "Multimodal" else (X, Y)


@pytest.mark.sampled
@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_a_fusion_reads_each_member_once_and_reports_what_it_made(name, reads):
    members = [member(0), member(1), member(2)]
    fitted = MADE[name].fuse(members, rows(name))
    assert isinstance(fitted, Fitted) and isinstance(fitted.model, keras.Model)
    assert isinstance(fitted.summary, str) and isinstance(fitted.to_dict(), dict)
    assert {reads[id(one)] for one in members} == {1}


@pytest.mark.parametrize(
    ("fusion", "data", "trains"),
    [
        (sk.Average(), "none", False),
        (sk.Average("learn"), "held_out", False),
        (sk.Average(calibrate=True), "held_out", False),
        (sk.Stack(), "held_out", False),
        (sk.Cascade(thresholds=(0.5,)), "none", False),
        (sk.fusion.Soup(check=False), "none", False),
        (sk.fusion.Soup(), "held_out", False),
        (sk.Boost(), "training", True),
        (sk.Chain("joint"), "training", True),
        (sk.Chain(), "none", True),
    ],
    ids=str,
)
def test_a_fusion_declares_the_data_that_it_needs(fusion, data, trains):
    assert fusion.data == data
    assert isinstance(fusion, TrainedFusion) == trains


def test_choosing_among_fusions_reads_each_member_once(reads):
    members = [member(0), member(1), member(2)]
    sk.choose([sk.Average("learn"), sk.Average(), sk.Stack()], members, (X, Y), 2)
    assert {reads[id(one)] for one in members} == {1}


def test_fusions_that_train_can_be_chosen_among():
    members = [member(0), member(1)]
    found = sk.choose([sk.Boost(**FAST)], members, (X, Y), 2, allow_in_sample=True)
    assert {type(one.fusion).__name__ for one in found.rivals} == {"BestMember", "Boost"}


def test_fusions_of_models_refuse_predictions():
    made = sk.cross_fit(
        {"a": lambda: member(0), "b": lambda: member(1)}, (X, Y), 2, epochs=1, learning_rate=1e-3
    )
    for name in ("Boost", "Chain", "Multimodal", "Soup"):
        with pytest.raises(SaikeiError, match=f"{name} needs models, not the predictions of"):
            MADE[name](made)
