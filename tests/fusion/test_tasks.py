"""`Average` and `Soup` for every task, dense outputs such as segmentation maps among them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import keras
import numpy as np
import pytest
from keras import layers as L
from scipy import special

import saikei as sk
from saikei import Average, Soup
from saikei.errors import DataError, FusionError
from saikei.fusion.average.weights import fit_weights
from saikei.fusion.evidence import gather
from saikei.scoring import infer_task

# Maps are not square, so that mixed up axes show.
HEIGHT, WIDTH = 3, 5


@dataclass(frozen=True)
class Case:
    """A kind of output and of labels.

    Args:
        kind: of the task.
        units: of the last axis.
        activation: of the outputs.
        dense: whether there is one output for each place of a map.
        form: of the labels: class numbers, one-hot, or as the outputs; `"flat"` leaves out the
            last axis.
    """

    kind: str
    units: int
    activation: str | None
    dense: bool = False
    form: str = "same"


CASES = {
    "binary": Case("binary", 1, "sigmoid", form="flat"),
    "binary, logits": Case("binary", 1, None, form="flat"),
    "multiclass": Case("multiclass", 3, "softmax", form="numbers"),
    "multiclass, one-hot": Case("multiclass", 3, "softmax"),
    "multiclass, logits": Case("multiclass", 3, None, form="numbers"),
    "multilabel": Case("multilabel", 3, "sigmoid"),
    "regression": Case("regression", 1, None, form="flat"),
    "regression of several": Case("regression", 2, None),
    "segmentation": Case("multiclass", 3, "softmax", True, "numbers"),
    "segmentation, one-hot": Case("multiclass", 3, "softmax", True),
    "segmentation, numbers with an axis": Case("multiclass", 3, "softmax", True, "column"),
    "segmentation, logits": Case("multiclass", 3, None, True, "numbers"),
    "mask": Case("binary", 1, "sigmoid", True, "flat"),
    "mask with an axis": Case("binary", 1, "sigmoid", True),
    "overlapping masks": Case("multilabel", 3, "sigmoid", True),
    "depth map": Case("regression", 1, None, True),
}


def cases(*quick):
    """All cases, those that show less than they take among the slow tests."""
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, id=name, marks=() if name in quick else pytest.mark.slow)
            for name, case in CASES.items()
        ],
    )


# Binary and multiclass outputs of single rows are all over the other tests.
every_case = cases("multilabel", "regression of several", "segmentation")


def inputs(case, rows=60, seed=0):
    shape = (HEIGHT, WIDTH, 2) if case.dense else (2,)
    return np.random.default_rng(seed).normal(size=(rows, *shape)).astype("float32")


@cache
def truth(case):
    """The network that labels are drawn from."""
    keras.utils.set_random_seed(1)
    shape = (None, None, 2) if case.dense else (2,)
    body = (
        L.Conv2D(6, 3, padding="same", activation="relu", name="body")
        if case.dense
        else L.Dense(6, activation="relu", name="body")
    )
    head = (L.Conv2D if case.dense else L.Dense)(
        case.units, *([1] if case.dense else []), activation=case.activation, name="head"
    )
    model = keras.Sequential([keras.Input(shape), body, head], name="truth")
    model.set_weights([2 * weight for weight in model.get_weights()])
    return model


def labels(case, x, seed=7):
    """Drawn from the truth's predictions, so that no member can be certain."""
    outputs = np.asarray(truth(case).predict_on_batch(x), dtype=np.float64)
    draw = np.random.default_rng(seed)
    if case.kind == "regression":
        y = outputs + 0.1 * draw.normal(size=outputs.shape)
        return y[..., 0] if case.form == "flat" else y
    if case.kind == "multiclass":
        p = special.softmax(outputs, axis=-1) if case.activation is None else outputs
        numbers = (p.cumsum(axis=-1) < draw.random((*p.shape[:-1], 1))).sum(axis=-1)
        numbers = numbers.clip(max=case.units - 1)
        return {"numbers": numbers, "column": numbers[..., None], "same": np.eye(3)[numbers]}[
            case.form
        ]
    p = special.expit(outputs) if case.activation is None else outputs
    y = (draw.random(p.shape) < p).astype(int)
    return y[..., 0] if case.form == "flat" else y


@cache
def lineage(case, count=3, noise=0.3):
    """The truth with some noise on its weights, another for each member."""
    made = []
    for seed in range(count):
        member = keras.models.clone_model(truth(case))
        member.name = f"member_{seed}"
        draw = np.random.default_rng(seed + 20)
        member.set_weights(
            [w + noise * draw.normal(size=w.shape) for w in truth(case).get_weights()]
        )
        made.append(member)
    return made


def stranger(case, noise=0.05):
    """The truth with its channels in another order, and a little noise."""
    (original,) = lineage(case, 1, noise)
    member = keras.models.clone_model(original)
    order = np.random.default_rng(3).permutation(6)
    kernel, bias, head, last = original.get_weights()
    member.set_weights([kernel[..., order], bias[order], head[..., order, :], last])
    return member


@cache
def held(case, rows=60):
    x = inputs(case, rows)
    return x, labels(case, x)


def predicted(model, x):
    return np.asarray(model.predict_on_batch(x), dtype=np.float64)


def loss(model, data):
    return sk.evaluate(model, data).loss


@every_case
def test_the_case_is_of_its_task_and_its_loss_is_that_of_keras(case):
    data, (member,) = held(case), lineage(case, 1)
    task = infer_task(member, data[1])
    assert task.kind == case.kind
    member.compile(loss=task.loss)
    assert loss(member, data) == pytest.approx(member.evaluate(*data, verbose=0), rel=1e-4)


@every_case
def test_a_mean_of_outputs_is_equal_or_given(case):
    data, members = held(case), lineage(case)
    each = [predicted(member, data[0]) for member in members]
    np.testing.assert_allclose(
        predicted(Average()(members), data[0]), np.mean(each, axis=0), atol=1e-5
    )
    weights = (0.5, 0.3, 0.2)
    expected = sum(w * one for w, one in zip(weights, each, strict=True))
    model = Average(weights)(members)
    np.testing.assert_allclose(predicted(model, data[0]), expected, atol=1e-5)
    assert infer_task(model, data[1]).kind == case.kind


@every_case
def test_learned_weights_are_the_best_and_those_of_the_model(case):
    data, members = held(case), lineage(case)
    made = Average("learn").fuse(members, data)
    model, found = made.model, made.head.fitted
    assert found.gap <= 1e-4
    assert loss(model, data) == pytest.approx(found.loss, rel=1e-4)
    rivals = [*members, Average()(members), Average((0.6, 0.2, 0.2))(members)]
    assert all(found.loss <= loss(rival, data) + 1e-4 for rival in rivals)


@every_case
def test_greedy_weights_are_no_worse_than_the_best_member_and_those_of_the_model(case):
    data, members = held(case), lineage(case)
    made = Average("greedy", rounds=10).fuse(members, data)
    model, found = made.model, made.head.fitted
    assert loss(model, data) == pytest.approx(found.losses[-1], rel=1e-4)
    assert found.losses[-1] <= min(loss(member, data) for member in members) + 1e-6
    if case.kind == "multiclass":
        right = Average("greedy", rounds=10, metric="accuracy").fuse(members, data).head.fitted
        best = max(sk.evaluate(member, data).value for member in members)
        assert 1 - right.losses[-1] >= best - 1e-6


@every_case
def test_a_soup_is_the_mean_of_the_weights_and_reports_its_loss(case):
    data, members = held(case), lineage(case, noise=0.1)
    made = Soup(points=3).fuse(members, data)
    for mean, *each in zip(*(m.get_weights() for m in (made.model, *members)), strict=True):
        np.testing.assert_allclose(mean, np.mean(each, axis=0), atol=1e-6)
    assert made.loss == pytest.approx(loss(made.model, data), rel=1e-4)
    assert made.losses == pytest.approx([loss(member, data) for member in members], rel=1e-4)
    assert all(barrier.gain > 0 and not barrier.significant for barrier in made.barriers)


@cases("multilabel", "segmentation")
def test_a_greedy_soup_is_no_worse_than_the_best_member(case):
    data, members = held(case), lineage(case, noise=0.2)
    made = Soup("greedy", points=3).fuse(members, data)
    assert loss(made.model, data) <= min(loss(member, data) for member in members) + 1e-5
    assert made.loss == pytest.approx(loss(made.model, data), rel=1e-4)


@cases("multilabel", "segmentation")
def test_a_member_with_its_channels_in_another_order_is_aligned(case):
    data, original = held(case), lineage(case, 1, noise=0.05)[0]
    made = Soup(align=True, points=3).fuse([original, stranger(case)], data)
    # Both ends are one network, in two orders.
    for a, b in zip(made.model.get_weights(), original.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert made.moved[1] > 0
    assert made.loss == pytest.approx(loss(original, data), rel=1e-4)


@pytest.mark.parametrize("name", ["multilabel", "segmentation", "segmentation, one-hot"])
def test_scores_on_folds_and_combiners_take_every_task(name):
    case = CASES[name]
    data, members = held(case), lineage(case)
    nested = sk.nested_score(Average("learn"), members, data, 2)
    best = sk.nested_score(sk.BestMember(), members, data, 2)
    assert nested.score.n == 60 and np.isfinite(nested.losses).all()
    assert nested.score.loss <= best.score.loss + 0.05
    evidence = gather(members, data)
    expected = np.mean([one[0] for one in evidence.predictions.outputs], axis=0)
    np.testing.assert_allclose(
        Average().fit_head(evidence).predict(evidence.predictions)[0], expected, atol=1e-6
    )


@pytest.mark.parametrize("name", ["segmentation, one-hot", "depth map"])
def test_a_map_counts_as_the_mean_over_its_places(name):
    case = CASES[name]
    (x, y), members = held(case), lineage(case)
    found = Average("learn").fuse(members, (x, y)).head.fitted
    # As many single outputs: the same sum of losses, so the same weights.
    predictions = [predicted(member, x).reshape(-1, case.units) for member in members]
    flat = y.reshape(-1, *([case.units] if y.ndim == 4 else []))
    again = fit_weights(infer_task(members[0], y), predictions, flat)
    assert found.values == pytest.approx(again.values, abs=1e-3)
    assert found.loss == pytest.approx(again.loss, rel=1e-5)


def test_labels_of_another_size_than_the_map_are_refused():
    case = CASES["segmentation"]
    x, y = held(case)
    with pytest.raises((DataError, FusionError), match="abels of shape"):
        Average("learn")(lineage(case), (x, y[:, :-1]))
    with pytest.raises(DataError, match="Labels run from 0 to 3"):
        Average("greedy")(lineage(case), (x, np.where(y == 2, 3, y)))
    with pytest.raises((DataError, FusionError), match="abels of shape"):
        Soup()(lineage(case), (x, y[:, :, :-1]))
