"""A task without a tokenizer stays its class when its vocabulary is pruned."""

from __future__ import annotations

import numpy as np
import pytest

from saikei import PruneVocabulary
from saikei.errors import EditError

# Warnings of KerasHub's own imports.
pytestmark = pytest.mark.filterwarnings("ignore")
pytest.importorskip("keras_hub", reason="needs the extra 'kerashub'")
from tests.hub.small_tasks import made  # noqa: E402


def test_a_language_model_stays_one_with_fewer_tokens() -> None:
    task = made("llama")
    tokens = np.array([0, 2, 3, 30])
    x = {
        "token_ids": np.random.default_rng(0).choice(tokens, (2, 8)).astype("int32"),
        "padding_mask": np.ones((2, 8), "int32"),
    }
    edit = PruneVocabulary(keep=tuple(int(token) for token in tokens))
    smaller = edit(task)
    assert type(smaller) is type(task)
    assert smaller.backbone.get_config()["vocabulary_size"] == 4
    renumbered = {**x, "token_ids": np.searchsorted(tokens, x["token_ids"])}
    np.testing.assert_allclose(
        smaller.predict(renumbered, verbose=0),
        task.predict(x, verbose=0)[..., tokens],
        rtol=1e-4,
        atol=1e-6,
    )


def test_a_task_with_a_tokenizer_is_refused() -> None:
    with pytest.raises(EditError, match="preprocessor=None"):
        PruneVocabulary(keep=(0, 1))(made("gpt2"))
