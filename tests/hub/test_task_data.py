"""Tasks of KerasHub are scored, trained and distilled on strings or on tokens."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.distilling import StoredTeacher
from saikei.errors import DataError

# Warnings of KerasHub's own imports.
pytestmark = pytest.mark.filterwarnings("ignore")
pytest.importorskip("keras_hub", reason="needs the extra 'kerashub'")
from tests.hub.small_tasks import bert, gpt2, made  # noqa: E402

TEXTS = ["the thin man", "in the house", "a man is in the house", "the the the"] * 4


@pytest.fixture(scope="module")
def task() -> Any:
    return made("gpt2")


def test_strings_and_their_tokens_score_the_same(task: Any) -> None:
    by_strings = sk.evaluate(task, TEXTS)
    by_tokens = sk.evaluate(task, task.preprocessor(TEXTS))
    assert by_strings == by_tokens and by_strings.n == len(TEXTS)
    # Of each sequence, what is padding does not count.
    x, y, weights = (
        np.asarray(part) if not isinstance(part, dict) else part
        for part in task.preprocessor(TEXTS)
    )
    logits = np.asarray(task(x, training=False), dtype=np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nats = -np.take_along_axis(log_p, y[..., None], -1)[..., 0]
    per_token = (nats * weights).sum() / weights.sum()
    score = sk.evaluate(task, TEXTS, metric="nats")
    assert score.value == score.loss == pytest.approx(per_token, rel=1e-4)
    assert score.low < score.value < score.high and score.n == len(TEXTS)
    perplexity = sk.evaluate(task, TEXTS, metric="perplexity", batch_size=3)
    assert perplexity.value == pytest.approx(np.exp(per_token), rel=1e-4)
    assert not perplexity.greater_is_better


def test_a_task_is_fitted_and_distilled_on_strings(task: Any) -> None:
    student = sk.PruneChannels(0.5, scope="uniform")(task)
    before = sk.evaluate(student, TEXTS).loss
    history = sk.fit(student, TEXTS, TEXTS, epochs=3, batch_size=8, progress=False)
    assert sk.evaluate(student, TEXTS).loss < before
    assert history.best_epoch == 3
    sk.distill(student, task, TEXTS, epochs=1, batch_size=8, progress=False, learning_rate=1e-4)
    assert student.generate("the thin", max_length=12).startswith("the thin")


@pytest.mark.slow
def test_a_language_model_is_explained_by_texts(task: Any) -> None:
    explained = sk.explain(task, TEXTS, original=task)
    assert explained.rows == len(TEXTS) and explained.criterion == "taylor"
    assert any(group.curve for group in explained.groups)
    # The heads of its attention are no positions of an image.
    looks = explained.attention
    assert not looks.features and not looks.samples and not looks.agreement


def test_a_classifier_of_texts_takes_strings_and_labels() -> None:
    classifier = bert()
    labels = np.arange(len(TEXTS)) % 3
    sk.fit(classifier, (TEXTS, labels), epochs=1, progress=False, learning_rate=1e-3)
    assert sk.evaluate(classifier, (TEXTS, labels)).n == len(TEXTS)
    with pytest.raises(DataError, match="no labels"):
        sk.evaluate(classifier, TEXTS)


def test_edits_take_strings_as_data(task: Any) -> None:
    small = sk.RemoveLayers(1, kinds=("block",), ranking="influence")(task, TEXTS)
    assert type(small) is type(task) and small.backbone.num_layers == 3


def test_a_tokenizer_or_a_length_that_does_not_fit_is_refused() -> None:
    task = gpt2()
    task.preprocessor.sequence_length = 99
    with pytest.raises(DataError, match="sequences of 99 tokens, and its backbone has.* 16"):
        sk.evaluate(task, TEXTS)
    task = gpt2()
    task.backbone.vocabulary_size = 7
    with pytest.raises(DataError, match="260 tokens, and the embedding of its backbone 7"):
        sk.evaluate(task, TEXTS)


def test_tokens_that_do_not_fit_are_refused() -> None:
    task = gpt2()
    task.preprocessor = None
    tokens = np.zeros((2, 99), "int32")
    with pytest.raises(DataError, match="sequences of 99 tokens, and the backbone.* 16"):
        sk.evaluate(task, ({"token_ids": tokens, "padding_mask": tokens + 1}, tokens))
    tokens = tokens[:, :8] + 999
    with pytest.raises(DataError, match="token 999, and the embedding of GPT2CausalLM has 260"):
        sk.evaluate(task, ({"token_ids": tokens, "padding_mask": tokens}, tokens))


def test_tokens_alone_are_the_labels_of_those_before_them(task: Any) -> None:
    named, *others = task.preprocessor(TEXTS)
    x, y, weights = (np.asarray(part) for part in (named["token_ids"], *others))
    whole = np.concatenate([x, y[:, -1:]], axis=1)
    padding = np.concatenate([np.ones_like(weights[:, :1]), weights], axis=1)
    expected = sk.evaluate(task, TEXTS, metric="nats")
    given = {"token_ids": whole, "padding_mask": padding.astype("int32")}
    assert sk.evaluate(task, given, metric="nats") == expected
    unpadded = sk.evaluate(task, whole, metric="nats")
    assert unpadded.value != expected.value and unpadded.n == len(TEXTS)


@pytest.mark.parametrize("kind", ["strings", "tokens"])
def test_datasets_are_read_batch_by_batch(kind: str) -> None:
    keras.utils.set_random_seed(0)
    task = gpt2(num_layers=1)
    texts = Batches(TEXTS if kind == "strings" else task.preprocessor(TEXTS))
    expected = sk.evaluate(task, TEXTS, metric="nats")
    assert sk.evaluate(task, texts, metric="nats") == expected
    assert texts.most_at_once == 4
    student = sk.PruneChannels(0.5, scope="uniform")(task)
    before = sk.evaluate(student, TEXTS).loss
    stored = StoredTeacher.of(task, texts, top_k=8)
    sk.distill(student, stored, texts, epochs=1, progress=False, learning_rate=1e-2)
    assert sk.evaluate(student, TEXTS).loss < before
    assert texts.most_at_once == 4


class Batches(keras.utils.PyDataset):
    """Batches of four samples, which counts how many were asked for together."""

    def __init__(self, data: Any) -> None:
        super().__init__()
        self._data, self.most_at_once = data, 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        rows = slice(4 * index, 4 * index + 4)
        if isinstance(self._data, list):
            found: Any = np.array(self._data[rows])
            self.most_at_once = max(self.most_at_once, len(found))
            return (found,)
        self.most_at_once = 4
        return keras.tree.map_structure(lambda leaf: np.asarray(leaf)[rows], self._data)
