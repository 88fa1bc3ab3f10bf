"""What the loss does not count is not counted: against Keras's numbers, and plain ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.errors import DataError
from saikei.scoring.inference import infer_task
from saikei.scoring.labelled import Labelled
from saikei.scoring.observed import observe
from saikei.scoring.predictions import predict_all

layers = keras.layers
N, T, C = 21, 5, 4
RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(1, T + 1, N)
X = np.where(np.arange(T) < LENGTHS[:, None], RNG.integers(1, 9, (N, T)), 0)
TAGS = RNG.integers(0, C, (N, T))
POSITIVE = RNG.integers(0, 2, N)
REAL = X > 0
ROW_WEIGHTS = RNG.integers(0, 3, N).astype("float32")
POSITION_WEIGHTS = RNG.integers(0, 3, (N, T)).astype("float32")


@pytest.fixture(scope="module")
def tagger() -> keras.Model:
    """Gives a class of each token, under a mask."""
    return make_tagger(0)


def make_tagger(seed: int, masks: bool = True, link: str = "softmax") -> keras.Model:
    keras.utils.set_random_seed(seed)
    x = keras.Input((None,), dtype="int32", name="x")
    hidden = layers.Embedding(9, 6, mask_zero=masks)(x)
    return keras.Model(x, layers.Dense(C, activation=link, name="tags")(hidden))


@pytest.mark.sampled
@pytest.mark.parametrize("weights", [None, ROW_WEIGHTS, POSITION_WEIGHTS], ids=["", "row", "place"])
@pytest.mark.parametrize("ignored", [None, 2])
def test_masks_ignored_classes_and_weights_count_as_in_keras(
    tagger: keras.Model, weights: Any, ignored: int | None
) -> None:
    """The loss as of one batch; the accuracy with a rest in the last batch."""
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=ignored)
    tagger.compile(loss=loss, weighted_metrics=["accuracy"])
    given = () if weights is None else (weights,)
    score = sk.evaluate(tagger, (X, TAGS, *given), batch_size=8)
    # Keras takes weights of rows of sequences with an axis of size 1.
    laid = None if weights is None else weights.reshape(N, -1)
    one = tagger.evaluate(X, TAGS, sample_weight=laid, batch_size=N, verbose=0, return_dict=True)
    assert score.loss == pytest.approx(one["loss"], rel=1e-5)
    known = REAL if ignored is None else REAL & (ignored != TAGS)
    counts = known * (1.0 if laid is None else laid)
    hits = tagger.predict_on_batch(X).argmax(-1) == TAGS
    assert score.value == pytest.approx((hits * counts).sum() / counts.sum())
    assert score.n == (counts.sum(axis=1) > 0).sum()
    assert score.low < score.value < score.high
    if ignored is None:
        rest = tagger.evaluate(
            X, TAGS, sample_weight=laid, batch_size=8, verbose=0, return_dict=True
        )
        assert score.value == pytest.approx(rest["accuracy"], rel=1e-5)


@pytest.mark.parametrize("weights", [None, ROW_WEIGHTS])
def test_two_outputs_count_as_in_keras(weights: Any) -> None:
    x = keras.Input((None,), dtype="int32")
    hidden = layers.Embedding(9, 6, mask_zero=True)(x)
    tags = layers.Dense(C, name="tags")(hidden)
    rows = layers.GlobalAveragePooling1D()(hidden)
    model = keras.Model(x, {"tags": tags, "row": layers.Dense(1, "sigmoid", name="row")(rows)})
    losses = {
        "tags": keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=1),
        "row": keras.losses.BinaryCrossentropy(),
    }
    model.compile(loss=losses)
    y = {"tags": TAGS, "row": POSITIVE}
    given = () if weights is None else (weights,)
    laid = {"tags": weights[:, None], "row": weights} if given else None
    expected = model.evaluate(X, y, sample_weight=laid, batch_size=N, verbose=0, return_dict=True)
    assert sk.evaluate(model, (X, y, *given)).value == pytest.approx(expected["loss"], rel=1e-5)


def test_a_given_loss_or_that_of_the_original_decides_what_is_ignored(
    tagger: keras.Model,
) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
    known = RNG.random((N, T)) < 0.7
    data = X, np.where(known, TAGS, 255)
    plain = make_tagger(3)
    with pytest.raises(DataError, match="compile.*ignore_class=255"):
        sk.evaluate(plain, data)
    score = sk.evaluate(plain, data, loss=loss)
    hits = plain.predict_on_batch(X).argmax(-1) == TAGS
    assert score.value == pytest.approx(hits[known & REAL].mean())
    plain.compile(loss=loss)
    edited = sk.PruneChannels(0.5)(plain)
    assert edited.loss is plain.loss
    fused = sk.Average()([plain, edited])
    history = sk.distill(
        edited, plain, data, data, epochs=1, learning_rate=3e-3, progress=False
    ).history
    assert history["val_accuracy"][-1] == pytest.approx(sk.evaluate(edited, data).value)
    hits = fused.predict_on_batch(X).argmax(-1) == TAGS
    assert sk.evaluate(fused, data).value == pytest.approx(hits[known & REAL].mean())
    assert sk.choose([sk.Average("learn")], [plain, make_tagger(4)], data).rivals


def test_unknown_numbers_are_refused_or_left_out_where_the_loss_does() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3, activation="sigmoid")])
    x = RNG.normal(size=(20, 6)).astype("float32")
    y = RNG.integers(0, 2, (20, 3)).astype("float32")
    known = RNG.random(y.shape) < 0.6
    data = x, np.where(known, y, np.nan)
    for run in (
        lambda: sk.evaluate(model, data),
        lambda: sk.fit(model, data, epochs=1, learning_rate=1e-3, progress=False),
        lambda: sk.Average("learn")([model, model], data),
    ):
        with pytest.raises(DataError, match=r"labels .* hold NaN .* first in row"):
            run()

    def partial(truth: Any, predicted: Any) -> Any:
        there = keras.ops.logical_not(keras.ops.isnan(truth))
        filled = keras.ops.where(there, truth, 0.0)
        each = keras.ops.square(filled - predicted)
        return keras.ops.where(there, each, 0.0)

    model.compile(loss=partial)
    score = sk.evaluate(model, data)
    hits = (model.predict_on_batch(x) > 0.5) == (y > 0.5)
    assert score.value == pytest.approx(hits[known].mean())
    filled = np.where(known, y, 0)
    assert sk.evaluate(model, (x[known.all(1)], filled[known.all(1)])).n == known.all(1).sum()


def test_a_row_of_weight_2_is_two_rows_and_one_of_weight_0_is_none(tagger: keras.Model) -> None:
    tagger.compile(loss="sparse_categorical_crossentropy")
    twice = np.repeat(np.arange(N), ROW_WEIGHTS.astype(int))
    weighted = sk.evaluate(tagger, (X, TAGS, ROW_WEIGHTS))
    repeated = sk.evaluate(tagger, (X[twice], TAGS[twice]))
    assert weighted.value == pytest.approx(repeated.value)
    kept = ROW_WEIGHTS > 0
    alone = sk.evaluate(tagger, (X[kept], TAGS[kept], ROW_WEIGHTS[kept]))
    assert (weighted.low, weighted.high, weighted.n) == pytest.approx(
        (alone.low, alone.high, alone.n)
    )


def test_weights_that_are_no_weights_are_named(tagger: keras.Model) -> None:
    for weights, why in (
        (-ROW_WEIGHTS, "negative"),
        (np.zeros(N), "Nothing of"),
        (np.ones((N, T + 1)), "cannot be laid over labels"),
    ):
        with pytest.raises(DataError, match=why):
            sk.evaluate(tagger, (X, TAGS, weights))


def test_a_dataset_counts_like_its_arrays(tagger: keras.Model) -> None:
    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            rows = slice(index * 7, index * 7 + 7)
            return X[rows], TAGS[rows], POSITION_WEIGHTS[rows]

    arrays = sk.evaluate(tagger, (X, TAGS, POSITION_WEIGHTS))
    batches = sk.evaluate(tagger, Batches())
    for name in ("value", "low", "high", "n", "loss"):
        assert getattr(batches, name) == pytest.approx(getattr(arrays, name), rel=1e-6)


class Subclassed(keras.Model):
    """With a `call` of its own, whose mask is known only when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = layers.Embedding(9, 6, mask_zero=True)
        self.head = layers.Dense(C, activation="softmax")

    def call(self, x: Any) -> Any:
        return self.head(self.embedding(x))


def test_masks_of_nested_loaded_and_subclassed_models_are_found(tmp_path: Any) -> None:
    tagger = make_tagger(1)
    x = keras.Input((None,), dtype="int32")
    nested = keras.Model(x, tagger(x))
    nested.save(tmp_path / "nested.keras")
    subclassed = Subclassed()
    subclassed(X)
    loaded = keras.saving.load_model(tmp_path / "nested.keras")
    for model in (nested, loaded, subclassed):
        np.testing.assert_array_equal(predict_all(model, (X, TAGS)).masks[0], REAL)
    (none,) = predict_all(make_tagger(1, masks=False), (X, TAGS)).masks
    assert none is None


def test_fit_counts_weights_of_rows_and_positions_in_training_and_validation() -> None:
    for weights in (ROW_WEIGHTS, POSITION_WEIGHTS):
        model = make_tagger(2)
        data = X, TAGS, weights
        history = sk.fit(
            model, data, data, epochs=1, learning_rate=1e-3, batch_size=N, progress=False
        ).history
        score = sk.evaluate(model, data)
        assert history["val_accuracy"][-1] == pytest.approx(score.value, rel=1e-5)
        assert history["val_loss"][-1] == pytest.approx(score.loss, rel=1e-4)


@pytest.mark.parametrize("space", ["logit", None])
def test_an_average_of_calibrated_members_or_of_logits_keeps_the_mask(space: Any) -> None:
    members = [make_tagger(1), make_tagger(2)]
    fusion = sk.Average(space=space, calibrate=space is None)
    with_masks = fusion(members, (X, TAGS))
    twins = [make_tagger(seed, masks=False) for seed in (1, 2)]
    assert with_masks(X)._keras_mask is not None
    combined = fusion.fit_head(sk.fusion.evidence.gather(members, (X, TAGS)))
    outputs = [(twin.predict_on_batch(X),) for twin in twins]
    (expected,) = combined.predict(sk.fusion.evidence.MemberOutputs(tuple(outputs)))
    np.testing.assert_allclose(with_masks.predict_on_batch(X), expected, rtol=1e-4, atol=1e-6)


TABLE = ((0.2, 0.8, 0.0), (0.5, 0.2, 0.3), (0.0, 1.0, 0.0), (0.3, 0.3, 0.4))


@pytest.mark.parametrize(
    ("link", "members", "fusion"),
    [
        ("softmax", 2, sk.Average(how="median")),
        ("softmax", 3, sk.Average(TABLE)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("softmax", 3, sk.Average(how="median")),
                ("sigmoid", 2, sk.Average(how="median")),
                ("sigmoid", 3, sk.Average(how="median")),
                ("linear", 2, sk.Average(how="median")),
                ("linear", 3, sk.Average(how="median")),
                ("softmax", 6, sk.Average(how="median", space="logit")),
                ("sigmoid", 3, sk.Average(how="median", space="logit")),
            )
        ),
    ],
)
def test_a_median_and_weights_for_each_class_keep_the_mask(
    link: str, members: int, fusion: sk.Average, tmp_path: Path
) -> None:
    fused = fusion([make_tagger(seed, link=link) for seed in range(members)])
    # By operations, without layers that keep masks.
    twin = fusion([make_tagger(seed, False, link) for seed in range(members)])
    fused.save(tmp_path / "fused.keras")
    for model in (fused, keras.saving.load_model(tmp_path / "fused.keras")):
        np.testing.assert_array_equal(model(X)._keras_mask, REAL)
        wanted = twin.predict_on_batch(X)
        given = model.predict_on_batch(X)
        np.testing.assert_allclose(given[REAL], wanted[REAL], rtol=1e-4, atol=1e-6)


def test_differences_are_paired_over_what_counts(tagger: keras.Model) -> None:
    task = infer_task(tagger, TAGS)
    labels = observe(tagger, (X, TAGS))[0].labels[0]
    first, second = (RNG.random((N, T, C)) for _ in range(2))
    found = Labelled((task,), (labels,)).difference([first], [second])
    hits = [(p.argmax(-1) == TAGS)[REAL].mean() for p in (first, second)]
    assert found.value == pytest.approx(hits[0] - hits[1])
    assert found.low < found.value < found.high


def test_distillation_weighs_labels_and_teacher_alike() -> None:
    """Half of the rows with weight 2, and half with 0, is those of weight 2 alone."""
    half = np.arange(N - 1) % 2 == 0
    rows, weights = slice(N - 1), 2.0 * half
    teacher, found = make_tagger(5), []
    for data in ((X[rows], TAGS[rows], weights), (X[rows][half], TAGS[rows][half])):
        # Without a mask: its mean is over all that is masked in, of whatever weight.
        student = make_tagger(6, masks=False)
        sk.distill(
            student, teacher, data, epochs=1, learning_rate=3e-3, batch_size=N, progress=False
        )
        found.append(student.get_weights())
    for weighted, alone in zip(*found, strict=True):
        np.testing.assert_allclose(weighted, alone, atol=1e-5)


def test_distillation_leaves_padding_to_itself() -> None:
    """The teacher's predictions of padding have no effect."""
    found = []
    for bias in (0.0, 3.0):
        teacher, student = make_tagger(5), make_tagger(6)
        embedding = teacher.layers[1].get_weights()[0]
        embedding[0] = bias
        teacher.layers[1].set_weights([embedding])
        sk.distill(
            student, teacher, (X, TAGS), epochs=1, learning_rate=3e-3, batch_size=N, progress=False
        )
        found.append(student.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_gradients_of_importance_leave_out_what_the_loss_ignores() -> None:
    x = RNG.normal(size=(16, 5)).astype("float32")
    y, void = RNG.integers(0, 3, 16), np.arange(16) % 8 > 5
    stack = [keras.Input((5,)), layers.Dense(6, "relu"), layers.Dense(3, "softmax")]
    model = keras.Sequential(stack)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=-1))
    cut = sk.PruneChannels(0.5, importance="taylor", compensate=False)
    kept, other = (
        cut(model, (np.where(void[:, None], scale, 1) * x, np.where(void, -1, y)))
        for scale in (1.0, -3.0)
    )
    for one, two in zip(kept.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
