"""A fusion is scored on rows that its own fit has not seen, whatever it is."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.model_selection import TimeSeriesSplit

import saikei as sk
from saikei.errors import DataError, FusionError
from saikei.fusion import Average, BestMember, Fusion, OutputFusion, Stack
from saikei.fusion.evidence import Evidence
from saikei.judging import nested_score
from saikei.judging.nested import Nest
from saikei.scoring.labelled import Labelled
from saikei.scoring.task import Task

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 20)).astype("float32")
NOISE = RNG.integers(0, 2, 200)


def memoriser(seed):
    """A net with more random features than rows, whose last layer can hit any labels."""
    keras.utils.set_random_seed(seed)
    net = keras.Sequential(
        [
            keras.Input((20,)),
            layers.Dense(300, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ],
        name=f"net_{seed}",
    )
    net.layers[0].bias.assign(RNG.normal(size=300))
    return net


def memorise(model, data):
    """The least-squares fit of the last layer to logits of ±4."""
    x, y = data
    hidden = np.maximum(x @ model.layers[0].get_weights()[0] + model.layers[0].get_weights()[1], 0)
    kernel = np.linalg.pinv(hidden) @ (8.0 * y - 4)
    model.layers[1].set_weights([kernel[:, None], np.zeros(1)])


def leaky_members():
    members = [memoriser(0), memoriser(1)]
    for member in members:
        memorise(member, (X, NOISE))
        sk.declare_training_rows(member, (X, NOISE))
    return members


@pytest.mark.parametrize(
    "fusion",
    [Average("learn"), pytest.param(Stack(folds=3), marks=pytest.mark.long)],
    ids=["average", "stack"],
)
def test_on_labels_of_pure_noise_a_leaky_fit_looks_good_and_ours_reports_chance(fusion):
    members = leaky_members()
    leaky = sk.evaluate(fusion(members, (X, NOISE), allow_in_sample=True), (X, NOISE))
    assert leaky.value > 0.95
    with pytest.raises(FusionError, match="Member 1 .* 200 of these 200 rows"):
        nested_score(fusion, members, (X, NOISE))
    builds = {f"net_{seed}": lambda seed=seed: memoriser(seed) for seed in (0, 1)}
    made = sk.cross_fit(builds, (X, NOISE), 5, trainer=memorise)
    honest = nested_score(fusion, made).score
    assert honest.n == 200
    assert honest.low < 0.5 < honest.high
    assert honest.loss > 0.68  # ln 2 is 0.693


class Remembered:
    """The labels of rows by their bytes, and 1/2 for other rows."""

    summary = ""

    def __init__(self, labels):
        self.labels = labels

    def predict(self, predictions):
        rows = [row.tobytes() for row in predictions.outputs[0][0]]
        return (np.array([[self.labels.get(row, 0.5)] for row in rows]),)

    def to_dict(self):
        return {}


@dataclass(frozen=True)
class Memory(OutputFusion):
    """Remembers the labels of the rows that it is fitted to."""

    data = "held_out"

    def fit_head(self, evidence):
        rows = zip(evidence.predictions.outputs[0][0], evidence.labels[0], strict=True)
        return Remembered({row.tobytes(): y for row, y in rows})

    def build(self, members, head):
        raise NotImplementedError

    def to_dict(self):
        return {}

    @classmethod
    def from_dict(cls, record):
        return cls()


def make_members():
    """Members that know something, of labels that are worth knowing."""
    members = []
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        net = keras.Sequential([keras.Input((20,)), layers.Dense(1, activation="sigmoid")])
        net.set_weights([np.eye(20, 1, -seed) * 2, np.zeros(1)])
        members.append(net)
    return members


Y = (X[:, 0] + X[:, 1] + 0.5 * RNG.normal(size=200) > 0).astype(int)


def test_a_fusion_that_remembers_labels_gains_nothing():
    nested = nested_score(Memory(), make_members(), (X, Y))
    assert nested.score.loss == pytest.approx(np.log(2))


def test_every_row_is_scored_once_by_a_fit_on_the_other_folds():
    folds = [(np.arange(200) % 2 == 1 - k, np.arange(200) % 2 == k) for k in range(2)]
    nested = nested_score(Average("learn"), make_members(), (X, Y), folds)
    np.testing.assert_array_equal(nested.rows, np.arange(200))
    for train, test in folds:
        fused = Average("learn")(make_members(), (X[train], Y[train]))
        expected = keras.ops.convert_to_numpy(fused(X[test]))
        np.testing.assert_allclose(nested.outputs[0][test], expected, atol=1e-5)
    assert nested.score.loss == pytest.approx(nested.losses.mean())
    assert nested.to_dict()["n"] == 200


@dataclass(frozen=True)
class Hidden(Fusion):
    """An average that declares no head, as fusions of weights do."""

    data = "held_out"

    def fuse(self, members, data=None, *, allow_in_sample=False):
        return Average("learn").fuse(members, data, allow_in_sample=allow_in_sample)

    def to_dict(self):
        return {}

    @classmethod
    def from_dict(cls, record):
        return cls()


def test_a_fusion_without_stored_predictions_is_built_and_run_for_each_fold():
    stored, built = (
        nested_score(one, make_members(), (X, Y), 2) for one in (Average("learn"), Hidden())
    )
    np.testing.assert_allclose(stored.outputs[0], built.outputs[0], atol=1e-5)
    builds = {name: lambda: memoriser(0) for name in "ab"}
    made = sk.cross_fit(builds, (X, NOISE), 2, trainer=memorise)
    with pytest.raises(FusionError, match="Hidden needs models"):
        nested_score(Hidden(), made)


def test_time_ordered_folds_are_scored_where_they_predict():
    nested = nested_score(BestMember(), make_members(), (X, Y), TimeSeriesSplit(3))
    assert nested.rows.tolist() == list(range(50, 200))


def test_the_best_member_is_copied_and_counts_as_chosen():
    members = make_members()
    y = (X[:, 2] > 0).astype(int)
    best = BestMember()(members, (X, y))
    assert best is not members[2]
    np.testing.assert_allclose(best.get_weights()[0], members[2].get_weights()[0])
    with pytest.raises(FusionError, match="Member 1"):
        BestMember()([best, members[0]], (X, y))


def test_folds_without_a_class_are_refused():
    with pytest.raises(DataError, match="Class 1 is missing from the training part of fold"):
        nested_score(BestMember(), make_members(), (X, (np.arange(200) == 5).astype(int)))


@pytest.mark.sampled
@pytest.mark.parametrize(
    "fusion",
    [
        Average("learn"),
        Average("greedy", calibrate=True, space="logit"),
        Stack(folds=2),
        sk.Cascade(cost=2, certainty=None, costs=(1, 2)),
        BestMember(),
    ],
    ids=lambda fusion: type(fusion).__name__,
)
def test_stored_predictions_give_the_score_that_the_models_give(fusion):
    members = leaky_members()
    labels = np.where(RNG.random(200) < 0.8, X[:, 0] > 0, NOISE).astype(int)
    expected = nested_score(fusion, members, (X, labels), allow_in_sample=True)
    task = Task("binary", "binary_crossentropy", "binary_accuracy", False, True, 1)
    outputs = [[member.predict_on_batch(X)] for member in members]
    evidence = Evidence.stored(Labelled.of([task], [labels], outputs[0]), outputs)
    found = Nest.stored(evidence, seed=0).score(fusion)
    np.testing.assert_allclose(found.outputs[0], expected.outputs[0], atol=1e-5)
    assert found.score.value == expected.score.value and len(found.heads) == 5


def test_what_needs_models_is_not_scored_on_stored_predictions():
    task = Task("regression", "mse", "mse", False, False, 1)
    outputs = [[X[:, :1]], [X[:, 1:2]]]
    evidence = Evidence.stored(Labelled.of([task], [X[:, 2]], outputs[0]), outputs)
    with pytest.raises(FusionError, match="Soup needs models .* predictions that are stored"):
        Nest.stored(evidence, seed=0).score(sk.Soup())
