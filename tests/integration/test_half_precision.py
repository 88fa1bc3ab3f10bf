"""Models in half precision go through everything, and stay in the precision that they had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.graph import read
from saikei.graph.internals import flattened_layers
from saikei.sparsity import meant_zeros
from saikei.tensors import to_floats
from saikei.testing import assert_cuts_exactly

L = keras.layers
POLICIES = ("bfloat16", "float16", "mixed_bfloat16", "mixed_float16")

generator = np.random.default_rng(0)
x = generator.normal(size=(80, 6, 6, 2)).astype("float32")
y = (x.mean(axis=(1, 2)) @ [[9.0, 0, -9], [0, 9, -9]]).argmax(axis=-1)
data = (x, y)


def network(policy: str, seed: int = 0, outer: str | None = None) -> keras.Model:
    """A residual network in a policy; the last layer may have another one."""
    keras.utils.set_random_seed(seed)
    given = keras.Input((6, 6, 2), name="given")
    h = L.Conv2D(8, 3, padding="same", name="first", dtype=policy)(given)
    h = L.BatchNormalization(name="norm", dtype=policy)(h)
    h = L.Activation("relu", name="relu", dtype=policy)(h)
    side = L.Conv2D(8, 3, padding="same", activation="relu", name="second", dtype=policy)(h)
    h = L.Add(name="sum", dtype=policy)([h, side])
    h = L.MaxPooling2D(name="pool", dtype=policy)(h)
    h = L.GlobalAveragePooling2D(name="mean", dtype=policy)(h)
    h = L.Dense(12, activation="relu", name="hidden", dtype=policy)(h)
    out = L.Dense(3, activation="softmax", name="out", dtype=outer or policy)(h)
    return keras.Model(given, out)


def outputs(model: keras.Model) -> np.ndarray:
    return to_floats(model(x[:16], training=False))


def policies(model: keras.Model) -> dict[str, str]:
    return {layer.name: layer.dtype_policy.name for layer in model.layers}


class Scaled(L.Layer):
    """A `call` with a single number in its own precision, a 0-d bfloat16 tensor on TensorFlow."""

    def call(self, given: Any) -> Any:
        scale = keras.ops.cast(keras.ops.sqrt(float(given.shape[-1])), given.dtype)
        return given * keras.ops.convert_to_tensor(0.5, given.dtype) / scale


@pytest.mark.backends
@pytest.mark.parametrize("policy", POLICIES)
def test_cuts_are_exact_to_the_precision_of_the_model(policy: str) -> None:
    check = assert_cuts_exactly(network(policy), share=0.4)
    assert check.cut > 5 and check.spread > 0.01 and check.loaded
    assert read(network(policy)).rounding() == (2**-8 if "b" in policy else 2**-11)


@pytest.mark.backends
def test_single_numbers_in_a_call_are_read() -> None:
    given = keras.Input((6,))
    h = Scaled(dtype="bfloat16")(L.Dense(6, dtype="bfloat16", name="inner")(given))
    model = keras.Model(given, L.Dense(2, dtype="bfloat16")(h))
    assert sk.profile(model, latency=False).macs == 48
    smaller = sk.DropChannels({"inner": (0,)})(model)
    assert smaller.get_layer("inner").units == 5
    assert {layer.compute_dtype for layer in smaller.layers if layer.weights} == {"bfloat16"}


EDITS = [
    sk.PruneChannels(0.5),
    sk.RemoveLayers(0.4),
    sk.Factorize(0.6),
    sk.Sparsify(0.5),
    sk.ReplaceActivation("relu", "prelu"),
    sk.ReplaceKernel("any", 1, layers=("second",)),
    sk.ReplacePooling("any", "average", layers=("pool",)),
    sk.FoldBatchNorm(),
]


@pytest.mark.sampled
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: type(edit).__name__)
def test_edits_leave_the_policies_and_fit_as_well_as_they_can(edit: Any, tmp_path: Path) -> None:
    model = network("bfloat16", outer="float32")
    errors = []
    for given in (None, data):
        edited = edit(model, given)
        assert (
            policies(edited).items()
            >= {
                name: policy for name, policy in policies(model).items() if name in policies(edited)
            }.items()
        )
        assert {w.dtype for w in edited.weights} <= {"bfloat16", "float32"}
        edited.save(tmp_path / "edited.keras")
        loaded = keras.saving.load_model(tmp_path / "edited.keras")
        np.testing.assert_array_equal(outputs(loaded), outputs(edited))
        errors.append(np.abs(outputs(edited) - outputs(model)).mean())
    assert errors[1] <= errors[0] + 2**-9
    if edit.exact:
        assert errors[0] < 2**-7


@pytest.mark.parametrize("importance", ["bn_scale", "reconstruction", "apoz", "taylor"])
def test_every_way_to_weigh_channels_works(importance: str) -> None:
    smaller = sk.PruneChannels(0.5, importance=importance)(network("bfloat16"), data)
    assert smaller.count_params() < network("bfloat16").count_params()


@pytest.mark.parametrize("policy", ["bfloat16", "float16"])
def test_a_fit_in_half_precision_is_no_worse_than_none(policy: str) -> None:
    for seed in range(3):
        model = network(policy, seed)
        edit = sk.PruneChannels(0.5, importance="magnitude")
        plain, fitted = (
            np.abs(outputs(edit(model, d)) - outputs(model)).mean() for d in (None, data)
        )
        assert fitted <= plain


def test_zeros_that_half_precision_draws_by_chance_are_not_meant() -> None:
    for seed in range(5):
        for shape in ((3, 3, 2, 8), (16, 12), (128, 64)):
            drawn = keras.random.uniform(shape, -1, 1, dtype="bfloat16", seed=seed)
            assert meant_zeros(np.asarray(keras.ops.convert_to_numpy(drawn))) is None
    sparse = sk.Sparsify(0.5)(network("bfloat16"))
    kernel = keras.ops.convert_to_numpy(sparse.get_layer("hidden").kernel)
    assert meant_zeros(kernel) is not None and meant_zeros(kernel).mean() == 0.5


@pytest.mark.parametrize("policy", ["bfloat16"])
def test_members_in_half_precision_are_scored_fused_and_explained(policy: str) -> None:
    members = [network(policy, seed) for seed in (1, 2)]
    score = sk.evaluate(members[0], data)
    predicted = to_floats(members[0].predict_on_batch(x))
    assert score.value == pytest.approx((predicted.argmax(-1) == y).mean())
    mean = np.mean([outputs(member) for member in members], axis=0)
    np.testing.assert_allclose(outputs(sk.Average()(members)), mean, atol=2**-8)
    for fusion in (sk.Average("learn", calibrate=True), sk.Stack(), sk.Soup(check=False)):
        fused = fusion(members, data)
        assert np.isfinite(outputs(fused)).all()
    explained = sk.explain(members, data)
    assert np.isfinite([member.shapley for member in explained.members]).all()


@pytest.mark.long
@pytest.mark.parametrize("policy", [pytest.param("bfloat16", marks=pytest.mark.long), "float16"])
def test_training_in_half_precision_stays_finite_and_keeps_zeros(policy: str) -> None:
    teacher = network(policy)
    history = sk.fit(teacher, data, data, epochs=3, learning_rate=1e-2, progress=False)
    assert np.isfinite(history.history["loss"]).all()
    student = sk.Sparsify(0.5)(network(policy, seed=1))
    sk.distill(student, teacher, data, data, epochs=1, learning_rate=1e-3, progress=False)
    kernel = keras.ops.convert_to_numpy(student.get_layer("hidden").kernel)
    assert (kernel == 0).mean() >= 0.5
    assert policies(student) == policies(teacher)
    assert all(np.isfinite(to_floats(weight.value)).all() for weight in student.weights)


@pytest.mark.slow
def test_a_run_in_bfloat16_ends_and_is_taken_up_again(tmp_path: Path) -> None:
    model = network("bfloat16")
    settings = {"effort": 3, "latency": False, "progress": False, "out": tmp_path / "run"}
    budget = sk.Budget(macs=0.5)
    result = sk.optimize(model, data, (x[:40], y[:40]), budget, **settings)
    again = sk.optimize(model, data, (x[:40], y[:40]), budget, **settings)
    assert again.chosen.name == result.chosen.name
    kinds = {w.dtype for layer in flattened_layers(result.best) for w in layer.weights}
    assert "bfloat16" in kinds


def test_data_in_bfloat16_counts_as_numbers() -> None:
    rough = keras.ops.convert_to_numpy(keras.ops.cast(x, "bfloat16"))
    model = network("bfloat16")
    smaller = sk.PruneChannels(0.5)(model, (rough, y))
    assert sk.evaluate(smaller, (keras.ops.cast(x, "bfloat16"), y)).n == len(x)
