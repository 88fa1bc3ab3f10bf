"""Every fit counts a row of weight 2 as two rows, and one of weight 0 as none."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import keras
import numpy as np
import pytest
from scipy import special

import saikei as sk
from saikei.fusion.evidence import Evidence, MemberOutputs
from saikei.fusion.members import Members
from saikei.fusion.stack.columns import View
from saikei.fusion.stack.linear import logistic, pooled, ridge
from saikei.fusion.stack.targets import stack_labels
from saikei.judging.explain import explain_predictions
from saikei.scoring.labelled import Labelled
from saikei.scoring.labels import count
from saikei.scoring.task import Task

N, C, MEMBERS = 60, 3, 3
KINDS = ("multiclass", "multilabel", "regression")


def evidence_of(kind: Any, seed: int = 0) -> Evidence:
    """Members that are right now and then, on rows of which some count twice and some not."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, C, N) if kind == "multiclass" else rng.integers(0, 2, (N, C))
    hot = np.eye(C)[y] if kind == "multiclass" else y
    noisy = [2.0 * hot - 1 + rng.normal(0, 1 + m, (N, C)) for m in range(MEMBERS)]
    squash = {"multiclass": lambda z: special.softmax(z, -1), "multilabel": special.expit}
    outputs = tuple((squash.get(kind, lambda z: z)(z).astype("float32"),) for z in noisy)
    metric = {"multiclass": "accuracy", "multilabel": "binary_accuracy", "regression": "mse"}[kind]
    task = Task(kind, None, metric, False, kind == "multiclass", C)  # type: ignore[arg-type]
    link = {"multiclass": "softmax", "multilabel": "sigmoid", "regression": "linear"}[kind]
    labels = count(y.astype(float) if kind == "regression" else y, None, None, weights())
    return Evidence(
        Labelled((task,), (labels,)),
        MemberOutputs(outputs),
        np.arange(N, dtype=np.uint64),
        heads(link, len(outputs)),
    )


def heads(link: str, members: int) -> Members:
    """Members with outputs like those of the evidence; they are not run."""
    layers = [keras.layers.Dense(C, activation=link) for _ in range(members)]
    return Members.of([keras.Sequential([keras.Input((2,)), layer]) for layer in layers])


def weights() -> Any:
    return np.random.default_rng(1).integers(0, 3, N).astype(float)


def repeated(evidence: Evidence) -> Evidence:
    """The same with as many rows as the weights mean, all of which count the same."""
    rows = np.repeat(np.arange(N), weights().astype(int))
    plain = replace(evidence, labelled=Labelled.of(evidence.tasks, (evidence.labels[0].values,)))
    return plain.take(rows)


FUSIONS = {
    "learn": sk.Average("learn"),
    "greedy": sk.Average("greedy", rounds=7),
    "accuracy": sk.Average("greedy", rounds=7, metric="accuracy"),
    "per class": sk.Average("learn", per_class=True),
    "logit": sk.Average("learn", space="logit", calibrate=True),
    "best": sk.BestMember(),
}


NO_SUCH_FIT = {("accuracy", "multilabel"), ("accuracy", "regression"), ("logit", "regression")}


@pytest.mark.parametrize(
    ("name", "kind"), [one for one in product(FUSIONS, KINDS) if one not in NO_SUCH_FIT]
)
def test_fitting_to_weights_is_fitting_to_repeated_rows(name: str, kind: str) -> None:
    evidence = evidence_of(kind)
    weighted, plain = (
        FUSIONS[name].fit_head(one).predict(evidence.predictions)
        for one in (evidence, repeated(evidence))
    )
    np.testing.assert_allclose(weighted[0], plain[0], atol=2e-4)


def test_a_cascade_weighs_its_rows() -> None:
    evidence = evidence_of("multiclass")
    cascade = sk.Cascade(certainty=None, costs=(0.1, 0.5, 1.0), target=0.8)
    weighted, plain = (cascade.fit_head(one).fitted for one in (evidence, repeated(evidence)))
    assert weighted.accuracy == pytest.approx(plain.accuracy)
    assert weighted.mean_cost == pytest.approx(plain.mean_cost)
    assert weighted.rows == (weights() > 0).sum()


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("multiclass", logistic),
        ("multiclass", pooled(MEMBERS)),
        pytest.param("multilabel", logistic, marks=pytest.mark.slow),
        ("regression", ridge),
    ],
)
def test_the_columns_of_a_stack_are_weighed(kind: str, path: Any) -> None:
    form: Any = "outputs" if kind == "regression" else "log-probabilities"
    found = []
    for evidence in (evidence_of(kind), repeated(evidence_of(kind))):
        kept = evidence.take(np.flatnonzero(evidence.labels[0].counted))
        target = stack_labels(kept.tasks[0], kept.labels[0])
        x = View(kept.tasks[0], 0, form, False).matrix(kept.predictions)
        if path is logistic or path is ridge:
            # Their penalty is not divided by the rows, of which there are as many by weight.
            labels = replace(target.labels, importance=_raw(kept))
            target = replace(target, labelled=replace(target.labelled, labels=(labels,)))
        found.append(list(path(x, target))[3 if path in (logistic, ridge) else -1])
    np.testing.assert_allclose(found[0].kernel, found[1].kernel, atol=5e-3)


def _raw(evidence: Evidence) -> Any:
    importance = evidence.labels[0].importance
    return None if importance is None else importance * weights().mean()


def test_a_stack_leaves_out_what_does_not_count() -> None:
    """Labels of rows of weight 0 may be anything."""
    evidence = evidence_of("multiclass")
    labels = evidence.labels[0]
    other = np.where(labels.counted, labels.values, (labels.values + 1) % C)
    relabelled = Labelled(evidence.tasks, (replace(labels, values=other),))
    changed = replace(evidence, labelled=relabelled)
    a, b = (
        sk.Stack().fit_head(one).predict(evidence.predictions)[0] for one in (evidence, changed)
    )
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("kind", "metric"), [*((kind, "loss") for kind in KINDS), ("multiclass", "accuracy")]
)
def test_members_are_explained_by_what_counts(kind: str, metric: Any) -> None:
    whole = evidence_of(kind)
    found = []
    for evidence in (whole, repeated(whole)):
        outputs = [one[0] for one in evidence.predictions.outputs]
        values = explain_predictions(evidence.tasks[0], outputs, evidence.labels[0], metric=metric)
        found.append([part.shapley for part in values.members])
        score = evidence.labelled.score(evidence.predictions.outputs[0])
        found[-1] += [score.value]
    scale = 1.0 if metric == "accuracy" else whole.labels[0].scale
    members = np.array(found[0][:-1]) / scale
    np.testing.assert_allclose(members, found[1][:-1], atol=1e-6)
    assert found[0][-1] == pytest.approx(found[1][-1])


def test_padding_counts_neither_in_priors_nor_in_losses() -> None:
    rng = np.random.default_rng(0)
    y, mask = rng.integers(0, C, (8, 5)), rng.random((8, 5)) < 0.6
    mask[:, 0] = True
    p = rng.dirichlet(np.ones(C), (8, 5))
    task = Task("multiclass", None, "accuracy", False, True, C)
    labels = count(y, None, mask, None)
    (prior,) = Labelled.of([task], [labels]).prior([p])
    np.testing.assert_allclose(prior[0, 0], np.bincount(y[mask], minlength=C) / mask.sum())
    flat = Labelled.of([task], [y[mask]]).losses([p[mask]])
    assert Labelled.of([task], [labels]).losses([p]).mean() == pytest.approx(flat.mean())
    q = rng.dirichlet(np.ones(C), (8, 5))
    by_row, by_place = (
        sk.fusion.average.weights.fit_weights(task, parts, truth).values
        for parts, truth in (([p, q], labels), ([p[mask], q[mask]], y[mask]))
    )
    np.testing.assert_allclose(by_row, by_place, atol=1e-6)


WORDS = 20


def tagger(seed: int, padded: bool) -> keras.Model:
    """A network that tags words, right as a rule; it masks padding, or not."""
    table = keras.layers.Embedding(WORDS, C, mask_zero=padded)
    layers = [keras.Input((None,), dtype="int32"), table, keras.layers.Activation("softmax")]
    model = keras.Sequential(layers, name=f"tagger{seed}")
    noise = np.random.default_rng(seed).normal(0, 1.5, (WORDS, C))
    table.set_weights([2.0 * np.eye(C)[np.arange(WORDS) % C] + noise])
    model.compile(loss="sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("padded", [(True, False), (False, True), (True, True)])
def test_positions_that_a_member_masks_count_for_no_fit(padded: tuple[bool, bool]) -> None:
    members = [tagger(seed, masks) for seed, masks in enumerate(padded)]
    x = np.random.default_rng(0).integers(1, WORDS, (80, 9)).astype("int32")
    y = x % C
    x[:, 4:] = 0  # Padding, with labels that no member gives.
    y[:, 4:] = C - 1
    real = tuple(member.predict_on_batch(x)[:, :4] for member in members)

    def loss(outputs: Any) -> float:
        chances = np.take_along_axis(outputs, y[:, :4, None], -1)
        return float(-np.log(chances).mean())

    grid = np.linspace(0, 1, 201)
    best = min(loss(w * real[0] + (1 - w) * real[1]) for w in grid)
    losses = {}
    for fusion in (sk.Average("learn"), sk.Average("greedy", rounds=50), sk.BestMember()):
        model = fusion.fuse(members, (x, y)).model
        losses[type(fusion).__name__, str(getattr(fusion, "weights", ""))] = fitted = loss(
            model.predict_on_batch(x)[:, :4]
        )
        # The best member alone has no mask if its own network makes none.
        if all(padded) or not isinstance(fusion, sk.BestMember):
            assert sk.evaluate(model, (x, y)).loss == pytest.approx(fitted, rel=1e-4)
    assert losses["Average", "learn"] == pytest.approx(best, abs=1e-4)
    assert losses["Average", "greedy"] == pytest.approx(best, abs=2e-3)
    assert losses["BestMember", ""] == pytest.approx(min(map(loss, real)), rel=1e-4)
