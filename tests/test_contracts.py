"""Every edit and every fusion of ours does what `saikei.testing` asks of those of others."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei import (
    Average,
    BestMember,
    Boost,
    Budget,
    Cascade,
    Chain,
    Dequantize,
    DropChannels,
    Factorize,
    FoldBatchNorm,
    Multimodal,
    PruneChannels,
    PruneVocabulary,
    Quantize,
    Recipe,
    RemoveLayers,
    RemoveNoOps,
    ReplaceActivation,
    ReplaceHead,
    ReplaceKernel,
    ReplacePooling,
    Separate,
    Soup,
    Sparsify,
    Stack,
)
from saikei.edits import Edit
from saikei.edits.recipe import EDITS
from saikei.errors import EditError, FusionError
from saikei.fusion import Fusion
from saikei.fusion.registry import FUSIONS
from saikei.graph import copy_model
from saikei.testing import (
    assert_is_edit,
    assert_is_fusion,
    assert_loads_alone,
    randomise_statistics,
)


def convolutional() -> keras.Model:
    """Something for every edit: large and small kernels, poolings, a shortcut, a step of no use."""
    keras.utils.set_random_seed(0)
    x = keras.Input((12, 12, 3))
    y = L.Conv2D(8, 5, padding="same", name="first")(x)
    y = L.Activation("relu")(L.BatchNormalization()(y))
    y = L.MaxPooling2D(name="max")(y)
    branch = L.Conv2D(8, 3, padding="same", activation="relu", name="branch")(y)
    y = L.Dropout(0.5)(L.Add()([y, branch]))
    y = L.Conv2D(12, 3, padding="same", activation="tanh", name="last")(y)
    y = L.GlobalAveragePooling2D()(L.AveragePooling2D(2, name="mean")(y))
    y = L.Dense(16, activation="relu", name="hidden")(y)
    model = keras.Model(x, L.Dense(4, activation="softmax", name="classes")(y), name="net")
    randomise_statistics(model)
    return model


def quantised() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [L.Dense(8, activation="relu", name="hidden"), L.Dense(3, activation="softmax")]
    model = keras.Sequential([keras.Input((6,)), *layers], name="net")
    model.quantize("int8", filters="hidden")
    return model


IMAGES = np.random.default_rng(0).normal(size=(48, 12, 12, 3)).astype("float32")
CALIBRATION = IMAGES, np.arange(48) % 4
HEAD = [L.Dense(6, "relu", kernel_regularizer="l2"), L.Dense(3, "softmax")]


def tokens() -> keras.Model:
    """Tokens to the next tokens, by one table."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6,), dtype="int32")
    table = L.ReversibleEmbedding(9, 8)
    return keras.Model(x, table(L.Dense(8, "relu")(table(x)), reverse=True))


class EditCase(NamedTuple):
    edit: Edit
    model: Callable[[], keras.Model] = convolutional
    data: Any = None


EDIT_CASES = [
    EditCase(Dequantize(), quantised),
    EditCase(Quantize(), convolutional),
    EditCase(DropChannels({"first": (0, 3), "hidden": (1,)})),
    EditCase(Factorize(0.5, exclude=("classes",), compensate=False)),
    EditCase(Factorize(Budget(macs=0.5)), data=CALIBRATION),
    EditCase(Factorize(energy=0.4, layers=("hidden",), compensate=False)),
    EditCase(Factorize(rank=2, scheme="spatial")),
    EditCase(FoldBatchNorm()),
    EditCase(PruneChannels(0.5)),
    EditCase(PruneChannels(Budget(macs=0.5), "random", multiple_of=2, seed=3), data=CALIBRATION),
    EditCase(PruneChannels(3, scope="layer", exclude=("classes", "hidden"))),
    EditCase(PruneVocabulary(keep=(0, 2, 5)), tokens),
    EditCase(RemoveLayers(1), data=CALIBRATION),
    EditCase(RemoveNoOps()),
    EditCase(ReplaceActivation("relu", "elu")),
    EditCase(ReplaceActivation("any", "prelu", ("hidden",), ("classes",), alpha=0.1)),
    EditCase(ReplaceActivation("relu", "prelu", alpha=0.3), data=CALIBRATION),
    EditCase(ReplaceHead("hidden", head=HEAD)),
    EditCase(ReplaceHead(classes=7, seed=2)),
    EditCase(ReplaceKernel(5, 3)),
    EditCase(ReplaceKernel((5, 5), (3, 4), ("first",), how="crop"), data=CALIBRATION),
    EditCase(ReplaceKernel(5, 3, how="stack")),
    EditCase(ReplacePooling("any", "average", ("max",)), data=CALIBRATION),
    EditCase(ReplacePooling("any", "adaptive", ("mean",), size=(3, 3))),
    EditCase(Separate(exclude=("first",)), data=CALIBRATION),
    EditCase(Separate(Budget(macs=0.8), 2)),
    EditCase(Sparsify(0.9, scope="global")),
    EditCase(Sparsify(pattern="2:4", layers=("hidden",))),
    EditCase(Recipe([FoldBatchNorm(), ReplaceKernel(5, 3), PruneChannels(0.5)])),
]


def named(case: Any) -> str:
    return type(case[0]).__name__


def first_of_each(cases: list[Any]) -> list[int]:
    """The index of the first case of each class."""
    names = [named(case) for case in cases]
    return [names.index(name) for name in dict.fromkeys(names)]


def each(cases: list[Any]) -> list[Any]:
    """All cases, those among the slow tests that are not the first of their class."""
    quick = first_of_each(cases)
    return [
        pytest.param(number, id=named(case), marks=() if number in quick else pytest.mark.slow)
        for number, case in enumerate(cases)
    ]


@cache
def edited(number: int) -> keras.Model:
    case = EDIT_CASES[number]
    return assert_is_edit(case.edit, case.model(), case.data, alone=False)


@pytest.mark.sampled
@pytest.mark.parametrize("number", each(EDIT_CASES))
def test_an_edit_is_one(number: int) -> None:
    edited(number)


X = np.random.default_rng(1).normal(size=(80, 6)).astype("float32")
Y = (X[:, 0] > X[:, 1]).astype(int) + (X[:, 2] > 0)


def classifier(seed: int, width: int = 5) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layers = [L.Dense(width, activation="tanh"), L.Dense(3, activation="softmax")]
    return keras.Sequential([keras.Input((6,)), *layers], name=f"net_{seed}")


def three() -> list[keras.Model]:
    return [classifier(0), classifier(1), classifier(2, width=20)]


def near() -> list[keras.Model]:
    """Copies of one network with a little noise: their weights can be averaged."""
    generator = np.random.default_rng(0)
    members = [copy_model(classifier(0)) for _ in range(2)]
    for member in members:
        noisy = [w + generator.normal(0, 1e-3, w.shape) for w in member.get_weights()]
        member.set_weights(noisy)
    return members


def modal() -> list[keras.Model]:
    members = []
    for seed, name in enumerate(("sound", "image")):
        keras.utils.set_random_seed(seed)
        x = keras.Input((6,), name=name)
        members.append(
            keras.Model({name: x}, L.Dense(3, activation="softmax")(x), name=f"of_{name}")
        )
    return members


class FusionCase(NamedTuple):
    fusion: Fusion
    members: Callable[[], list[keras.Model]] = three
    data: Any = (X, Y)


SHORT: dict[str, Any] = {"rounds": 2, "keep_first": False, "epochs": 5, "learning_rate": 0.05}
BOTH = {"sound": X, "image": X[:, ::-1].copy()}, Y
FUSION_CASES = [
    FusionCase(Average(), data=None),
    FusionCase(Average((0.2, 0.3, 0.5), space="logit"), data=None),
    FusionCase(Average("learn")),
    FusionCase(Average("learn", space="logit", per_class=True, calibrate=True)),
    FusionCase(Average("greedy", rounds=5)),
    FusionCase(Average(how="median")),
    FusionCase(BestMember()),
    FusionCase(Boost(**SHORT)),
    FusionCase(Boost(method="samme", **SHORT)),
    FusionCase(Cascade(thresholds=(0.5, 0.7), costs=(1, 2, 3)), data=None),
    FusionCase(Cascade(cost=0.9, confidence="entropy", combine="average", certainty=None)),
    FusionCase(
        Chain(), lambda: [classifier(0, 6), keras.Sequential([keras.Input((3,)), L.Dense(2)])], None
    ),
    FusionCase(Multimodal(weights="learn"), modal, BOTH),
    FusionCase(Multimodal("features", "zeros", seed=3), modal, BOTH),
    FusionCase(Multimodal(fallback="drop", weights=(0.25, 0.75)), modal, BOTH),
    FusionCase(Soup(), near),
    FusionCase(Soup("greedy"), near),
    FusionCase(Stack("logistic", folds=2)),
    FusionCase(Stack(below=(Stack("logistic", folds=2), Average((0.2, 0.3, 0.5))), folds=2)),
]


@cache
def fused(number: int) -> keras.Model:
    case = FUSION_CASES[number]
    return assert_is_fusion(case.fusion, case.members(), case.data, alone=False)


@pytest.mark.sampled
@pytest.mark.parametrize("number", each(FUSION_CASES))
def test_a_fusion_is_one(number: int) -> None:
    fused(number)


@pytest.mark.long
def test_what_they_give_loads_in_a_process_without_saikei() -> None:
    # A cascade is a model of a class of Saikei's.
    plain = [n for n in first_of_each(FUSION_CASES) if named(FUSION_CASES[n]) != "Cascade"]
    assert_loads_alone([*map(edited, first_of_each(EDIT_CASES)), *map(fused, plain)])


def poisoned(model: keras.Model) -> str:
    """Put one NaN into the last kernel, and give the name of its layer."""
    layer = next(one for one in reversed(model.layers) if one.trainable_weights)
    kernel = layer.trainable_weights[0]
    kernel.assign(np.where(np.arange(kernel.shape[-1]) == 1, np.nan, kernel.numpy()))
    return layer.name


@pytest.mark.sampled
@pytest.mark.parametrize(
    "case", [EDIT_CASES[number] for number in first_of_each(EDIT_CASES)], ids=named
)
def test_weights_that_are_no_numbers_are_named_by_an_edit(case: EditCase) -> None:
    model = case.model()
    name = poisoned(model)
    if isinstance(case.edit, (ReplaceHead, RemoveNoOps)):
        # They compute with no weight: the head with the NaN is gone, or still has it.
        outputs = case.edit(model, case.data)(IMAGES[:2]).numpy()
        assert np.isnan(outputs).any() == isinstance(case.edit, RemoveNoOps)
        return
    with pytest.raises(EditError, match=f"layer '{name}' .* holds NaN"):
        case.edit(model, case.data)


@pytest.mark.parametrize(
    "case", [FUSION_CASES[number] for number in first_of_each(FUSION_CASES)], ids=named
)
def test_weights_that_are_no_numbers_are_named_by_a_fusion(case: FusionCase) -> None:
    members = case.members()
    name = poisoned(members[1])
    with pytest.raises(FusionError, match=f"Member 2: .* layer '{name}' .* holds NaN"):
        case.fusion(members, case.data)


def test_none_is_left_out() -> None:
    assert {named(case) for case in EDIT_CASES} == {*EDITS, "Recipe"}
    assert {named(case) for case in FUSION_CASES} == {*FUSIONS}
