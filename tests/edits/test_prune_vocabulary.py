"""Tokens that a corpus does not use go; the logits of the others stay exactly as they are."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei import PruneVocabulary
from saikei.errors import EditError

VOCABULARY = 20
USED = np.array([0, 3, 4, 9, 17])
X = np.random.default_rng(0).choice(USED, (8, 6)).astype("int32")


def net(head: str, mask: bool = False) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype="int32")
    if head == "tied":
        table = L.ReversibleEmbedding(VOCABULARY, 8, name="tokens")
        return keras.Model(inputs, table(L.Dense(8, "relu")(table(inputs)), reverse=True))
    y = L.Dense(8, "relu")(L.Embedding(VOCABULARY, 8, name="tokens", mask_zero=mask)(inputs))
    if head == "none":
        return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(y)))
    y = L.Dense(VOCABULARY, bias_initializer="normal")(y)
    return keras.Model(inputs, L.Softmax()(y) if head == "softmax" else y)


@pytest.mark.parametrize("head", ["tied", "dense", "softmax", "none"])
def test_outputs_for_tokens_that_stay_are_the_same(head: str) -> None:
    model, edit = net(head), PruneVocabulary()
    smaller, tokens = edit(model, X), edit.tokens(model, X)
    np.testing.assert_array_equal(tokens, np.unique(X))
    before, after = (
        model.predict(X, verbose=0),
        smaller.predict(np.searchsorted(tokens, X), verbose=0),
    )
    if head != "none":
        before = before[..., tokens]
    if head == "softmax":
        before = before / before.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-7)
    table = smaller.get_layer("tokens")
    assert table.embeddings.shape[0] == table.input_dim == len(tokens)


def test_tokens_of_labels_and_those_to_keep_stay() -> None:
    y = np.full_like(X, 11)
    edit = PruneVocabulary(keep=(19,), least=2)
    assert {11, 19} <= set(edit.tokens(net("dense"), (X, y)))
    assert 11 not in edit.tokens(net("none"), (X, y[:, 0]))
    rare = X.copy()
    rare[0, 0] = 12
    assert 12 not in edit.tokens(net("none"), rare)
    np.testing.assert_array_equal(
        PruneVocabulary(keep=(5, 2)).tokens(net("dense", mask=True)), [0, 2, 5]
    )


def test_what_cannot_be_pruned_is_refused() -> None:
    model = net("dense")
    everything = np.arange(VOCABULARY - 2).reshape(3, 6)
    cases = [
        (PruneVocabulary(), None, "keeps no token"),
        (PruneVocabulary(keep=(18, 19)), everything, "change nothing"),
        (PruneVocabulary(keep=(20,)), None, "keeps token 20.*has 20 tokens"),
        (PruneVocabulary(layer="dense"), X, "is no embedding"),
        (PruneVocabulary(), X + 9, "tokens from 9 to 26"),
    ]
    for edit, data, message in cases:
        with pytest.raises(EditError, match=message):
            edit(model, data)
    with pytest.raises(EditError, match="keep"):
        PruneVocabulary(keep=(-1,))
