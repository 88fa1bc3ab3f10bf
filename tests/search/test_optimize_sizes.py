"""Models that take inputs of any size: their costs are those at the size of the data."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import saikei as sk
from saikei.errors import BudgetError
from saikei.report import render_text


def two_lengths() -> keras.Model:
    keras.utils.set_random_seed(0)
    sound, words = keras.Input((None, 4), name="sound"), keras.Input((None,), name="words")
    x = L.GlobalMaxPooling1D()(L.Conv1D(8, 3, activation="relu")(sound))
    x = L.Concatenate()([x, L.GlobalAveragePooling1D()(L.Embedding(9, 4)(words))])
    return keras.Model([sound, words], L.Dense(2, activation="softmax")(x))


def search(**changes: Any) -> sk.Result:
    generator = np.random.default_rng(0)
    x = [generator.normal(size=(32, 12, 4)), generator.integers(0, 9, (32, 5))]
    options: dict[str, Any] = {"budget": sk.Budget(macs=0.5), "effort": 3, "rivals": False}
    data = (x, generator.integers(0, 2, 32))
    return sk.optimize(two_lengths(), data, progress=False, **{**options, **changes})


@pytest.mark.long
def test_the_size_of_the_data_is_what_costs_are_of() -> None:
    result = search(latency=False, methods=["prune", "factorize", "average"])
    shape = {"sound": (12, 4), "words": (5,)}
    run = result.run
    assert dict(run.settings.sizes) == shape
    whole = run.candidate(run.baseline).cost
    at_size = sk.profile(two_lengths(), latency=False, input_shape=shape)
    assert (whole.macs, whole.memory) == (at_size.macs, at_size.memory)
    best = sk.profile(result.best, latency=False, input_shape=shape)
    assert best.macs == result.chosen.cost.macs <= 0.5 * whole.macs
    assert all(candidate.cost.latency is None for candidate in run.candidates)
    assert type(run).from_json(run.to_json()) == run
    assert "for inputs of 12×4 (sound), 5 (words)" in " ".join(render_text(run, 400).split())
    assert "12×4 (sound), 5 (words)" in (result.folder / "report.html").read_text("utf-8")


def test_a_budget_on_a_latency_that_is_left_out_is_refused() -> None:
    with pytest.raises(BudgetError, match="not measured with latency=False"):
        search(budget=sk.Budget(latency=0.5), latency=False)
