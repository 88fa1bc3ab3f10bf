"""An average in logit space, a median, with weights for each class, of calibrated members."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from scipy import special

import saikei as sk
from saikei.errors import FusionError
from saikei.fusion import Average, CalibratedFit, Stack, nested_score
from saikei.fusion.evidence import gather
from saikei.graph import copy_model
from saikei.training import distill, evaluate, infer_task
from saikei.training.outputs import read_outputs

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 6)).astype("float32")
TABLE = ((0.2, 0.3, 0.5), (0.0, 1.0, 0.0), (0.6, 0.4, 0.0))
AXES = {
    "logit": Average((0.2, 0.3, 0.5), space="logit"),
    "median": Average(how="median"),
    "median-of-logits": Average(how="median", space="logit"),
    "table": Average(TABLE),
    "learned": Average("learn", space="logit"),
    "greedy": Average("greedy", space="logit", rounds=5),
    "calibrated": Average(calibrate=True),
    "calibrated-median": Average(how="median", calibrate=True),
    "all": Average("learn", space="logit", per_class=True, calibrate=True),
    "classes": Average("learn", per_class=True),
}


def classifier(seed, activation="softmax", classes=3, sharp=3.0, dtype=None):
    keras.utils.set_random_seed(seed)
    net = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, activation="relu", dtype=dtype),
            layers.Dense(classes, activation=activation, dtype=dtype),
        ],
        name=f"net_{seed}",
    )
    net.layers[-1].kernel.assign(sharp * net.layers[-1].kernel)
    return net


def team(activation="softmax", **options):
    return [classifier(seed, activation, **options) for seed in range(3)]


def say(model, x=X):
    x = keras.tree.map_structure(lambda part: np.asarray(part, "float32"), x)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x, training=False))


def labels_of(member, x=X, seed=1):
    """Labels drawn from what a member means by its outputs."""
    rng, p = np.random.default_rng(seed), say(member, x)
    activation = read_outputs(member).each[0].activation
    if activation == "sigmoid":
        return (rng.random(p.shape) < p).astype("int64")
    p = p if activation == "softmax" else special.softmax(p, -1)
    return np.array([rng.choice(p.shape[1], p=row / row.sum()) for row in p.astype("float64")])


def two_outputs(seed):
    keras.utils.set_random_seed(seed)
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    joined = layers.Dense(5, activation="relu")(layers.Concatenate()([a, b]))
    return keras.Model(
        {"a": a, "b": b},
        {
            "kind": layers.Dense(3, activation="softmax", name="kind")(joined),
            "size": layers.Dense(2, name="size")(joined),
        },
    )


TWO_X = {"a": X[:, :3], "b": X[:, 3:]}
TWO_Y = {"kind": RNG.integers(0, 3, 80), "size": RNG.normal(size=(80, 2))}


FIRST, LAST = slice(0, 50), slice(50, 80)


@pytest.fixture(scope="module")
def teams():
    """For each activation members, labels, and the evidence of all rows."""
    made = {}
    for activation in ("softmax", "sigmoid", None):
        members = team(activation)
        y = labels_of(members[1])
        made[activation] = members, y, gather(members, (X, y))
    return made


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("name", AXES)
def test_what_is_scored_is_what_the_graph_says(name, activation, teams):
    fusion, (members, y, evidence) = AXES[name], teams[activation]
    fused = fusion(members, (X[FIRST], y[FIRST]))
    combiner = fusion.combiner(evidence.take(FIRST))
    (scored,) = combiner.predict(evidence.take(LAST).said)
    said = say(fused, X[LAST])
    np.testing.assert_allclose(said, scored, atol=1e-6, rtol=1e-5)
    assert read_outputs(fused).each[0].activation == (activation or "linear")
    assert infer_task(fused, y).from_logits == (activation is None)
    if activation == "softmax":
        np.testing.assert_allclose(said.sum(-1), 1, atol=1e-6)
    json.dumps(combiner.to_dict())


def test_the_nested_score_is_that_of_models_which_are_fitted_fold_by_fold(teams):
    members, y, _ = teams["softmax"]
    rows = np.arange(80)
    nested = nested_score(AXES["all"], members, (X, y), [(rows[FIRST], rows[LAST])])
    fused = AXES["all"](members, (X[FIRST], y[FIRST]))
    predicted = fused.predict(X[LAST], verbose=0)
    np.testing.assert_allclose(nested.outputs[0], predicted, atol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_learned_weights_in_logit_space_are_certified_and_nothing_beats_them(activation):
    members = team(activation)
    y = labels_of(members[1])
    fitted = Average("learn", space="logit").fit(members, (X, y))
    assert fitted.gap <= 1e-4
    fused = Average("learn", space="logit")(members, (X, y))
    assert evaluate(fused, (X, y)).loss == pytest.approx(fitted.loss, rel=1e-4)
    for weights in np.random.default_rng(0).dirichlet([1, 1, 1], 10):
        other = Average(tuple(weights), space="logit")(members)
        assert fitted.loss <= evaluate_quickly(other, y) + fitted.gap + 1e-6


def evaluate_quickly(model, y):
    task = infer_task(model, y)
    return sk.training.score.sample_losses(task, y, say(model)).mean()


def test_greedy_selection_in_logit_space_is_bounded_by_the_learned_weights():
    members = team()
    y = labels_of(members[1])
    greedy = Average("greedy", space="logit").fit(members, (X, y))
    learned = Average("learn", space="logit").fit(members, (X, y))
    assert learned.loss - learned.gap - 1e-6 <= greedy.losses[-1] <= learned.loss + 0.02
    fused = Average("greedy", space="logit")(members, (X, y))
    assert evaluate_quickly(fused, y) == pytest.approx(greedy.losses[-1], abs=1e-5)


def test_temperatures_undo_what_made_members_too_sure():
    members = team()
    y = labels_of(members[0], np.tile(X, (30, 1)))
    x = np.tile(X, (30, 1))
    sure = copy_model(members[0])
    sure.layers[-1].kernel.assign(4 * sure.layers[-1].kernel)
    sure.layers[-1].bias.assign(4 * sure.layers[-1].bias)
    fit = Average(calibrate=True).fit([members[0], sure], (x, y))
    assert isinstance(fit, CalibratedFit)
    first, second = fit.temperatures[0]
    assert first.value == pytest.approx(1, abs=0.1)
    assert second.value == pytest.approx(4 * first.value, rel=1e-3)
    assert second.loss == pytest.approx(first.loss, abs=1e-4)
    assert second.loss < second.loss_before - 0.05
    fused = Average(calibrate=True)([members[0], sure], (x, y))
    assert evaluate_quickly_on(fused, x, y) == pytest.approx(first.loss, abs=1e-4)


def evaluate_quickly_on(model, x, y):
    return sk.training.score.sample_losses(infer_task(model, y), y, say(model, x)).mean()


def test_weights_are_fitted_after_the_temperatures():
    members = team(sharp=12.0)
    y = labels_of(team()[1])
    fit = Average("learn", calibrate=True).fit(members, (X, y))
    hot = [one.value for one in fit.temperatures[0]]
    cooled = [
        special.softmax(np.log(np.maximum(say(m), 1e-30)) / t, -1)
        for m, t in zip(members, hot, strict=True)
    ]
    by_hand = sk.fusion.fit_weights(infer_task(members[0], y), cooled, y)
    np.testing.assert_allclose(fit.weights.values, by_hand.values, atol=1e-3)
    assert fit.weights.loss == pytest.approx(by_hand.loss, abs=1e-5)
    assert fit.weights.loss <= Average("learn").fit(members, (X, y)).loss
    record = json.loads(json.dumps(fit.to_dict()))
    assert [one["value"] for one in record["temperatures"][0]] == hot
    assert record["values"] == list(fit.weights.values)


def test_on_labels_of_noise_the_nested_score_sees_through_a_calibrated_fit():
    members, y = team(), np.random.default_rng(5).integers(0, 3, 80)
    fusion = Average("learn", space="logit", per_class=True, calibrate=True)
    fitted = fusion.fit(members, (X, y)).weights.loss
    assert nested_score(fusion, members, (X, y)).score.loss > fitted


def test_dictionaries_of_two_outputs_keep_their_names_and_numbers_stay_numbers():
    members = [two_outputs(seed) for seed in range(3)]
    said = [say(member, TWO_X) for member in members]
    logit = say(Average((0.2, 0.3, 0.5), space="logit")(members), TWO_X)
    np.testing.assert_allclose(
        logit["size"], np.average([one["size"] for one in said], 0, (0.2, 0.3, 0.5)), atol=1e-6
    )
    z = np.average([np.log(one["kind"]) for one in said], 0, (0.2, 0.3, 0.5))
    np.testing.assert_allclose(logit["kind"], special.softmax(z, -1), atol=1e-6)
    median = say(Average(how="median")(members), TWO_X)
    np.testing.assert_allclose(
        median["size"], np.median([one["size"] for one in said], 0), atol=1e-6
    )
    tables = (TABLE, ((1.0, 0.0, 0.0), (0.0, 0.5, 0.5)))
    given = say(Average(tables)(members), TWO_X)
    np.testing.assert_allclose(
        given["size"],
        np.einsum("mnc,cm->nc", [one["size"] for one in said], np.array(tables[1])),
        atol=1e-6,
    )


def test_two_outputs_are_calibrated_and_weighed_each_for_itself():
    members = [two_outputs(seed) for seed in range(3)]
    fusion = Average("learn", per_class=True, calibrate=True)
    fit = fusion.fit(members, (TWO_X, TWO_Y))
    assert fit.temperatures[1] is None
    assert len(fit.temperatures[0]) == 3
    assert [np.shape(table) for table in fit.weights.values] == [(3, 3), (2, 3)]
    fused = fusion(members, (TWO_X, TWO_Y))
    assert evaluate(fused, (TWO_X, TWO_Y)).loss == pytest.approx(fit.weights.loss, rel=1e-3)
    assert [one.activation for one in read_outputs(fused).each] == ["softmax", "linear"]
    again = Average(fit.weights.values)
    assert again.per_class
    json.dumps(fit.to_dict())


def test_members_that_count_for_no_class_are_left_out():
    members = team()
    fused = Average(((0.5, 0.0, 0.5),) * 3)(members)
    assert fused.count_params() == 2 * members[0].count_params()
    shared = say(Average((0.5, 0.0, 0.5))(members))
    np.testing.assert_allclose(say(fused), shared, atol=1e-6)


def test_it_can_be_fused_again_stacked_and_distilled():
    members = team()
    y = labels_of(members[1])
    fused = Average("learn", space="logit", per_class=True)(members, (X[:40], y[:40]))
    again = Average(space="logit")([fused, Average(how="median")(members)])
    assert read_outputs(again).each[0].activation == "softmax"
    stack = Stack(below=(Average(space="logit"), Average(calibrate=True)), folds=2)
    stacked = stack(members, (X, y))
    np.testing.assert_allclose(say(stacked).sum(-1), 1, atol=1e-5)
    student = classifier(9)
    before = np.abs(say(student) - say(again)).mean()
    distill(student, again, (X, y), epochs=8, alpha=0.0, progress=False)
    assert np.abs(say(student) - say(again)).mean() < before


@pytest.mark.parametrize("name", ["logit", "table", "median", "all"])
def test_prefixes_that_members_share_are_computed_once(name):
    keras.utils.set_random_seed(0)
    trunk = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="relu")])
    trunk.trainable = False
    heads = []
    for _ in range(3):
        x = keras.Input((6,))
        heads.append(keras.Model(x, layers.Dense(3, activation="softmax")(trunk(x))))
    y = labels_of(heads[0])
    fused = AXES[name](heads, (X, y))
    evidence = gather(heads, (X, y))
    combiner = AXES[name].combiner(evidence)
    assert len(combiner.used) >= 2
    assert fused.count_params() == 6 * 8 + 8 + len(combiner.used) * (8 * 3 + 3)
    np.testing.assert_allclose(say(fused), combiner.predict(evidence.said)[0], atol=1e-6)


def test_half_precision_members_are_pooled_in_float32():
    members = team(dtype="mixed_float16")
    y = labels_of(members[1])
    keras.config.set_dtype_policy("mixed_float16")
    try:
        for name in ("logit", "median", "table", "all"):
            fused = AXES[name](members, (X, y))
            evidence = gather(members, (X, y))
            assert evidence.said.outputs[0][0].dtype == np.float16
            (scored,) = AXES[name].combiner(evidence).predict(evidence.said)
            said = say(fused)
            assert said.dtype == np.float32
            np.testing.assert_allclose(said, scored, atol=1e-5)
            np.testing.assert_allclose(said.sum(-1), 1, atol=1e-5)
    finally:
        keras.config.set_dtype_policy("float32")


def test_one_class_stays_one():
    for activation in ("softmax", "sigmoid"):
        members = team(activation, classes=1)
        y = np.zeros((80, 1), int) if activation == "softmax" else labels_of(members[0])
        for fusion in (Average(space="logit"), Average("learn", per_class=True, calibrate=True)):
            said = say(fusion(members, (X, y)))
            assert said.shape == (80, 1)
            if activation == "softmax":
                np.testing.assert_allclose(said, 1)


def test_a_saved_average_loads_where_saikei_cannot_be_imported(tmp_path):
    members = team()
    y = labels_of(members[1])
    np.save(tmp_path / "x.npy", X)
    names = ["logit", "median", "table", "calibrated", "all"]
    for name in names:
        fused = AXES[name](members, (X, y))
        fused.save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.npy", say(fused))
    code = f"""if True:
        import sys
        sys.modules["saikei"] = None
        import keras, numpy as np
        for name in {names}:
            model = keras.saving.load_model(f"{{name}}.keras", safe_mode=True)
            said = keras.ops.convert_to_numpy(model(np.load("x.npy")))
            assert np.allclose(said, np.load(f"{{name}}.npy"), atol=1e-6), name
    """
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT is TensorFlow's")
@pytest.mark.parametrize("name", ["all", "median"])
def test_it_exports_to_litert(name, tmp_path):
    members = team()
    fused = AXES[name](members, (X, labels_of(members[1])))
    fused.export(str(tmp_path / "net.tflite"), format="litert", verbose=False)
    assert (tmp_path / "net.tflite").stat().st_size > 0


def test_rows_that_a_member_was_trained_on_are_refused_for_temperatures_too():
    members = team()
    y = labels_of(members[1])
    sk.declare_training_rows(members[2], (X[:7], y[:7]))
    for fusion in (Average(calibrate=True), Average(how="median", calibrate=True)):
        with pytest.raises(FusionError, match="Member 3 .* 7 of these 80 rows"):
            fusion(members, (X, y))
        fusion(members, (X, y), allow_in_sample=True)
    with pytest.raises(FusionError, match="needs held-out data"):
        Average(calibrate=True)(members)


def test_a_fused_model_counts_as_trained_on_the_rows_of_its_temperatures():
    members = team()
    y = labels_of(members[1])
    fused = Average(calibrate=True)(members, (X, y))
    with pytest.raises(FusionError, match="80 of these 80 rows"):
        Average("learn")([fused, members[0]], (X, y))


@pytest.mark.parametrize("name", AXES)
def test_it_round_trips_through_json(name):
    value = AXES[name]
    assert Average.from_dict(json.loads(json.dumps(value.to_dict()))) == value


def test_what_fits_more_is_more_complex():
    order = [
        Average(space="logit"),
        Average(calibrate=True),
        Average("learn", per_class=True),
    ]
    assert [one.complexity for one in order] == [1, 2, 3]
    assert Average(how="median").complexity == Average(TABLE).complexity == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": (0.5, 0.5), "how": "median"}, "median takes no weights"),
        ({"weights": "learn", "how": "median"}, "median takes no weights"),
        ({"per_class": True, "how": "median"}, "median takes no weights"),
        ({"how": "geometric"}, "use space='logit'"),
        ({"how": "mode"}, "how='mode' is unknown"),
        ({"space": "odds"}, "space='odds' is unknown"),
        ({"calibrate": "yes"}, "calibrate='yes' is unknown"),
        ({"calibrate": 1}, "calibrate=1 is unknown"),
        ({"per_class": True}, "needs weights='learn', or a table"),
        ({"weights": (0.5, 0.5), "per_class": True}, "needs weights='learn', or a table"),
        ({"weights": "greedy", "per_class": True}, "Greedy selection counts whole members"),
    ],
)
def test_arguments_that_do_not_fit_get_one_line(arguments, message):
    with pytest.raises(FusionError, match=message) as caught:
        Average(**arguments)
    assert "\n" not in str(caught.value)


def test_members_that_do_not_fit_an_axis_get_one_line():
    with pytest.raises(FusionError, match="space='probability' needs"):
        Average(space="probability")(team(None))
    with pytest.raises(FusionError, match="no probabilities to calibrate"):
        Average(calibrate=True)(team(None), (X, RNG.normal(size=(80, 3))))
    odd = team("sigmoid")
    for member in odd:
        member.compile(loss="mse")
    with pytest.raises(FusionError, match="ends in sigmoid and is compiled for regression"):
        Average("learn", space="logit")(odd, (X, RNG.random((80, 3))))
    assert say(Average(how="median")(odd)).shape == (80, 3)
    nested_score(Average(space="logit"), odd, (X, RNG.random((80, 3))), 2)
    with pytest.raises(FusionError, match="has nothing to fit"):
        Average(how="median").fit(team(), (X, np.zeros(80, int)))
    with pytest.raises(FusionError, match="2 rows of weights are given for the 3 classes"):
        Average(TABLE[:2])(team())
    with pytest.raises(FusionError, match="one weight for each member"):
        sk.fusion.Multimodal(weights=TABLE)
