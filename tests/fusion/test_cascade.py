"""When rows leave a cascade: thresholds that are fitted, tested and paid for."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
from keras import layers as L

import saikei as sk
from saikei import Cascade
from saikei.errors import DataError, FusionError
from saikei.fusion.cascade.fitting import fit_exits
from saikei.fusion.cascade.policies import Goal, front
from saikei.fusion.cascade.stage_table import StageTable
from saikei.models import Exits
from tests.fusion.cascade_nets import CLASSES, labels, member, members, predicted, rows


def macs_of(model: keras.Model) -> int:
    return sk.profile(model, latency=False).macs


def by_hand(table: StageTable, goal: str, bound: float) -> tuple[float, float]:
    """The best accuracy and cost over all combinations of thresholds, one by one."""
    options = [np.append(np.unique(table.confidences[:, k]), [0, 2]) for k in range(2)]
    found = []
    for thresholds in itertools.product(*options):
        found.append((table.rights(thresholds).mean(), table.spent(thresholds).mean()))
    if goal == "cost":
        return max((a, -c) for a, c in found if c <= bound + 1e-12)
    return min((c, -a) for a, c in found if a >= bound - 1e-12)


def random_table(n: int, stages: int = 3, seed: int = 0) -> StageTable:
    generator = np.random.default_rng(seed)
    sure = generator.uniform(size=(n, stages - 1)).round(2).astype("float32")
    right = generator.uniform(size=(n, stages)) < np.linspace(0.6, 0.95, stages)
    right[:, :-1] |= sure > 0.8
    costs = np.cumsum(np.geomspace(0.1, 1, stages))
    return StageTable(sure, right, right[:, -1], costs)


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_are_searched_jointly_to_the_optimum(seed: int) -> None:
    table = random_table(40, seed=seed)
    policies = front(table)
    for bound in (0.3, 0.6, 0.9):
        accuracy, cost = by_hand(table, "cost", bound)
        best = [p for p in policies if p.cost <= bound + 1e-12][-1]
        assert (best.accuracy, -best.cost) == pytest.approx((accuracy, cost))
    for bound in (0.8, 0.85, 0.9):
        cost, accuracy = by_hand(table, "accuracy", bound)
        best = next(p for p in policies if p.accuracy >= bound - 1e-12)
        assert (best.cost, -best.accuracy) == pytest.approx((cost, accuracy))


@pytest.mark.parametrize("stages", [2, 3, 4, 6])
def test_a_policy_does_on_rows_what_the_search_reports(stages: int) -> None:
    table = random_table(300, stages)
    policies = front(table)
    assert all(np.diff([p.cost for p in policies]) > 0)
    assert all(np.diff([p.accuracy for p in policies]) > 0)
    for policy in policies:
        assert table.rights(policy.thresholds).mean() == pytest.approx(policy.accuracy)
        assert table.spent(policy.thresholds).mean() == pytest.approx(policy.cost)


def test_a_fit_keeps_its_target_and_reports_what_it_costs() -> None:
    x = rows(4000)
    data = x, labels(x)
    made = members()
    fitted = Cascade(target=0.97).fuse(made, data).head.fitted
    assert fitted.certainty == 0.9 and fitted.rows == 2000
    assert fitted.accuracy >= 0.97 * fitted.last_accuracy
    assert fitted.costs == tuple(float(macs_of(one)) for one in made)
    assert fitted.mean_cost == pytest.approx(np.dot(fitted.shares, fitted.costs))
    assert fitted.mean_cost < 0.8 * fitted.costs[-1]
    loose = Cascade(target=0.9).fuse(made, data).head.fitted
    assert loose.mean_cost < fitted.mean_cost
    cheap = Cascade(cost=0.5).fuse(made, data).head.fitted
    assert cheap.mean_cost <= 0.5 * cheap.costs[-1]
    exact = Cascade(cost=0.5, certainty=None).fuse(made, data).head.fitted
    assert exact.rows == 4000 and exact.certainty is None
    assert exact.mean_cost <= 0.5 * exact.costs[-1]
    absolute = Cascade(target=0.85, absolute=True).fuse(made, data).head.fitted
    assert absolute.accuracy >= 0.85
    model = Cascade(target=0.97)(made, data)
    assert model.exits == fitted.exits and model.shares == fitted.shares
    new = rows(4000, seed=5)
    assert sk.evaluate(model, (new, labels(new))).value >= 0.97 * (
        sk.evaluate(made[-1], (new, labels(new))).value
    )


def test_the_target_is_missed_on_new_rows_no_more_often_than_promised() -> None:
    """The guard against a fit's own optimism, which without it misses every other time."""
    from saikei.fusion.cascade.fitting import fit_exits
    from saikei.fusion.cascade.policies import Goal

    generator = np.random.default_rng(0)
    sure = generator.uniform(size=(100_000, 1)).astype("float32")
    last = generator.uniform(size=100_000) < 0.9
    first = last & (generator.uniform(size=100_000) > 0.4 * (1 - sure[:, 0]))
    many = StageTable(sure, np.stack([first, last], axis=1), last, np.array([0.02, 1.02]))
    truth = many.take(slice(20_000, None))
    missed = {0.9: 0, None: 0}
    tries, refused = 60, 0
    for seed in range(tries):
        drawn = np.random.default_rng(seed).integers(0, 20_000, 600)
        for certainty in missed:
            table = many.take(drawn)
            exits = Exits((0.0,))
            goal = Goal("share", 0.95)
            try:
                found = fit_exits(exits, table, goal, (0.02, 1.0), certainty, seed)
            except FusionError:
                refused += 1
                continue
            chosen = found.exits.thresholds
            kept = truth.rights(chosen).mean() >= 0.95 * truth.last_right.mean()
            missed[certainty] += not kept
    assert refused <= 0.1 * tries
    assert missed[0.9] <= 0.1 * (tries - refused)
    assert missed[None] > 0.25 * tries


def test_profile_gives_mean_and_worst_costs() -> None:
    x = rows(500)
    made = members()
    cascade = Cascade(cost=0.5, certainty=None)(made, (x, labels(x)))
    costs = sk.profile(cascade, batch_size=8)
    assert costs.macs == sum(macs_of(one) for one in made)
    _, stages = cascade.predict_stages(x)
    shares = [(stages >= place).mean() for place in range(3)]
    assert costs.mean_macs == pytest.approx(np.dot(shares, [macs_of(one) for one in made]))
    assert costs.mean_macs <= 0.5 * macs_of(made[-1])
    assert costs.latency is not None and costs.mean_latency is not None
    assert "on average" in costs.summary()
    unknown = sk.profile(Cascade(thresholds=(0.5, 0.5))(made))
    assert unknown.mean_macs is None and unknown.mean_latency is None
    assert "expected" not in unknown.summary()


@pytest.mark.long
def test_members_stay_as_they_are_and_out_of_fold_predictions_are_taken() -> None:
    x = rows(300)
    y = labels(x)
    made = members()
    before = [[w.tobytes() for w in one.get_weights()] for one in made]
    Cascade(target=0.9, certainty=None)(made, (x, y))
    assert [[w.tobytes() for w in one.get_weights()] for one in made] == before
    crossed = sk.cross_fit(
        {"small": lambda: member(0.8), "large": lambda: member(0.1, 16)},
        (x, y),
        2,
        epochs=1,
        learning_rate=1e-3,
    )
    cascade = Cascade(target=0.5, certainty=None)(crossed)
    assert predicted(cascade, x).shape == (300, CLASSES)


def test_what_a_cascade_was_fitted_on_is_known() -> None:
    x = rows(200)
    cascade = Cascade(cost=0.5, certainty=None)(members(), (x, labels(x)))
    with pytest.raises(FusionError, match="was trained on 200"):
        Cascade(target=0.9)([cascade, member(0.0, seed=5)], (x, labels(x)))


def test_what_makes_no_cascade_is_refused_with_the_fix() -> None:
    x = rows(100)
    data = x, labels(x)
    t = keras.Input((8,))
    two = keras.Model(t, [L.Dense(2, activation="softmax")(t), L.Dense(2)(t)], name="two")
    with pytest.raises(FusionError, match="'two' gives 2"):
        Cascade(thresholds=(0.5,))([two, two])
    line = keras.Sequential([keras.Input((8,)), L.Dense(1)], name="line")
    with pytest.raises(FusionError, match="'line' gives regression"):
        Cascade(thresholds=(0.5,))([line, line])
    many = keras.Sequential([keras.Input((8,)), L.Dense(3, activation="sigmoid")], name="many")
    with pytest.raises(FusionError, match="'many' gives multilabel"):
        Cascade(thresholds=(0.5,))([many, many])
    with pytest.raises(FusionError, match="1 thresholds are given for 3 members"):
        Cascade(thresholds=(0.5,))(members(), data)
    with pytest.raises(FusionError, match="at least two"):
        Cascade()([member(0.1)], data)
    with pytest.raises(FusionError, match="needs held-out data"):
        Cascade()(members())
    with pytest.raises(FusionError, match="on 20 rows.*give more held-out rows"):
        Cascade(target=0.999)(members(), (x[:20], data[1][:20]))
    with pytest.raises(FusionError, match="mean cost of 0.001.*smaller first member"):
        Cascade(cost=0.001, certainty=None)(members(), data)
    for wrong in (
        {"target": 0.9, "cost": 0.5},
        {"target": -1},
        {"target": 1.5, "absolute": True},
        {"certainty": 1.0},
        {"confidence": "vibes"},
        {"combine": "first"},
    ):
        with pytest.raises(FusionError):
            Cascade(**wrong)
    with pytest.raises(FusionError, match="costs="):
        Cascade(costs=(1, 2))(members(), data)
    cascade = Cascade(thresholds=(0.5, 0.5))(members())
    with pytest.raises(FusionError, match="train its members"):
        cascade.fit(x, data[1])
    with pytest.raises(DataError, match="no rows"):
        cascade.predict(x[:0])
    with pytest.raises(FusionError, match="callbacks"):
        cascade.predict(x, callbacks=[keras.callbacks.Callback()])


def test_given_costs_take_the_place_of_macs() -> None:
    x = rows(300)
    fitted = (
        Cascade(cost=0.6, certainty=None, costs=(1, 2, 10))
        .fuse(members(), (x, labels(x)))
        .head.fitted
    )
    assert fitted.costs == (1.0, 2.0, 10.0) and fitted.mean_cost <= 6


def test_a_cascade_goes_through_json() -> None:
    for cascade in (
        Cascade(),
        Cascade(0.9, True, confidence="entropy", combine="average", certainty=None, seed=3),
        Cascade(thresholds=(0.5, 0.7), costs=(1, 2, 3)),
    ):
        assert Cascade.from_dict(cascade.to_dict()) == cascade
    exits = Exits((0.5,), "margin", "average", "binary", True)
    assert Exits.from_dict(exits.to_dict()) == exits


@pytest.mark.parametrize("certainty", [0.95, None])
def test_where_members_cost_the_same_that_is_the_reason_and_a_cheaper_one_helps(
    certainty: float | None,
) -> None:
    """The first member is better than the last, so that thresholds would keep any accuracy."""
    rng = np.random.default_rng(0)
    n = 60
    right = np.stack([rng.random(n) < 0.65, rng.random(n) < 0.57], axis=1)
    right[:, 1] &= right[:, 0]
    sure = rng.random((n, 1)).astype("float32")
    exits = Exits((0.5,))
    even = StageTable(sure, right, right[:, 1], np.array([1.0, 2.0]))
    hard = Goal("accuracy", 0.99)
    with pytest.raises(FusionError, match="costs as much as the last one.*cheaper member first"):
        fit_exits(exits, even, hard, (7.0, 7.0), certainty, 0)
    cheap = StageTable(sure, right, right[:, 1], np.array([0.1, 1.1]))
    with pytest.raises(FusionError, match="No thresholds keep an accuracy of 0.99.*: aim lower"):
        fit_exits(exits, cheap, hard, (0.7, 7.0), certainty, 0)
    assert fit_exits(exits, cheap, Goal("share", 0.5), (0.7, 7.0), certainty, 0).mean_cost < 7.0
