"""A language model that its family's class cannot express generates with a cache."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.errors import ModelError, ModelWarning
from saikei.graph import build, read

# Warnings of KerasHub's own imports.
pytestmark = pytest.mark.filterwarnings("ignore")
pytest.importorskip("keras_hub", reason="needs the extra 'kerashub'")
from saikei.hub import as_generator, as_task  # noqa: E402
from tests.hub.small_tasks import made  # noqa: E402

NAMES = ("gpt2", "llama", pytest.param("gemma", marks=pytest.mark.slow))


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_with_blocks_of_different_widths_generates_what_it_predicts(name: str) -> None:
    task = made(name)
    task.compile(sampler="greedy")
    with pytest.warns(ModelWarning, match="as_generator"):
        small = sk.PruneChannels(0.6, seed=1, importance="random")(task)
    generator = as_generator(small, task)
    assert generator.sampler is task.sampler and generator.preprocessor is task.preprocessor
    generator.preprocessor = None
    tokens = np.random.default_rng(0).integers(1, 40, (2, 8)).astype("int32")
    mask = (np.arange(8) < np.array([[3], [5]])).astype("int32")
    given = {"token_ids": tokens * mask, "padding_mask": mask}
    found = np.asarray(generator.generate(dict(given), stop_token_ids=None)["token_ids"])
    # The same, token by token, from whole sequences.
    expected = tokens * mask
    for position in range(3, 8):
        inputs = {"token_ids": expected, "padding_mask": np.ones_like(mask)}
        logits = keras.ops.convert_to_numpy(small(inputs, training=False))
        fresh = ~mask[:, position].astype(bool)
        expected[fresh, position] = logits[fresh, position - 1].argmax(axis=-1)
    np.testing.assert_array_equal(found, expected)


def test_only_causal_language_models_generate() -> None:
    task = made("llama")
    tokens = keras.Input((None,), name="token_ids", dtype="int32")
    x = keras.layers.Embedding(40, 4)(tokens)
    mixed = keras.layers.Dense(40)(x - keras.ops.mean(x, axis=1, keepdims=True))
    model = keras.Model({"token_ids": tokens}, mixed)
    with pytest.raises(ModelError, match="depend on later tokens"):
        as_generator(model, task)
    with pytest.raises(ModelError, match="not a causal language model"):
        as_generator(model, model)
    assert as_generator(task, made("llama")) is task


def test_what_was_cut_is_of_the_class_or_generates_or_is_plain() -> None:
    task = made("gpt2")
    task.compile(sampler="greedy", optimizer=keras.optimizers.Adam(1e-3))
    plain = sk.Recipe([sk.PruneChannels(0.5, scope="uniform")]).apply(read(task))
    found = as_task(build(plain), [task])
    assert found is not None and found.of_family and type(found.model) is type(task)
    assert found.kind == "GPT2CausalLM" and "hidden_dim=8" in found.reason
    assert found.model.sampler is task.sampler
    assert float(found.model.optimizer.learning_rate) == pytest.approx(1e-3)
    uneven = build(sk.PruneChannels(0.6, seed=1, importance="random").apply(read(task)))
    found = as_task(uneven, [task])
    assert found is not None and not found.of_family and found.kind == "CutCausalLM"
    assert "as_generator" in found.reason and "different values" in found.reason
    texts = ["the thin man", "in the house"] * 4
    generator = found.model
    assert isinstance(generator.generate("the thin", max_length=10), str)
    # It is scored and trained on strings, as the task is.
    before = sk.evaluate(generator, texts, metric="nats").value
    assert before == sk.evaluate(uneven, task.preprocessor(texts), metric="nats").value
    sk.fit(generator, texts, epochs=1, progress=False, learning_rate=1e-2)
    assert sk.evaluate(generator, texts, metric="nats").value < before
    assert as_task(uneven, [uneven]) is None
    classifier = made("bert")
    narrow = build(sk.PruneChannels(0.6, seed=1, importance="random").apply(read(classifier)))
    found = as_task(narrow, [classifier])
    assert found is not None and found.model is narrow and found.kind == "plain Keras model"
