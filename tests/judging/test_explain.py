"""`explain` gives what the members of a fusion are worth, however it is called."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers

import saikei as sk
from saikei.errors import DataError, FusionError
from saikei.fusion import Average, BestMember, Cascade, Stack
from saikei.judging import explain, explain_predictions, nested_score
from saikei.scoring import infer_task
from saikei.scoring.predictions import predict
from tests.judging.explaining.nets import (
    CLASSES,
    HELD_OUT,
    MEMBERS,
    data_of,
    net,
    score_is_that_of,
    sums_up,
    values,
)


def test_members_and_weights_are_explained_as_the_model_that_they_make():
    weights = (0.5, 0.2, 0.3)
    fused = explain(Average(weights)(MEMBERS), HELD_OUT)
    apart = explain(MEMBERS, HELD_OUT, fusion=Average(weights))
    task = infer_task(MEMBERS[0], HELD_OUT[1])
    outputs = [predict(member, HELD_OUT)[1][0] for member in MEMBERS]
    stored = explain_predictions(task, outputs, HELD_OUT[1], weights)
    for other in (apart, stored):
        np.testing.assert_allclose(values(other), values(fused), atol=1e-6)
        assert other.removable.members == fused.removable.members
        np.testing.assert_allclose(other.outputs[0].agreement, fused.outputs[0].agreement)
    assert [member.name for member in apart.members] == ["net_0", "net_1", "net_2"]
    assert [member.weight for member in stored.members] == list(weights)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "fusion",
    [
        Average("learn"),
        Average("learn", space="logit", calibrate=True),
        Average("learn", per_class=True),
        Stack(folds=3),
        Stack(on="features", passthrough=True, folds=3),
        Cascade(thresholds=(0.6, 0.7), combine="average"),
    ],
    ids=["average", "pool", "per class", "stack", "features", "cascade"],
)
def test_a_fusion_that_is_fitted_is_explained_on_folds_that_it_was_not_fitted_to(fusion):
    explained = explain(MEMBERS, HELD_OUT, fusion=fusion, folds=3)
    assert sums_up(explained)
    assert score_is_that_of(explained, nested_score(fusion, MEMBERS, HELD_OUT, 3).score)


@pytest.mark.parametrize(
    "average",
    [
        lambda weights: Average(weights, space="logit"),
        lambda weights: Average(how="median"),
        lambda weights: Average(how="median", space="logit"),
    ],
    ids=["geometric", "median", "median of logits"],
)
def test_a_pool_without_a_member_is_the_pool_of_the_others(average):
    explained = explain(MEMBERS, HELD_OUT, fusion=average((0.5, 0.2, 0.3)))
    assert sums_up(explained)
    for place, rest in enumerate([(0.4, 0.6), (0.625, 0.375), (5 / 7, 2 / 7)]):
        others = [member for i, member in enumerate(MEMBERS) if i != place]
        without = sk.evaluate(average(rest)(others), HELD_OUT).loss
        lost = explained.members[place].without.more
        assert lost == pytest.approx(without - explained.with_all, abs=1e-5)


def test_of_a_best_member_the_others_are_worth_nothing_and_can_go():
    explained = explain([net(0), net(1, -2.0), net(2, -2.0)], HELD_OUT, fusion=BestMember())
    assert values(explained)[0] > 0.1
    assert values(explained)[1:] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert sorted(explained.removable.members) == [1, 2]
    assert [member.can_go for member in explained.members] == [False, True, True]


def test_out_of_fold_predictions_are_explained_by_name():
    builds = {"a": lambda: net(0), "b": lambda: net(1)}
    made = sk.cross_fit(builds, HELD_OUT, 3, trainer=lambda model, data: None)
    explained = explain(made, fusion=Average("learn"))
    assert [member.name for member in explained.members] == ["a", "b"]
    assert score_is_that_of(explained, nested_score(Average("learn"), made).score)


def test_rows_that_order_in_time_leaves_out_are_left_out():
    from sklearn.model_selection import TimeSeriesSplit

    explained = explain(MEMBERS, HELD_OUT, fusion=Average("learn"), folds=TimeSeriesSplit(2))
    assert explained.fused.n == 60
    assert sums_up(explained)


def test_a_dataset_and_arrays_are_explained_alike():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            rows = slice(30 * index, 30 * index + 30)
            return HELD_OUT[0][rows], HELD_OUT[1][rows]

    fused = Average()(MEMBERS)
    np.testing.assert_allclose(
        values(explain(fused, Batches())), values(explain(fused, HELD_OUT)), atol=1e-6
    )


def test_rows_that_a_part_was_trained_on_are_refused_by_the_models_name():
    fitted_to = data_of(40, 5)
    fused = Stack(folds=3)(MEMBERS, fitted_to)
    mixed = tuple(np.concatenate(parts) for parts in zip(fitted_to, HELD_OUT, strict=True))
    with pytest.raises(FusionError, match=r"'stack'.* trained on 40 of these rows \(by Stack\)"):
        explain(fused, mixed)
    assert sums_up(explain(fused, mixed, allow_in_sample=True))
    member = net(7)
    sk.declare_training_rows(member, fitted_to)
    with pytest.raises(FusionError, match=r"'net_7'.* 40 of these 130 rows"):
        explain([*MEMBERS, member], mixed)
    with pytest.raises(FusionError, match="'average' or a member"):
        explain(Average()([*MEMBERS, member]), mixed)


def several_heads(seed, named):
    keras.utils.set_random_seed(seed)
    x = keras.Input((4,))
    kind = layers.Dense(CLASSES, activation="softmax", name="kind")(x)
    size = layers.Dense(2, name="size")(x)
    marks = layers.Dense(2, activation="sigmoid", name="marks")(x)
    outputs = {"kind": kind, "marks": marks, "size": size} if named else [kind, marks, size]
    return keras.Model(x, outputs, name=f"heads_{seed}")


@pytest.mark.parametrize("named", [False, True])
def test_several_outputs_share_one_sum_and_have_a_view_each(named):
    x, y = HELD_OUT
    marks, size = (x[:, :2] > 0).astype("int32"), x[:, 2:]
    labels = {"kind": y, "marks": marks, "size": size} if named else [y, marks, size]
    members = [several_heads(seed, named) for seed in range(3)]
    fused = Average((0.2, 0.3, 0.5))(members)
    explained = explain(fused, (x, labels))
    assert sums_up(explained)
    assert explained.metric == "loss"
    assert score_is_that_of(explained, sk.evaluate(fused, (x, labels)))
    assert [view.kind for view in explained.outputs] == ["multiclass", "multilabel", "regression"]
    assert str(explained).count("Output 2: ") == 2
    json.dumps(explained.to_dict(), allow_nan=False)


@pytest.mark.parametrize("head", ["linear", "softmax"])
def test_logits_and_probabilities_are_explained(head):
    members = [net(seed, head=head) for seed in range(3)]
    fused = Average()(members)
    for metric in ("loss", "accuracy"):
        explained = explain(fused, HELD_OUT, metric=metric)
        assert sums_up(explained)
        assert score_is_that_of(explained, sk.evaluate(fused, HELD_OUT))
    assert explained.metric == "error rate"
    assert explained.with_all == pytest.approx(1 - explained.fused.value)


def test_of_more_than_12_members_orders_are_drawn_by_a_seed():
    members = [predict(net(seed), HELD_OUT)[1][0] for seed in range(13)]
    task = infer_task(MEMBERS[0], HELD_OUT[1])
    one, again, other = (
        explain_predictions(task, members, HELD_OUT[1], orders=64, seed=seed) for seed in (0, 0, 1)
    )
    assert sums_up(one)
    assert one.orders == 64
    assert all(member.sampling_error > 0 for member in one.members)
    assert values(one) == values(again) != values(other)
    few = explain_predictions(task, members[:12], HELD_OUT[1])
    assert few.orders is None
    assert {member.sampling_error for member in few.members} == {0.0}


def test_the_text_names_members_and_those_that_can_go():
    explained = explain([*MEMBERS, MEMBERS[0]], HELD_OUT, fusion=Average((0.4, 0.3, 0.3, 0.0)))
    text = str(explained)
    assert all(member.name in text for member in explained.members)
    assert "over all 16 coalitions" in text
    assert "4 (net_0)" in text.split("removed together at no loss: ")[1].splitlines()[0]
    record = json.loads(json.dumps(explained.to_dict(), allow_nan=False))
    assert record["members"][3]["shapley"] == pytest.approx(0.0, abs=1e-12)
    assert record["members"][3]["can_go"] is True


def test_means_of_members_in_half_precision_are_taken_in_double():
    outputs = [predict(member, HELD_OUT)[1][0] for member in MEMBERS]
    task = infer_task(MEMBERS[0], HELD_OUT[1])
    half = [part.astype("float16") for part in outputs]
    exact = explain_predictions(task, [part.astype("float64") for part in half], HELD_OUT[1])
    assert values(explain_predictions(task, half, HELD_OUT[1])) == pytest.approx(values(exact))


def test_wrong_arguments_are_refused_with_the_fix():
    task = infer_task(MEMBERS[0], HELD_OUT[1])
    outputs = [predict(member, HELD_OUT)[1][0] for member in MEMBERS]
    y = HELD_OUT[1]
    with pytest.raises(FusionError, match="There is no data"):
        explain(Average()(MEMBERS))
    with pytest.raises(FusionError, match="beside a fused model"):
        explain(Average()(MEMBERS), HELD_OUT, fusion=Average())
    with pytest.raises(FusionError, match="orders=0"):
        explain(MEMBERS, HELD_OUT, orders=0)
    with pytest.raises(FusionError, match="1 members to explain"):
        explain_predictions(task, outputs[:1], y)
    with pytest.raises(FusionError, match="2 weights are given for 3 members"):
        explain_predictions(task, outputs, y, (0.5, 0.5))
    with pytest.raises(FusionError, match="2 names are given for 3 members"):
        explain_predictions(task, outputs, y, names=["a", "b"])
    with pytest.raises(DataError, match="Member 2 predicts NaN"):
        explain_predictions(task, [outputs[0], np.full_like(outputs[1], np.nan), outputs[2]], y)
    with pytest.raises(DataError, match="89 labels do not fit 90 predictions"):
        explain_predictions(task, outputs, y[:-1])


def test_one_row_has_no_errors():
    one = explain(Average()(MEMBERS), tuple(part[:1] for part in HELD_OUT))
    assert sums_up(one)
    assert {member.error for member in one.members} == {0.0}
