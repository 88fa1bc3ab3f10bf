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
from saikei.hub import (  # noqa: E402
    as_family,
    as_generator,
    task_data,
    without_preprocessor,
)
from saikei.modelfile import load_model  # noqa: E402
from saikei.search.library import build_library  # noqa: E402
from saikei.search.propose import propose  # noqa: E402
from tests.hub.small_tasks import M, byte_vocabulary  # noqa: E402

TEXTS = ["the thin man", "in the house", "a man is in the house", "the the the"] * 4


def tiny() -> Any:
    keras.utils.set_random_seed(0)
    vocabulary, merges = byte_vocabulary()
    sizes = {"num_layers": 2, "num_heads": 4, "hidden_dim": 16, "intermediate_dim": 16}
    task = M.GPT2CausalLM(
        backbone=M.GPT2Backbone(vocabulary_size=len(vocabulary), max_sequence_length=16, **sizes),
        preprocessor=M.GPT2CausalLMPreprocessor(
            M.GPT2Tokenizer(vocabulary=vocabulary, merges=merges), sequence_length=8
        ),
    )
    task.compile(sampler="greedy")
    return task


def test_uniform_structures_are_of_the_class() -> None:
    task = tiny()
    model, data = without_preprocessor(task), task_data(task, TEXTS)
    library = build_library(model, data, data, [sk.PruneChannels])
    budget = sk.Budget(params=0.95)
    structures = propose(model, library, budget, shares=(1.0,)).structures
    recipes = [one.recipe for one in structures if one.family == "uniform"]
    assert recipes
    for recipe in recipes:
        assert recipe is not None
        assert type(as_family(recipe(model), task)) is type(task)


def test_the_result_generates_and_its_file_is_alike(tmp_path: Path) -> None:
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
    best = result.best
    text = as_generator(best, task).generate("the thin", max_length=12)
    assert text.startswith("the thin")
    assert type(load_model(folder / "best.keras")) is type(best)
    assert type(search().best) is type(best)
