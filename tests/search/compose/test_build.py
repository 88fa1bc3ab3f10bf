"""A built ensemble predicts what its members' stored predictions promise, and costs no more."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from saikei import Budget
from saikei.errors import BudgetError
from saikei.fusion.evidence import MemberOutputs
from saikei.scoring.labelled import Labelled
from saikei.search.compose import Member, build, ensembles, teacher, trained_ensembles
from saikei.search.gauge import Gauge
from saikei.training import is_in_sample
from tests.search.compose.made_up import CLASSES, TASK

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(CLASSES, 8))
Y = RNG.integers(0, CLASSES, 400)
X = (CENTRES[Y] + 1.5 * RNG.normal(size=(400, 8))).astype("float32")
JUDGE = Labelled.of([TASK], [Y])
JUDGE = replace(JUDGE, x=X)
GAUGE = Gauge(latency=False)


def net(units, seed, name="x", columns=8):
    """A network with random features, whose last layer is fitted by least squares."""
    rng = np.random.default_rng(seed)
    x = keras.Input((columns,), name=name)
    hidden = layers.Dense(units, activation="relu")(x)
    y = layers.Dense(CLASSES, activation="softmax")(layers.BatchNormalization()(hidden))
    model = keras.Model(x, y)
    kernel = rng.normal(size=(columns, units))
    given = X[:, :columns] if name == "x" else X[:, -columns:]
    features = np.maximum(given @ kernel, 0)
    mean, variance = features.mean(axis=0), features.var(axis=0)
    normed = (features - mean) / np.sqrt(variance + 1e-3)
    last = np.linalg.pinv(normed) @ (6.0 * np.eye(CLASSES)[Y])
    ones, zeros = np.ones(units), np.zeros(units)
    model.set_weights([kernel, zeros, ones, zeros, mean, variance, last, np.zeros(CLASSES)])
    return model


def member(name, model, x=X, **more):
    return Member(
        name, "", GAUGE.cost(model), (model.predict(x, verbose=0),), lambda: model, **more
    )


@pytest.fixture(scope="module")
def models():
    return {"small": net(3, 1), "one": net(12, 2), "two": net(12, 3), "big": net(30, 4)}


@pytest.fixture(scope="module")
def members(models):
    return [
        member(name, model, structure="12" if name in ("one", "two") else "")
        for name, model in models.items()
    ]


@pytest.fixture(scope="module")
def found(members):
    whole = members[-1].cost
    return ensembles(members, JUDGE, Budget(macs=2 * whole.macs, count="mean"), whole)


@pytest.mark.sampled
@pytest.mark.parametrize("method", ["average", "learned", "greedy", "stack", "cascade", "soup"])
def test_a_built_ensemble_predicts_what_its_head_does_and_loads_from_a_file(
    method, found, models, members, tmp_path
):
    ensemble = next(one for one in found.ensembles if one.method == method)
    whole = members[-1].cost
    budget = Budget(macs=2 * whole.macs, count="mean")
    built = build(ensemble, models.get, GAUGE.cost, budget, whole, X)
    stored = {one.name: one.outputs for one in members}
    expected = (
        ensemble.outputs
        if ensemble.head is None
        else ensemble.head.predict(MemberOutputs(tuple(stored[name] for name in ensemble.members)))
    )
    built.model.save(tmp_path / "ensemble.keras")
    for model in (built.model, keras.saving.load_model(tmp_path / "ensemble.keras")):
        np.testing.assert_allclose(model.predict(X, verbose=0), expected[0], atol=1e-5)
    assert budget.cost(built.cost, "macs") <= budget.cost(ensemble.cost, "macs") * 1.02
    assert built.cost.params <= ensemble.cost.params
    if ensemble.complexity > 1:
        assert is_in_sample(built.model, (X, Y)).all()


def test_a_soup_costs_what_one_member_does(found, members):
    soup = next(one for one in found.ensembles if one.method == "soup")
    assert soup.cost == members[1].cost and set(soup.members) == {"one", "two"}


def test_frozen_layers_that_members_share_count_once_when_built():
    prefix = layers.Dense(64, activation="relu")
    prefix.trainable = False
    x = keras.Input((8,))
    features = prefix(x)
    models = {
        name: keras.Model(x, layers.Dense(CLASSES, activation="softmax")(features))
        for name in ("one", "two")
    }
    members = [member(name, model) for name, model in models.items()]
    budget, whole = Budget(params=10_000), members[0].cost
    found = ensembles(members, JUDGE, budget, whole, ["average"])
    ensemble = next(one for one in found.ensembles if one.method == "average")
    built = build(ensemble, models.get, GAUGE.cost, budget, whole)
    assert built.cost.params == ensemble.cost.params - prefix.count_params()
    with pytest.raises(BudgetError, match="average of .* costs more than the budget once"):
        build(ensemble, models.get, GAUGE.cost, Budget(params=700), whole)


def test_members_with_different_inputs_are_judged_and_built_on_all_of_them():
    models = {"left": net(12, 5, "left", 4), "right": net(12, 6, "right", 4)}
    x = {"left": X[:, -4:], "right": X[:, -4:]}
    members = [member(name, model, x[name], inputs=(name,)) for name, model in models.items()]
    budget, whole = Budget(macs=1.0), replace(members[0].cost, macs=10_000)
    judge = replace(JUDGE, x=x)
    found = ensembles(members, judge, budget, whole, ["average", "multimodal"])
    ensemble = next(one for one in found.ensembles if one.method == "average")
    built = build(ensemble, models.get, GAUGE.cost, budget, whole, x)
    np.testing.assert_allclose(judge.predict(built.model)[0], ensemble.outputs[0], atol=1e-5)


def test_an_ensemble_teaches_what_it_predicts(found, models):
    ensemble = next(one for one in found.ensembles if one.method == "average")
    taught = teacher(ensemble, models.get, (X, Y))
    np.testing.assert_allclose(taught.outputs, ensemble.outputs[0], atol=1e-5)


@pytest.mark.long
def test_a_boosted_series_is_trained_as_planned(models, members):
    first, whole = members[1], members[-1].cost
    (plan,) = trained_ensembles([first], JUDGE, Budget(macs=2 * first.cost.macs), whole, epochs=20)
    model = plan.train(models.get, (X, Y))
    assert plan.epochs == 20 and GAUGE.cost(model).macs <= plan.cost.macs
    assert JUDGE.loss(JUDGE.predict(model)) < JUDGE.loss(first.outputs)
