"""A cascade is fitted to stored predictions, and so is scored and chosen like other fusions."""

from __future__ import annotations

import json
from functools import cache

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L

import saikei as sk
from saikei import Average, Cascade, choose, nested_score
from saikei.errors import FusionError
from saikei.fusion.evidence import connect, gather
from saikei.fusion.members import Members
from saikei.models import Exits
from saikei.models.cascade import CascadeModel
from saikei.training.folds import make_folds
from tests.fusion.cascade_nets import CLASSES, labels, member, members, predicted, rows

X = rows(400)
Y = labels(X)
COSTS = (1.0, 3.0, 30.0)
CONFIDENCES = ("max_probability", "margin", "entropy", "agreement")
LAX = {"target": 0.9, "certainty": None}


HOWS = [(one, combine) for one in CONFIDENCES for combine in ("last", "average")]
# Each confidence and each way to combine once; together they are slow.
QUICK = (("margin", "last"), ("entropy", "average"))


@pytest.mark.parametrize(
    ("confidence", "combine"),
    [pytest.param(*how, marks=() if how in QUICK else pytest.mark.slow) for how in HOWS],
)
def test_the_head_predicts_what_the_cascade_predicts(confidence, combine):
    how = {"confidence": confidence, "combine": combine, "costs": COSTS}
    fusion = Cascade(target=0.7, certainty=None, **how)
    made = fusion.fuse(members(), (X, Y))
    combiner, fused = made.head, made.model
    held = rows(150, seed=3)
    stored = gather(members(), (held, labels(held))).predictions
    expected, stages = fused.predict_stages(held)
    np.testing.assert_array_equal(combiner.stages(stored), stages)
    np.testing.assert_allclose(combiner.predict(stored)[0], expected, atol=1e-6)
    inputs, tensors = connect(Members.of(members()))
    graph = keras.Model(inputs, combiner.connect(tensors, "cascade")[0])
    np.testing.assert_allclose(predicted(graph, held), expected, atol=1e-6)
    assert combiner.fitted == fusion.fit_head(gather(members(), (X, Y))).fitted
    json.dumps(combiner.to_dict())


def test_a_nested_score_is_that_of_cascades_fitted_to_the_other_folds():
    fusion = Cascade(**LAX, costs=COSTS)
    nested = nested_score(fusion, members(), (X, Y), 4, seed=1)
    folds = make_folds(4, 400, Y, seed=1)
    for fold in folds:
        fused = fusion(members(), (X[fold.train], Y[fold.train]))
        np.testing.assert_allclose(
            nested.outputs[0][fold.test], predicted(fused, X[fold.test]), atol=1e-6
        )
    right = nested.outputs[0].argmax(axis=1) == Y
    assert nested.score.value == pytest.approx(right.mean())


def test_macs_are_counted_where_no_costs_are_given():
    ready = Cascade(**LAX).ready(gather(members(), (X, Y)))
    assert ready.costs == tuple(sk.profile(one).macs for one in members())
    a, b = (nested_score(one, members(), (X, Y), 2) for one in (Cascade(**LAX), ready))
    np.testing.assert_array_equal(a.outputs[0], b.outputs[0])
    head = Cascade(**LAX).fit_head(gather(members(), (X, Y)))
    assert head.fitted.costs == ready.costs
    with pytest.raises(FusionError, match="2 members|for 3 members"):
        Cascade(**LAX, costs=(1, 2)).fit_head(gather(members(), (X, Y)))


def test_out_of_fold_predictions_serve_a_cascade_too():
    builds = {"small": lambda: member(0.8), "large": lambda: member(0.1, 16)}
    made = sk.cross_fit(builds, (X, Y), 4, trainer=lambda *_: None, refit=True)
    nested = nested_score(Cascade(**LAX), made)
    assert nested.score.n == 400
    # Its members are the same in each fold, so this is what models on held-out data give.
    small, large = made.refitted.values()
    again = nested_score(
        Cascade(**LAX),
        [small, large],
        (X, Y),
        [(fold.train, fold.test) for fold in made.folds],
        allow_in_sample=True,
    )
    np.testing.assert_allclose(nested.outputs[0], again.outputs[0], atol=1e-5)
    choice = choose([Cascade(**LAX)], made)
    assert {type(rival.fusion).__name__ for rival in choice.rivals} == {"BestMember", "Cascade"}


def test_a_cascade_is_chosen_where_it_is_better():
    # Each knows its own half of the rows, and is sure of those alone.
    def half(sign, seed):
        keras.utils.set_random_seed(seed)
        t = keras.Input((8,))
        gate = keras.ops.cast(keras.ops.greater(sign * t[:, :1], 0), "float32")
        logits = L.Dense(CLASSES, use_bias=False)(t) * gate * 8.0
        model = keras.Model(t, keras.ops.softmax(logits), name=f"half_{seed}")
        weights = member(0.0).get_layer("head").get_weights()[0]
        model.set_weights([weights])
        return model

    halves = [half(1.0, 1), half(-1.0, 2)]
    cascade = Cascade(cost=1.9, certainty=None, costs=(1, 1))
    choice = choose([Average(), cascade], halves, (X, Y))
    assert choice.fusion == cascade
    assert isinstance(choice.model, CascadeModel)
    assert type(choice.rivals[0].fusion) is Cascade


def test_a_fold_without_thresholds_reports_why():
    with pytest.raises(FusionError, match="No thresholds keep"):
        nested_score(Cascade(target=0.99999), members(), (X[:60], Y[:60]), 3)


@cache
def stored_evidence():
    return gather(members(), (X[:50], Y[:50]))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1.2), min_size=2, max_size=2), st.booleans())
def test_any_thresholds_give_each_row_what_one_of_its_stages_predicts(thresholds, average):
    how = {"thresholds": tuple(thresholds), "combine": "average" if average else "last"}
    evidence = stored_evidence()
    combiner = Cascade(**how, costs=COSTS).fit_head(evidence)
    outputs = [one[0] for one in evidence.predictions.outputs]
    stages = combiner.stages(evidence.predictions)
    exits = Exits(tuple(thresholds), combine=how["combine"])
    for row, (stored, stage) in enumerate(
        zip(combiner.predict(evidence.predictions)[0], stages, strict=True)
    ):
        seen = [output[row : row + 1] for output in outputs[: stage + 1]]
        np.testing.assert_allclose(stored, exits.output(seen)[0], atol=1e-6)
        assert stage == 2 or bool(exits.leaves(seen)[0])
        assert not any(bool(exits.leaves(seen[:k])[0]) for k in range(1, stage + 1))
    assert combiner.fitted.shares[0] == 1.0


def test_outputs_of_other_tasks_make_no_cascade():
    line = [keras.Sequential([keras.Input((8,)), L.Dense(1)]) for _ in range(2)]
    with pytest.raises(FusionError, match="gives regression outputs"):
        Cascade(costs=(1, 2)).fit_head(gather(line, (X, X[:, 0])))
