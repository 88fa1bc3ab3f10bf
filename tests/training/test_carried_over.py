"""Training never leaves a model worse than it came, and is gentle with weights that know much."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from saikei.budget import Budget
from saikei.distilling import distill
from saikei.edits import PruneChannels
from saikei.errors import TrainingWarning
from saikei.graph import copy_model
from saikei.scoring import evaluate
from saikei.training import fit
from saikei.training.prepared import prepare
from saikei.training.rate import beats_constant
from tests.training.nets import redundant_regressor

STALE = "ignore::saikei.errors.TrainingWarning"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(False, id="plain", marks=pytest.mark.slow),
        pytest.param(True, id="normalised"),
    ],
)
def cut(request):
    """A trained network, its data, and what is left of it after a cut to half with data."""
    model, train, validation = redundant_regressor(request.param)
    return model, train, validation, PruneChannels(Budget(macs=0.5))(model, train)


def short(function, *models_and_data, **arguments):
    defaults = {"epochs": 3, "batch_size": 32, "progress": False}
    return function(*models_and_data, **{**defaults, **arguments})


@pytest.mark.long
@pytest.mark.filterwarnings(STALE)
@pytest.mark.parametrize("validated", [True, pytest.param(False, marks=pytest.mark.long)])
def test_distilling_a_cut_network_at_defaults_never_makes_it_worse(cut, validated):
    model, train, validation, student = cut
    begin, before = student.get_weights(), evaluate(student, validation).value
    held = validation if validated else None
    history = short(distill, student, model, train, held, epochs=2)
    after = evaluate(student, validation).value
    student.set_weights(begin)
    # Without validation the training loss decides; it may rise a little elsewhere.
    assert after <= before * (1 if validated else 1.1)
    assert history.learning_rate <= 3e-4


def test_a_rate_for_fresh_weights_would_have_ruined_it_and_the_warning_names_it(cut):
    model, train, validation, student = cut
    before = evaluate(student, validation).value
    begin = [weight.tobytes() for weight in student.get_weights()]
    with pytest.warns(TrainingWarning, match=r"worse.*Lower learning_rate=0\.003") as caught:
        history = short(distill, student, model, train, validation, learning_rate=3e-3)
    assert "\n" not in str(caught[0].message)
    assert history.best_epoch == 0
    assert history.start["val_loss"] == pytest.approx(before, rel=1e-4)
    assert min(history.history["val_loss"]) > 2 * before
    # Statistics of BatchNormalization moved too, and are back.
    assert [weight.tobytes() for weight in student.get_weights()] == begin


@pytest.mark.parametrize("validated", [True, False])
def test_fit_keeps_the_state_before_training_where_no_epoch_is_better(validated):
    model, train, validation = redundant_regressor()
    begin = [weight.tobytes() for weight in model.get_weights()]
    with pytest.warns(TrainingWarning, match="worse"):
        short(fit, model, train, validation if validated else None, learning_rate=0.01)
    assert [weight.tobytes() for weight in model.get_weights()] == begin
    assert int(model.optimizer.iterations) == 0


def test_a_callers_own_callback_does_not_bring_a_worse_state_back():
    model, train, validation = redundant_regressor()
    begin = [weight.tobytes() for weight in model.get_weights()]
    own = keras.callbacks.EarlyStopping(monitor="val_loss", patience=9, restore_best_weights=True)
    with pytest.warns(TrainingWarning):
        short(fit, model, train, validation, learning_rate=0.01, callbacks=[own])
    assert [weight.tobytes() for weight in model.get_weights()] == begin


def test_the_best_epoch_is_named_and_patience_counts_epochs_alone():
    model, train, validation = redundant_regressor()
    with pytest.warns(TrainingWarning):
        history = short(fit, model, train, validation, learning_rate=0.01, epochs=9, patience=2)
    losses = history.history["val_loss"]
    assert len(losses) in (9, int(np.argmin(losses)) + 3)


def fresh(units: int = 3) -> keras.Model:
    keras.utils.set_random_seed(5)
    hidden = layers.Dense(8, activation="relu")
    return keras.Sequential([keras.Input((4,)), hidden, layers.Dense(units, "softmax")])


X = np.random.default_rng(0).normal(size=(128, 4)).astype("float32")
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


@pytest.mark.long
def test_fresh_weights_keep_the_rate_that_suits_them_and_learn():
    teacher, student = fresh(), fresh()
    history = short(fit, teacher, (X, Y), epochs=20)
    assert history.learning_rate == 1e-3
    assert history.best_epoch == 20
    assert short(distill, student, teacher, (X, Y)).learning_rate == 3e-3


def test_finding_a_rate_leaves_no_trace():
    truth = np.array([[1.0], [2.0], [-1.0], [0.5]])
    data = X, X @ truth
    model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.1, seed=1), layers.Dense(1)])
    kernels, rate = [], None
    for _ in range(2):
        model.layers[-1].set_weights([truth * 0.8, np.zeros(1)])
        rate = short(fit, model, data, seed=4, learning_rate=rate).learning_rate
        kernels.append(model.get_weights()[0])
    np.testing.assert_allclose(*kernels, rtol=1e-5)


def test_a_student_whose_output_is_a_list_of_one_learns_without_labels() -> None:
    inputs = keras.Input((6,))
    outputs = layers.Dense(3, activation="softmax")(layers.Dense(8)(inputs))
    teacher = keras.Model(inputs, [outputs])
    student = copy_model(teacher)
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
    history = short(distill, student, teacher, (x,), epochs=1, alpha=0.0)
    assert np.isfinite(history.history["loss"]).all()
    # It is compiled for class numbers, not for the teacher's probabilities.
    assert evaluate(student, (x, np.arange(40) % 3)).name == "accuracy"


@pytest.mark.long
@pytest.mark.filterwarnings(STALE)
@pytest.mark.parametrize(
    "activation",
    ["softmax", *(pytest.param(other, marks=pytest.mark.slow) for other in ("sigmoid", None))],
)
def test_a_student_of_an_unsure_teacher_is_not_taken_for_untrained(activation) -> None:
    # The entropy of the teacher's predictions is nearly all of the loss.
    inputs = keras.Input((6,))
    hidden = layers.Dense(
        32, activation="relu", kernel_initializer=keras.initializers.GlorotNormal(1)
    )
    last = layers.Dense(
        3, activation=activation, kernel_initializer=keras.initializers.RandomNormal(0, 0.02, 1)
    )
    teacher = keras.Model(inputs, last(hidden(inputs)))
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    student = PruneChannels(0.7)(teacher, (x,))
    wanted, before = teacher.predict_on_batch(x), student.predict_on_batch(x)
    short(distill, student, teacher, (x,), epochs=2, alpha=0.0)
    after = student.predict_on_batch(x)
    assert np.square(after - wanted).mean() <= 1.05 * np.square(before - wanted).mean()


def test_padding_and_rows_of_no_weight_do_not_make_a_model_look_trained():
    generator = np.random.default_rng(0)
    x = np.where(np.arange(12) < 3, generator.integers(1, 9, (64, 12)), 0)
    tags = np.where(x > 0, 1 + x % 3, 0)
    table = np.zeros((9, 4))
    table[np.arange(9), np.where(np.arange(9) > 0, 1 + np.arange(9) % 3, 0)] = 9
    source = keras.Input((None,), dtype="int32")

    def tagger(logits):
        embedded = layers.Embedding(9, 4, mask_zero=True)
        model = keras.Model(source, layers.Activation("softmax")(embedded(source)))
        embedded.set_weights([logits])
        return model

    blank = np.zeros((9, 4))
    blank[0, 0] = 9
    assert not known(tagger(blank), (x, tags))
    assert known(tagger(table), (x, tags))

    rows = np.arange(64) < 32
    numbers = generator.normal(size=(64, 1))
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.ones((1, 1))])
    right_below = np.where(rows[:, None], numbers, generator.normal(size=(64, 1)))
    assert known(model, (numbers, right_below, rows.astype("float32")))
    assert not known(model, (numbers, right_below, 1.0 - rows))


def known(model, data):
    return beats_constant(model, prepare(model, data, None, None, 32))
