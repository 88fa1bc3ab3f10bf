"""A search over a task of KerasHub, with strings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest

import saikei as sk

# Warnings of KerasHub's own imports.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
pytest.importorskip("keras_hub", reason="needs the extra 'kerashub'")
from saikei.hub import as_family, as_generator  # noqa: E402
from saikei.modelfile import load_model  # noqa: E402
from tests.hub.small_tasks import M, byte_vocabulary  # noqa: E402

TEXTS = ["the thin man", "in the house", "a man is in the house", "the the the"] * 4


def tiny() -> Any:
    keras.utils.set_random_seed(0)
    vocabulary, merges = byte_vocabulary()
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8}
    task = M.GPT2CausalLM(
        backbone=M.GPT2Backbone(vocabulary_size=len(vocabulary), max_sequence_length=16, **sizes),
        preprocessor=M.GPT2CausalLMPreprocessor(
            M.GPT2Tokenizer(vocabulary=vocabulary, merges=merges), sequence_length=8
        ),
    )
    task.compile(sampler="greedy")
    return task


def test_the_result_generates_and_uniform_candidates_are_of_the_class(tmp_path: Path) -> None:
    task, folder = tiny(), tmp_path / "run"

    def search() -> Any:
        return sk.optimize(
            task,
            TEXTS,
            TEXTS[:8],
            sk.Budget(params=0.6),
            out=folder,
            effort=3,
            methods=["prune"],
            settings={"learning_rate": 1e-3, "batch_size": 8},
            metric="nats",
            latency=False,
            rivals=False,
            progress=False,
        )

    result = search()
    uniform = [one.name for one in result.candidates if one.family == "uniform"]
    models = [load_model(folder / "candidates" / name / "model.keras") for name in uniform]
    assert models and all(type(as_family(model, task)) is type(task) for model in models)
    best = result.best
    text = as_generator(best, task).generate("the thin", max_length=12)
    assert text.startswith("the thin")
    assert type(load_model(folder / "best.keras")) is type(best)
    assert type(search().best) is type(best)
