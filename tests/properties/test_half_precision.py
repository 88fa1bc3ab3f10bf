"""Cuts and folds over random graphs in half precision, which keep their dtype policy."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import pytest

from saikei.edits import FoldBatchNorm
from saikei.graph import copy_model, read
from saikei.testing import assert_cuts_exactly, random_inputs, randomise_statistics
from saikei.testing.oracle import run
from tests.properties.random_graphs import STEPS, make_model

POLICIES = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]
# TensorFlow has no QR decomposition in bfloat16, with which Keras initialises these.
ORTHOGONAL = ("recurrent", "recurrent_cells", "masked")


@pytest.fixture(autouse=True)
def _usual_policy() -> Iterator[None]:
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "policy",
    [pytest.param(p, marks=[] if p.startswith("mixed") else pytest.mark.long) for p in POLICIES],
)
def test_cuts_and_folds_are_right_and_stay_in_their_policy(policy: str, seed: int) -> None:
    steps = [step for step in STEPS if policy != "bfloat16" or step not in ORTHOGONAL]
    chosen = np.random.default_rng([seed, POLICIES.index(policy)]).choice(steps, 4)
    model = make_model(["nested", *map(str, chosen), "normalised"], seed, policy=policy)
    randomise_statistics(model, seed)
    assert_cuts_exactly(model, 0.4, seed)
    batch = random_inputs(model, np.random.default_rng(seed))
    folded = FoldBatchNorm()(model)
    assert folded.count_params() < model.count_params()
    allowed = 32 * read(model).rounding()
    for ours, theirs in zip(run(folded, batch), run(model, batch), strict=True):
        assert np.abs(ours - theirs).max() <= allowed * np.abs(theirs).max()
    for one in (folded, copy_model(model)):
        assert {layer.dtype_policy.name for layer in one.layers} <= {policy}
