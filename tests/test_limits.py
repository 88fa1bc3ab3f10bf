"""Arguments that make no sense are refused with the largest that does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei import (
    Average,
    Boost,
    Budget,
    Cascade,
    Chain,
    Factorize,
    Multimodal,
    PruneChannels,
    ReplaceActivation,
    Separate,
    Soup,
    Sparsify,
    Stack,
    profile,
)
from saikei.errors import EditError, FusionError, InputError, PinnedWarning
from saikei.merging import Dare


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Average("greedy", rounds=10**8), r"rounds=100000000: .* from 1 to 10,000"),
        (lambda: Average("greedy", bags=2.5), r"bags=2\.5\): give a whole number"),
        (lambda: Average(seed=True), r"seed=True\): give a whole number"),
        (lambda: Soup(points=10**6), r"points=1000000: .* from 3 to 1,001"),
        (lambda: Stack(folds=10**6), r"folds=1000000: .* from 2 to 1,000"),
        (lambda: Stack(seed=-1), r"seed=-1"),
        (lambda: Boost(rounds=10**7), r"rounds=10000000: .* from 2 to 1,000"),
        (lambda: Boost(epochs=0), r"epochs=0: .* from 1 to 100,000"),
        (lambda: Boost(learning_rate=float("nan")), r"learning_rate=nan"),
        (lambda: Chain(epochs=10**9), r"epochs=1000000000"),
        (lambda: Chain(learning_rate=-1e-3), r"learning_rate=-0\.001"),
        (lambda: Cascade(seed=1.0), r"seed=1\.0"),
        (lambda: Multimodal(seed=2**40), r"seed=1099511627776"),
        (lambda: Dare(seed=-3), r"seed=-3"),
        (lambda: PruneChannels(0.5, seed=None), r"seed=None"),
        (lambda: Average((1e308, 1e308)), r"weights sum to inf, not to 1\."),
        (
            lambda: Budget(latency=0.5, batch_size=10**20),
            r"batch_size=1\d+: .* from 1 to 1,000,000",
        ),
        (lambda: profile(net(2), batch_size=10**20), r"batch_size=1\d+: .* from 1 to 1,000,000"),
        (lambda: PruneChannels(0.5, multiple_of=2.0), r"multiple_of=2\.0\): give a whole number"),
    ],
)
def test_numbers_without_bounds_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def net(*sizes: int) -> keras.Model:
    layers = [L.Dense(size, name=f"d{number}") for number, size in enumerate(sizes)]
    return keras.Sequential([keras.Input((6,)), *layers, L.Dense(2, name="out")])


def test_a_multiple_that_no_group_has_is_refused_and_one_that_some_have_not_is_named() -> None:
    with pytest.raises(EditError, match="more than any group has channels: use at most 16"):
        PruneChannels(0.5, multiple_of=32)(net(16, 8))
    with pytest.warns(PinnedWarning, match=r"no multiple of 12 .*: 'd1' \(8\)"):
        smaller = PruneChannels(0.7, scope="layer", multiple_of=12)(net(24, 8))
    assert smaller.get_layer("d0").units == 12


@pytest.mark.parametrize(
    "edit",
    [PruneChannels(0.5), Factorize(0.5), Sparsify(0.5), Separate(0.5)],
    ids=lambda edit: type(edit).__name__,
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_name_their_layer(edit: Any, value: float) -> None:
    source = keras.Input((6, 6, 3))
    tensor = L.Conv2D(8, 3, name="conv")(L.Conv2D(8, 3, name="first")(source))
    model = keras.Model(source, L.Dense(2)(L.GlobalMaxPooling2D()(tensor)))
    kernel = model.get_layer("conv").kernel
    broken = keras.ops.convert_to_numpy(kernel).copy()
    broken[0, 0, 0, 0] = value
    kernel.assign(broken)
    with pytest.raises(EditError, match=r"'kernel' of layer 'conv' \(Conv2D\) holds NaN or inf"):
        edit(model)


@pytest.mark.parametrize(
    "arguments", [{"threshold": 0.5}, {"max_value": 3.0}, {"max_value": 3.0, "negative_slope": 0.1}]
)
def test_a_relu_with_settings_is_not_taken_for_a_plain_one(arguments: dict[str, float]) -> None:
    layers = [L.Dense(5), L.ReLU(**arguments, name="own"), L.Dense(5), L.ReLU(name="plain")]
    model = keras.Sequential([keras.Input((4,)), *layers, L.Dense(2)])
    changed = ReplaceActivation("relu", "elu")(model)
    kinds = {layer.name: type(layer).__name__ for layer in changed.layers}
    assert kinds["own"] == "ReLU" and kinds["plain"] != "ReLU"
    with pytest.raises(EditError, match="'own' has activation 'relu"):
        ReplaceActivation("relu", "elu", layers=("own",))(model)
    every = ReplaceActivation("any", "elu", layers=("own",))(model)
    assert not isinstance(every.get_layer("own"), L.ReLU)


def test_fusions_refuse_members_that_are_no_numbers() -> None:
    good, bad = net(4), net(4)
    bad.get_layer("d0").kernel.assign(np.full((6, 4), np.nan))
    with pytest.raises(FusionError, match="Member 2: 'kernel' of layer 'd0' .* holds NaN"):
        Soup(check=False, align=False)([good, bad])


@pytest.mark.parametrize("wrong", [{}, "x", b"x", object(), (1, 2), -1, True, float("nan")])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Stack, "seed"),
        (Boost, "shrinkage"),
        (Boost, "epochs"),
        (Cascade, "certainty"),
        (Cascade, "cost"),
        (Factorize, "layers"),
        (Sparsify, "exclude"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused_in_one_line(
    kind: Any, name: str, wrong: Any
) -> None:
    if name in ("layers", "exclude") and wrong == {}:
        return
    with pytest.raises((EditError, FusionError), match=f"{name}=|: {name}") as caught:
        kind(**{**({"keep": 0.5} if kind is Factorize else {}), name: wrong})
    assert "\n" not in str(caught.value)
