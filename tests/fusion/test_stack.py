"""`Stack` puts a fitted meta-learner behind its members, as layers of one graph."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import saikei as sk
from saikei.errors import DataError, FusionError
from saikei.fusion import Average, Stack
from saikei.fusion.evidence import gather
from saikei.scoring import infer_tasks, sample_losses
from saikei.scoring.inference import flat_labels
from saikei.training import is_in_sample

RNG = np.random.default_rng(0)
X = RNG.normal(size=(240, 6)).astype("float32")
SCORES = X @ RNG.normal(size=(6, 3))


def member(seed, units=3, activation="softmax", width=5):
    """A net that knows a part of the truth."""
    keras.utils.set_random_seed(seed)
    net = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(width, activation="tanh"),
            layers.Dense(units, activation=activation),
        ],
        name="net",
    )
    hidden = net.layers[0]
    hidden.set_weights([hidden.get_weights()[0] * 1.5, hidden.get_weights()[1]])
    return net


def outputs_of(model, x=X):
    """The model's outputs, without the price of tracing a predict function."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x, training=False))


def make_members(units=3, activation="softmax", count=3):
    return [member(seed, units, activation, width=4 + seed) for seed in range(count)]


def truth_of(members, noise=0.3):
    """Classes that the members' scores depend on, in an odd mixture."""
    mixed = sum(w * outputs_of(m) for w, m in zip((3, -2, 4, 1), members, strict=False))
    return (mixed + noise * RNG.normal(size=mixed.shape)).argmax(-1)


def log_loss(model, y):
    """As `evaluate` has it, without the price of tracing a predict function."""
    outputs, labels = keras.tree.flatten(outputs_of(model)), flat_labels(model, y)
    each = zip(infer_tasks(model, y), labels, outputs, strict=True)
    return sum(float(sample_losses(task, part, output).mean()) for task, part, output in each)


def probabilities(members):
    return np.concatenate([outputs_of(m).astype(float) for m in members], axis=1)


@pytest.mark.parametrize(
    ("classes", "standardised"),
    [
        (2, True),
        (3, False),
        pytest.param(2, False, marks=pytest.mark.slow),
        pytest.param(3, True, marks=pytest.mark.slow),
    ],
)
def test_the_graph_is_scikit_learns_estimator_to_1e_5(standardised, classes):
    members = make_members(classes)
    y = truth_of(members)
    estimator = LogisticRegression(C=3.0, max_iter=5000, tol=1e-9)
    if standardised:
        estimator = make_pipeline(StandardScaler(), estimator)
    made = Stack(meta=estimator, folds=2).fuse(members, (X, y))
    chosen = made.head.metas[0].view.form
    columns = probabilities(members)
    if chosen == "log-probabilities":
        columns = np.log(np.clip(columns, 1e-6, 1 - 1e-6))
    with threadpool_limits(1):
        expected = estimator.fit(columns, y).predict_proba(columns)
    np.testing.assert_allclose(outputs_of(made.model), expected, atol=1e-5)


QUICK = (("binary", True), ("multiclass", False), ("multilabel", True))


@pytest.mark.parametrize(
    ("kind", "logits"),
    [
        pytest.param(kind, logits, marks=() if (kind, logits) in QUICK else pytest.mark.slow)
        for kind in ("binary", "two-classes", "multiclass", "one-hot", "multilabel")
        for logits in (False, True)
    ],
)
def test_the_graph_predicts_what_was_fitted_and_is_better_than_any_member(kind, logits):
    units = {"binary": 1, "two-classes": 2}.get(kind, 3)
    activation = "sigmoid" if kind in ("binary", "multilabel") else "softmax"
    members = make_members(units, None if logits else activation)
    mixed = sum(w * outputs_of(m) for w, m in zip((3, -2, 4), members, strict=True))
    mixed = mixed - mixed.mean(0)
    if activation == "sigmoid":
        y = (mixed > 0).astype(int)
        y = y[:, 0] if kind == "binary" else y.astype("float32")
    else:
        y = (mixed + 0.1 * RNG.normal(size=mixed.shape)).argmax(-1)
        y = np.eye(units)[y] if kind == "one-hot" else y
    if logits and kind == "multilabel":
        for one in members:
            one.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    made = Stack(folds=3).fuse(members, (X, y))
    fitted, fused = made.head, made.model
    np.testing.assert_allclose(
        outputs_of(fused),
        fitted.predict(gather(members, (X, y)).predictions)[0],
        atol=1e-4,
        rtol=1e-4,
    )
    if logits:
        fused.compile(loss=members[0].loss if kind == "multilabel" else None)
    assert log_loss(fused, y) < min(log_loss(m, y) for m in members)


def test_what_validates_is_kept_among_probabilities_and_log_probabilities():
    members = make_members()
    logs = np.log(np.clip(sum(outputs_of(m) for m in members), 1e-6, None))
    fitted = Stack(folds=3).fuse(members, (X, logs.argmax(-1))).to_dict()["outputs"][0]
    losses = {name: min(each.values()) for name, each in fitted["losses"].items()}
    assert set(losses) == {
        "logistic on probabilities",
        "logistic on log-probabilities",
        "pooled on log-probabilities",
    }
    assert f"{fitted['meta']} on {fitted['form']}" == min(losses, key=losses.get)
    json.dumps(fitted)


def test_an_opinion_pool_is_found_where_members_are_to_be_pooled():
    """With few rows and many classes, one weight a member is all that can be learned."""
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 8, 60)
    x = np.eye(8)[truth] * 1.2 + rng.normal(size=(60, 8))
    members = []
    for seed in range(2):
        keras.utils.set_random_seed(seed)
        net = keras.Sequential([keras.Input((8,)), layers.Dense(8, activation="softmax")])
        net.set_weights([np.eye(8) * 3 + 0.3 * rng.normal(size=(8, 8)), np.zeros(8)])
        members.append(net)
    fitted = Stack().fuse(members, (x, truth)).head.metas[0]
    assert fitted.chosen["meta"] == "pooled"
    kernel = fitted.linear.kernel.reshape(2, 8, 8)
    for weight, block in zip(kernel[:, 0, 0], kernel, strict=True):
        np.testing.assert_allclose(block, weight * np.eye(8))
    assert 0 < kernel[:, 0, 0].sum() < 1


@pytest.mark.sampled
@pytest.mark.parametrize("estimator", ["ridge", Ridge(1e-3), LinearRegression()])
@pytest.mark.parametrize("units", [1, 2])
def test_numbers_are_stacked_by_least_squares(estimator, units):
    members = make_members(units, None)
    y = (
        outputs_of(members[0])
        - 2 * outputs_of(members[1])
        + 5
        + 0.01 * RNG.normal(size=(240, units))
    )
    y = y.astype("float32")
    fused = Stack(estimator)(members, (X, y))
    assert np.mean((outputs_of(fused) - y) ** 2) < 2e-4
    expected = LinearRegression().fit(probabilities(members), y).predict(probabilities(members))
    np.testing.assert_allclose(outputs_of(fused), expected.reshape(240, units), atol=0.02)


def test_features_and_raw_inputs_have_what_outputs_lack():
    members = make_members()
    y = (np.tanh(X @ members[0].layers[0].get_weights()[0])[:, 0] > 0).astype(int) + (X[:, 5] > 1)
    outputs = log_loss(Stack(folds=3)(members, (X, y)), y)
    features = Stack(on="features", folds=3)(members, (X, y))
    both = Stack(on="features", passthrough=True, folds=3)(members, (X, y))
    assert log_loss(features, y) < outputs
    assert log_loss(both, y) < log_loss(features, y)
    assert features.get_layer("stack").kernel.shape == (4 + 5 + 6, 3)
    assert both.get_layer("stack").kernel.shape == (4 + 5 + 6 + 6, 3)


def test_images_and_whole_numbers_are_passed_through_flat():
    def net(seed):
        keras.utils.set_random_seed(seed)
        image, number = keras.Input((2, 3)), keras.Input((1,), dtype="int32")
        flat = layers.Concatenate()([layers.Flatten()(image), keras.ops.cast(number, "float32")])
        return keras.Model([image, number], layers.Dense(1, activation="sigmoid")(flat))

    x = [X.reshape(240, 2, 3), RNG.integers(0, 9, (240, 1))]
    y = (x[1][:, 0] > 4).astype(int)
    fused = Stack(passthrough=True, folds=3)([net(0), net(1)], (x, y))
    assert fused.get_layer("stack").kernel.shape == (2 + 6 + 1, 1)
    assert sk.evaluate(fused, (x, y)).value > 0.95


@pytest.mark.long
def test_two_outputs_get_a_meta_learner_each():
    def net(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((6,))
        hidden = layers.Dense(5, activation="tanh")(inputs)
        return keras.Model(
            inputs,
            {
                "kind": layers.Dense(3, activation="softmax", name="kind")(hidden),
                "size": layers.Dense(1, name="size")(hidden),
            },
        )

    members = [net(0), net(1)]
    y = {"kind": SCORES.argmax(-1), "size": SCORES[:, 0].astype("float32")}
    for stack in (Stack(folds=3), Stack(folds=3, below=(Average("learn"), Stack(folds=3)))):
        fused = stack(members, (X, y))
        assert sorted(fused.output) == ["kind", "size"]
        assert log_loss(fused, y) < min(log_loss(m, y) for m in members)


@pytest.mark.long
def test_a_stack_of_stacks_is_fitted_to_out_of_fold_predictions_and_is_one_graph():
    members = make_members()
    y = truth_of(members)
    lower = (Stack(folds=3), Average("learn"), Stack(on="features", folds=3))
    stack = Stack(folds=3, below=lower)
    made = stack.fuse(members, (X, y))
    fitted, fused = made.head, made.model
    mixed = fitted.predict(gather(members, (X, y), parts=["features"]).predictions)[0]
    np.testing.assert_allclose(outputs_of(fused), mixed, atol=1e-4)
    assert stack.complexity > max(one.complexity for one in lower)


@pytest.mark.parametrize("own", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_keras_model_is_trained_and_appended(own):
    members = make_members(2)
    # Not linear in the members' outputs: the most confident member decides.
    margins = [outputs_of(m)[:, 1] - 0.5 for m in members[:2]]
    y = ((margins[0] - margins[0].mean()) * (margins[1] - margins[1].mean()) > 0).astype(int)
    meta = "mlp"
    if own:
        meta = keras.Sequential(
            [keras.Input((6,)), layers.Dense(32, "relu"), layers.Dense(2, "softmax")]
        )
        before = meta.get_weights()
    linear, other = Stack(folds=3), Stack(meta, folds=3)
    fused = other(members, (X, y))
    assert log_loss(fused, y) < log_loss(linear(members, (X, y)), y)
    assert other.complexity > linear.complexity
    if own:
        for old, new in zip(before, meta.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.long
def test_the_same_seed_gives_the_same_stack():
    members = make_members()
    y = truth_of(members)
    for meta in ("auto", "mlp"):
        one, two = (Stack(meta, folds=3, seed=4)(members, (X, y)) for _ in range(2))
        np.testing.assert_array_equal(outputs_of(one), outputs_of(two))


@pytest.mark.long
@pytest.mark.parametrize(
    ("refit", "models"), [(True, 2), pytest.param(False, 6, marks=pytest.mark.slow)]
)
def test_a_stack_is_fitted_to_cross_fit_and_deploys_its_models(refit, models):
    y = SCORES.argmax(-1)
    builds = {"a": lambda: member(0), "b": lambda: member(1, width=8)}
    made = sk.cross_fit(
        builds, (X, y), 3, refit=refit, epochs=1, learning_rate=1e-3, progress=False
    )
    fused = Stack(folds=3)(made)
    assert is_in_sample(fused, (X, y)).all()
    assert fused.count_params() > models * 40
    average = Average("learn").fuse(made)
    assert sum(average.head.fitted.values) == pytest.approx(1)
    assert average.model.output_shape == (None, 3)
    with pytest.raises(FusionError, match="beside what cross_fit gives"):
        Stack()(made, (X, y))
    with pytest.raises(FusionError, match="mean something else in each fold"):
        Stack(on="features")(made)


def test_a_fit_on_rows_of_a_member_is_refused_and_the_stack_counts_as_fitted():
    members = make_members()
    y = truth_of(members)
    sk.fit(members[1], (X[:100], y[:100]), epochs=1, learning_rate=1e-3, progress=False)
    with pytest.raises(FusionError, match="Member 2 .* 50 of these 190"):
        Stack()(members, (X[50:], y[50:]))
    Stack(folds=2)(members, (X[50:], y[50:]), allow_in_sample=True)
    fused = Stack(folds=2)(members, (X[100:], y[100:]))
    with pytest.raises(FusionError, match=r"Member 1 \('stack'\) was trained on 140 of these 140"):
        Stack()([fused, members[0]], (X[100:], y[100:]))


def test_stacks_go_through_json():
    architecture = keras.Sequential([keras.Input((4,)), layers.Dense(2, activation="softmax")])
    for stack in (
        Stack(),
        Stack("mlp", on="features", passthrough=True, folds=3, seed=7),
        Stack(below=(Stack("logistic"), Average((0.5, 0.5)))),
    ):
        assert Stack.from_dict(json.loads(json.dumps(stack.to_dict()))) == stack
    again = Stack.from_dict(json.loads(json.dumps(Stack(architecture).to_dict())))
    assert again.meta.output_shape == (None, 2)
    assert again.meta.layers[0].activation is keras.activations.softmax
    with pytest.raises(FusionError, match="as JSON: keep it in Python"):
        Stack(LogisticRegression()).to_dict()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"meta": "boosting"}, "'boosting' is unknown"),
        ({"meta": LogisticRegression}, "unfitted estimator"),
        ({"on": "inputs"}, "use 'outputs' or 'features'"),
        ({"folds": 1}, "from 2 to"),
        ({"below": (Stack(),)}, "at least two"),
        ({"below": (Stack(), "mean")}, "'mean'"),
        ({"below": (Stack(), Stack()), "on": "features"}, "have no features"),
    ],
)
def test_arguments_that_mean_nothing_get_one_line(arguments, message):
    with pytest.raises(FusionError, match=message) as caught:
        Stack(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("stack", "message"),
    [
        (Stack(RandomForestClassifier(5)), "meta=RandomForestClassifier is not linear"),
        (Stack(GaussianNB()), "meta=GaussianNB is not linear"),
        (Stack(Ridge()), "meta=Ridge is no classifier, which the members' task"),
        (Stack("ridge"), "does not fit a multiclass output: use meta='logistic'"),
        (
            Stack(keras.Sequential([keras.Input((4,)), layers.Dense(3)])),
            r"there are 9 columns and 3 outputs: build it with keras.Input\(\(9,\)\)",
        ),
    ],
)
def test_meta_learners_that_cannot_be_used_get_one_line(stack, message):
    members = make_members()
    with pytest.raises(FusionError, match=message) as caught:
        stack(members, (X, SCORES.argmax(-1)))
    assert "\n" not in str(caught.value)


def test_data_that_cannot_be_stacked_gets_one_line():
    members = make_members()
    y = SCORES.argmax(-1)
    with pytest.raises(FusionError, match="at least two members, got 1"):
        Stack()(members[:1], (X, y))
    with pytest.raises(FusionError, match="needs held-out data"):
        Stack()(members)
    with pytest.raises(DataError, match="Class 2 has 1 of the 240 rows"):
        Stack()(members, (X, np.where(np.arange(240) == 3, 2, y % 2)))
    with pytest.raises(DataError, match="soft"):
        Stack()(members, (X, np.full((240, 3), 1 / 3)))
    members[1].layers[-1].bias.assign([np.nan, 0, 0])
    with pytest.raises(FusionError, match=r"Member 2: 'bias' of layer .* holds NaN"):
        Stack()(members, (X, y))
    maps = [keras.Sequential([keras.Input((4, 6)), layers.Dense(3, "softmax")]) for _ in range(2)]
    with pytest.raises(FusionError, match="use Average for maps and sequences"):
        Stack()(maps, (np.zeros((9, 4, 6)), np.zeros((9, 4), int)))
    pictures = [
        keras.Sequential(
            [keras.Input((8, 2)), layers.Conv1D(3, 8, activation="softmax"), layers.Flatten()]
        )
        for _ in range(2)
    ]
    with pytest.raises(FusionError, match="pooling or Flatten before its last layer"):
        Stack(on="features")(pictures, (np.zeros((9, 8, 2)), np.arange(9) % 3))
