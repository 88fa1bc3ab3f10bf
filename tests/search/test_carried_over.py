"""A search never ships weights that training ruined, and does without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.errors import DataError
from saikei.report import report_of
from saikei.search import Result
from tests.search.small import LEAST, data, dense
from tests.training.nets import redundant_regressor


def run(model: Any, train: Any, validation: Any = None, **changes: Any) -> Result:
    settings: dict[str, Any] = {"effort": 3, "progress": False, "latency": False}
    return sk.optimize(model, train, validation, sk.Budget(macs=0.5), **{**settings, **changes})


@pytest.mark.slow
def test_the_untrained_cut_ships_where_training_made_it_worse(tmp_path: Path) -> None:
    model, train, validation = redundant_regressor()
    # Every rate ruins the weights.
    settings = {"learning_rate": 10.0}
    result = run(model, train, validation, settings=settings, out=tmp_path / "run")
    kept = [c for c in result.candidates if c.kind == "kept" and c.training and c.before]
    assert all(c.validation.value <= c.before.value for c in kept)
    unimproved = [d for d in result.run.decisions if d.choice == "as after the cut, untrained"]
    assert unimproved
    assert "as after the cut, untrained" in str(report_of(result.run))
    # Read again, it is the same.
    again = run(model, train, validation, settings=settings, out=tmp_path / "run")
    assert again.run == result.run


@pytest.mark.slow
def test_a_regression_is_never_worse_than_its_untrained_cut() -> None:
    model, train, validation = redundant_regressor()
    result = run(model, train, validation, effort=9)
    for candidate in result.candidates:
        if candidate.kind == "kept" and candidate.before is not None:
            assert candidate.validation.value <= candidate.before.value
    assert result.chosen.validation.value < 0.01


@pytest.mark.long
@pytest.mark.parametrize("validated", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_without_labels_the_original_is_what_counts_as_right(validated: bool) -> None:
    x, xv = data().train[0], data().validation[0]
    model = dense()
    result = run(model, x, xv if validated else None, test=data().test[0], **LEAST)
    assert result.baseline.validation.value == 1.0
    assert result.run.decisions[0].choice == "predictions of the original"
    agreed = result.best.predict(xv, verbose=0).argmax(1) == model.predict(xv, verbose=0).argmax(1)
    assert agreed.mean() > 0.5


@pytest.mark.slow
def test_labels_that_there_are_give_the_others_their_form() -> None:
    (x, _), (xv, yv) = data().train, data().validation
    result = run(dense(), (x, None), (xv, np.eye(10)[yv]))
    assert result.baseline.validation.n == len(xv)


def test_without_labels_several_models_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="no labels to find the best of 2 models by"):
        run([dense(0), dense(1)], data().train[0])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs TensorFlow")
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("filter", marks=pytest.mark.long),
        pytest.param("generator", marks=pytest.mark.slow),
        "endless",
    ],
)
def test_data_that_does_not_know_its_length_is_taken_and_data_without_end_refused(
    kind: str,
) -> None:
    tf = pytest.importorskip("tensorflow")
    x, y = data().train
    whole = tf.data.Dataset.from_tensor_slices((x, y))
    if kind == "endless":
        with pytest.raises(DataError, match=r"train data never ends: bound it.*take\(1000\)"):
            run(dense(), whole.batch(32).repeat(), data().validation)
        return
    spec = (tf.TensorSpec((None, 8, 8, 1)), tf.TensorSpec((None,), tf.int64))
    made = {
        "filter": lambda: whole.filter(lambda a, b: b < 9).batch(64),
        "generator": lambda: tf.data.Dataset.from_generator(
            lambda: iter([(x, y)]), output_signature=spec
        ),
    }[kind]()
    assert run(dense(), made, data().validation).chosen.fits
