"""Models that read text do what others do, with data of any kind of strings."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L

import saikei as sk
from saikei.cli import main
from saikei.errors import DataError, ModelError
from saikei.npz import load_npz

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras reads text on TensorFlow only"
)

_WORDS = ["red", "green", "blue", "fox", "dog"]
_RNG = np.random.default_rng(0)
X = np.array([[" ".join(_RNG.choice(_WORDS, 3))] for _ in range(96)])
Y = np.array([int("fox" in text) for (text,) in X])
TRAIN, HELD = (X[:64], Y[:64]), (X[64:], Y[64:])


def reader(seed: int = 0, units: int = 6) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layer = L.TextVectorization(output_sequence_length=4, name="words")
    layer.adapt(X)
    source = keras.Input((1,), dtype="string", name="text")
    tensor = L.GlobalAveragePooling1D()(L.Embedding(9, 8, name="table")(layer(source)))
    tensor = L.Dense(units, activation="relu", name="hidden")(tensor)
    return keras.Model(source, L.Dense(2, activation="softmax", name="classes")(tensor))


@pytest.mark.parametrize("kind", ["bytes", "objects", "variable"])
def test_strings_of_every_kind_are_trained_on_and_scored(kind: str) -> None:
    change = {
        "bytes": np.char.encode,
        "objects": lambda x: x.astype(object),
        "variable": lambda x: x.astype(np.dtypes.StringDType()),
    }[kind]
    model = reader()
    sk.fit(model, (change(TRAIN[0]), TRAIN[1]), epochs=1, learning_rate=1e-3, progress=False)
    wanted = sk.evaluate(model, HELD)
    assert sk.evaluate(model, (change(HELD[0]), HELD[1])).loss == wanted.loss


@pytest.mark.parametrize("importance", ["reconstruction", "taylor"])
def test_edits_with_data_see_what_the_texts_contain(importance: str) -> None:
    model = reader()
    smaller = sk.PruneChannels(0.5, importance=importance)(model, TRAIN)
    assert smaller.get_layer("hidden").units < 6
    assert sk.profile(smaller, latency=False).memory > 0
    # Measured with words, not with zeros.
    assert sk.profile(smaller, batch_size=2).latency > 0


@pytest.mark.long
def test_members_that_read_text_are_taught_fused_and_explained() -> None:
    members = [reader(0), reader(1)]
    sk.distill(
        reader(2, units=3), members[0], TRAIN, HELD, epochs=1, learning_rate=3e-3, progress=False
    )
    fused = sk.Average("learn")(members, HELD)
    score = sk.evaluate(fused, HELD)
    assert score.loss <= min(sk.evaluate(member, HELD).loss for member in members) + 1e-6
    assert len(sk.explain(members, HELD, fusion=sk.Average()).members) == 2


@pytest.mark.slow
def test_the_search_runs_on_texts(tmp_path: Path) -> None:
    result = sk.optimize(
        reader(), TRAIN, HELD, sk.Budget(params=0.9), effort=3, out=tmp_path / "run"
    )
    assert result.best.count_params() <= 0.9 * reader().count_params()


@pytest.mark.long
def test_the_command_line_takes_texts_from_an_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(2):
        reader(seed).save(tmp_path / f"m{seed}.keras")
    np.savez(tmp_path / "data.npz", x_train=X, y_train=Y, x_val=X, y_val=Y)
    first, second, data = (str(tmp_path / name) for name in ("m0.keras", "m1.keras", "data.npz"))
    for number, command in enumerate(
        (
            ["profile", first],
            ["edit", first, "--keep", "0.5", "--data", data],
            ["fuse", first, second, "--weights", "learn", "--data", data],
            ["explain", first, second, "--data", data],
        )
    ):
        out = ["--out", str(tmp_path / f"out{number}.keras")]
        assert main(command + (out if command[0] in ("edit", "fuse") else [])) == 0
    edited = keras.saving.load_model(tmp_path / "out1.keras")
    assert sk.evaluate(edited, HELD).n == 32


def test_data_that_is_no_text_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = reader()
    model.save(tmp_path / "m.keras")
    files = {"numbers": np.ones((96, 1)), "objects": X.astype(object)}
    for name, x in files.items():
        np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=Y)
        command = ["edit", "m.keras", "--keep", "0.5", "--data", f"{name}.npz", "--out", "e.keras"]
        paths = [str(tmp_path / one) if "." in one and one[0] != "0" else one for one in command]
        assert main(paths) == 2
    message = capsys.readouterr().err
    assert "calibration data is of type float64: give an array of strings" in message
    assert "texts as np.array(x, str)" in message
    assert not (tmp_path / "e.keras").exists()
    gaps = X.astype(object)
    gaps[3, 0] = None
    with pytest.raises(DataError, match="NoneType in row 3, and the model takes text: fill it"):
        sk.fit(model, (gaps, Y), progress=False)
    with pytest.raises(DataError, match="unpickled"):
        load_npz(tmp_path / "objects.npz")


def test_another_backend_is_refused_with_one_that_reads_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = reader()
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(DataError, match="is text, which Keras reads on TensorFlow only, and the"):
        sk.evaluate(model, HELD)
    with pytest.raises(ModelError, match="cannot run on jax: set KERAS_BACKEND=tensorflow"):
        sk.profile(model)
