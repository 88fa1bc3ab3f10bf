"""What is handed in wrongly is named on one line, by every function that takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import saikei as sk

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 4)).astype("float32"), np.arange(24) % 3
NAN, INFINITE = X.copy(), X.copy()
NAN[3, 1], INFINITE[0] = np.nan, np.inf
TWO_HOT = np.tile([1.0, 1.0, 0.0], (24, 1))
QUICK: dict[str, Any] = {"epochs": 1, "progress": False}


def net(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    hidden, last = layers.Dense(6, activation="relu"), layers.Dense(3, activation="softmax")
    return keras.Sequential([keras.Input((4,)), hidden, last])


MODEL, OTHER = net(0), net(1)
BUDGET = sk.Budget(macs=0.5)

# Every function that takes data. What is wrong in the inputs alone is refused by all of them.
INPUTS: dict[str, Callable[[Any], Any]] = {
    "fit": lambda d: sk.fit(net(), d, **QUICK),
    "validation": lambda d: sk.fit(net(), (X, Y), d, **QUICK),
    "distill": lambda d: sk.distill(net(2), MODEL, d, **QUICK),
    "evaluate": lambda d: sk.evaluate(MODEL, d),
    "PruneChannels": lambda d: sk.PruneChannels(0.5)(MODEL, d),
    "Factorize": lambda d: sk.Factorize(0.5)(MODEL, d),
    "Average": lambda d: sk.Average("learn")([MODEL, OTHER], d),
    "Stack": lambda d: sk.Stack()([MODEL, OTHER], d),
    "Soup": lambda d: sk.Soup()([MODEL, OTHER], d),
    "Boost": lambda d: sk.Boost(epochs=1)([MODEL, OTHER], d),
    "Chain": lambda d: sk.Chain(training="joint", epochs=1)([MODEL, OTHER], d),
    "Cascade": lambda d: sk.Cascade(cost=0.9)([MODEL, OTHER], d),
    "BestMember": lambda d: sk.BestMember()([MODEL, OTHER], d),
    "explain": lambda d: sk.explain([MODEL, OTHER], d),
    "choose": lambda d: sk.choose([sk.Average(), sk.BestMember()], [MODEL, OTHER], d),
    "nested_score": lambda d: sk.nested_score(sk.Average(), [MODEL, OTHER], d),
    "cross_fit": lambda d: sk.cross_fit(net, d, folds=2, **QUICK),
    "optimize": lambda d: sk.optimize(MODEL, d, budget=BUDGET, progress=False),
    "optimize, validation": lambda d: sk.optimize(MODEL, (X, Y), d, BUDGET, progress=False),
}
# Those that look at the labels too.
LABELS = set(INPUTS) - {"PruneChannels", "Factorize"}

BAD_INPUTS: dict[str, Any] = {
    "NaN": (NAN, Y),
    "infinite": (INFINITE, Y),
    "width": (X[:, :2], Y),
    "rank": (X[..., None], Y),
    "one sample": (X[0], Y[:1]),
    "objects": (np.array([[object()] * 4] * 24), Y),
    "gaps": (np.array([[1, None, 2, 3]] * 24, object), Y),
    "strings": (np.full((24, 4), "1"), Y),
    "complex": (X.astype("complex64"), Y),
    "lists": (X.tolist(), Y.tolist()),
    "ragged": ([[1, 2], [3]], Y),
    "lengths": (X, Y[:5]),
    "empty": (X[:0], Y[:0]),
    "nothing": (),
    "too many inputs": ([X, X], Y),
    "another name": ({"q": X}, Y),
    "four parts": (X, Y, Y, Y),
    "number": 3,
    "path": "data.npz",
    "function": lambda: (X, Y),
    "single samples": [(1, 2)],
    "no batches": [],
}
BAD_LABELS: dict[str, Any] = {
    "several classes at once": (X, TWO_HOT),
    "strings": (X, np.full(24, "a")),
    "halves": (X, Y + 0.5),
    "too high": (X, Y + 5),
    "another shape": (X, np.zeros((24, 7))),
    "another name": (X, {"a": Y}),
}


def refused(call: Callable[[], Any], what: str) -> str:
    message = None
    try:
        call()
    except sk.SaikeiError as error:
        message = str(error)
    assert message is not None, f"{what} is taken"
    assert "\n" not in message, what
    return message


@pytest.mark.sampled
@pytest.mark.filterwarnings("ignore::saikei.errors.TrainingWarning")
@pytest.mark.parametrize("function", INPUTS)
def test_wrong_inputs_are_refused_by_every_function(function: str) -> None:
    for name, data in BAD_INPUTS.items():
        refused(lambda data=data: INPUTS[function](data), f"{name} by {function}")


@pytest.mark.sampled
@pytest.mark.parametrize("function", sorted(LABELS))
def test_wrong_labels_are_refused_by_every_function_that_looks_at_them(function: str) -> None:
    for name, data in BAD_LABELS.items():
        refused(lambda data=data: INPUTS[function](data), f"{name} by {function}")


class Batches(keras.utils.PyDataset):
    """Two batches of twelve rows."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        rows = slice(12 * index, 12 * index + 12)
        return X[rows], Y[rows]


class Frame:
    """What a table is to NumPy: it becomes an array of objects."""

    columns = ("a", "b", "c", "d")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return X.astype(dtype or object)


FORMS: dict[str, Callable[[], Any]] = {
    "list": lambda: [X, Y],
    "table": lambda: (Frame(), Y),
    "dataset": Batches,
    "weights": lambda: (X, Y, np.linspace(0.5, 1.5, 24)),
}


# These members make no cascade and no series, and a search takes long.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::saikei.errors.TrainingWarning")
@pytest.mark.parametrize(
    "function", [f for f in INPUTS if not f.startswith(("optimize", "Cascade", "Boost"))]
)
def test_data_of_every_form_is_taken_by_every_function(function: str) -> None:
    for form in FORMS.values():
        INPUTS[function](form())


class Subclassed(keras.Model):
    """Never built."""


NO_MODELS = {
    "unbuilt": keras.Sequential([layers.Dense(3)]),
    "subclassed": Subclassed(),
    "none": None,
    "path": "m.keras",
    "layer": layers.Dense(3),
    "class": keras.Model,
    "number": 3,
}
MODELS: dict[str, Callable[[Any], Any]] = {
    "fit": lambda m: sk.fit(m, (X, Y), **QUICK),
    "student": lambda m: sk.distill(m, MODEL, (X, Y), **QUICK),
    "teacher": lambda m: sk.distill(net(2), m, (X, Y), **QUICK),
    "evaluate": lambda m: sk.evaluate(m, (X, Y)),
    "profile": sk.profile,
    "channel_groups": sk.channel_groups,
    "edit": lambda m: sk.PruneChannels(0.5)(m, (X, Y)),
    "optimize": lambda m: sk.optimize(m, (X, Y), budget=BUDGET, progress=False),
    "several": lambda m: sk.optimize([MODEL, m], (X, Y), budget=BUDGET, progress=False),
    "explain": lambda m: sk.explain([MODEL, m], (X, Y)),
    "cross_fit": lambda m: sk.cross_fit(lambda: m, (X, Y), **QUICK),
    **{
        f"{type(fusion).__name__}{' alone' if alone else ''}": (
            lambda m, f=fusion, alone=alone: f(m if alone else [MODEL, m], (X, Y))
        )
        for fusion in (sk.Average("learn"), sk.Stack(), sk.Soup(), sk.Boost(), sk.BestMember())
        for alone in (False, True)
    },
}


@pytest.mark.parametrize("function", MODELS)
def test_what_is_no_built_model_is_refused_by_every_function(function: str) -> None:
    for name, model in NO_MODELS.items():
        refused(lambda model=model: MODELS[function](model), f"{name} by {function}")


ARGUMENTS = ("learning_rate", "patience", "seed", "callbacks", "loss", "epochs", "batch_size")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_of_another_type_are_named(name: str) -> None:
    for value in ("much", [3], layers.Dense(1)):
        message = refused(lambda v=value: sk.fit(net(), (X, Y), **{**QUICK, name: v}), name)
        assert name in message or value == "much"


@pytest.mark.parametrize("name", ["alpha", "temperature", "feature_weight"])
def test_weights_of_the_distillation_of_another_type_are_named(name: str) -> None:
    for value in ("much", [0.5], np.nan):
        message = refused(
            lambda v=value: sk.distill(net(2), MODEL, (X, Y), **{**QUICK, name: v}), name
        )
        assert message.startswith(f"{name}=")


@pytest.mark.parametrize("budget", [0.5, "macs=0.5", {"macs": 0.5}, 3])
def test_a_budget_that_is_no_budget_is_named(budget: Any) -> None:
    message = refused(lambda: sk.optimize(MODEL, (X, Y), budget=budget, progress=False), "budget")
    assert "budget=" in message and "give a Budget" in message
