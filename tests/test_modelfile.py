"""Model files come back as they went, and whatever else a file may hold is refused in a line."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from saikei.errors import InputError, ModelError, ModelWarning, WorkError
from saikei.modelfile import load_model, save_model

PROBE = np.random.default_rng(0).random((5, 4)).astype("float32")


@pytest.fixture
def model() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="net")


@pytest.fixture
def saved(model, tmp_path) -> Path:
    return save_model(model, tmp_path / "net.keras")


def answers(model: keras.Model) -> np.ndarray:
    return model.predict_on_batch(PROBE)


def repacked(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of a zip archive with members changed, or left out where `change` gives `None`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- round trip ---


def test_a_saved_model_comes_back_with_its_function_and_name(model, saved):
    loaded = load_model(saved)
    assert loaded.name == "net"
    np.testing.assert_array_equal(answers(loaded), answers(model))


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_compiled_model_comes_back_with_its_loss_and_without_warnings(model, tmp_path, epochs):
    model.compile("adam", "mse")
    model.fit(PROBE, np.zeros((5, 3)), epochs=epochs, verbose=0)
    loaded = load_model(save_model(model, tmp_path / "net.keras"))
    assert loaded.loss == "mse"


def test_paths_may_be_text(model, tmp_path):
    path = save_model(model, str(tmp_path / "net.keras"))
    assert path == tmp_path / "net.keras"
    assert isinstance(load_model(str(path)), keras.Model)


# --- what is refused when loading ---


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"no file '.*nowhere\.keras'"):
        load_model(tmp_path / "nowhere.keras")


def test_a_folder_is_no_model_file(tmp_path):
    (tmp_path / "net.keras").mkdir()
    with pytest.raises(ModelError, match="a folder without config.json"):
        load_model(tmp_path / "net.keras")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n"])
def test_a_file_that_is_no_zip_archive_is_no_model_file(tmp_path, content):
    (tmp_path / "net.keras").write_bytes(content)
    with pytest.raises(ModelError, match=r"is no \.keras file"):
        load_model(tmp_path / "net.keras")


def test_half_a_file_is_no_model_file(saved, tmp_path):
    content = saved.read_bytes()
    (tmp_path / "half.keras").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"is no \.keras file"):
        load_model(tmp_path / "half.keras")


def test_a_model_file_has_to_be_called_one(saved, tmp_path):
    other = saved.rename(tmp_path / "net.h5")
    with pytest.raises(ModelError, match=r"is no \.keras file"):
        load_model(other)


@pytest.mark.parametrize(
    "change",
    [
        lambda name, content: None if name == "config.json" else content,
        lambda name, content: b"{" if name == "config.json" else content,
        lambda name, content: b"{}" if name == "config.json" else content,
        lambda name, content: None if "weights" in name else content,
        lambda name, content: content[:300] if "weights" in name else content,
    ],
    ids=["no config", "broken config", "empty config", "no weights", "cut-off weights"],
)
def test_an_archive_that_is_no_whole_model_is_refused(saved, tmp_path, change):
    path = repacked(saved, tmp_path / "part.keras", change)
    with pytest.raises(ModelError, match=r"part\.keras' cannot be loaded"):
        load_model(path)


def test_weights_of_another_model_are_refused(saved, tmp_path):
    wider = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)], name="net")
    other = save_model(wider, tmp_path / "wider.keras")
    with zipfile.ZipFile(other) as archive:
        foreign = archive.read("model.weights.h5")
    mixed = repacked(
        saved,
        tmp_path / "mixed.keras",
        lambda name, content: foreign if "weights" in name else content,
    )
    with pytest.raises(ModelError, match=r"mixed\.keras' cannot be loaded"):
        load_model(mixed)


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_a_model_that_was_never_built_is_refused_with_the_fix(tmp_path):
    keras.Sequential([keras.layers.Dense(3)]).save(tmp_path / "net.keras")
    with pytest.raises(ModelError, match=r"not built.*model\.build"):
        load_model(tmp_path / "net.keras")


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_a_single_layer_is_no_model(tmp_path):
    keras.saving.save_model(keras.layers.Dense(3), tmp_path / "layer.keras")
    with pytest.raises(ModelError, match="holds a Dense"):
        load_model(tmp_path / "layer.keras")


def test_python_code_in_a_file_is_refused_and_not_run(tmp_path):
    trace = tmp_path / "trace"

    # Only a lambda is stored as code, and it finds nothing but builtins when it is loaded.
    code = keras.layers.Lambda(
        lambda x, path=str(trace): (__import__("pathlib").Path(path).touch(), x)[1]
    )
    keras.Sequential([keras.Input((4,)), code]).save(tmp_path / "net.keras")
    # It ran once when the model was made, and may not when it is loaded.
    trace.unlink()
    with pytest.raises(ModelError, match="Python code.*never run"):
        load_model(tmp_path / "net.keras")
    assert not trace.exists()


def test_a_function_of_another_module_is_refused(saved, tmp_path):
    def with_system_call(name: str, content: bytes) -> bytes:
        if name != "config.json":
            return content
        config = json.loads(content)
        config["config"]["layers"][-1]["config"]["activation"] = {
            "module": "os",
            "class_name": "function",
            "config": "system",
            "registered_name": "function",
        }
        return json.dumps(config).encode()

    path = repacked(saved, tmp_path / "system.keras", with_system_call)
    with pytest.raises(ModelError, match="no function 'system'"):
        load_model(path)


class Doubled(keras.layers.Layer):
    """A layer that a loading process knows nothing of."""

    def call(self, inputs):
        return 2 * inputs


def wobbled(x):
    """A function that a loading process knows nothing of."""
    return keras.ops.sin(x)


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (lambda: Doubled(), {"Doubled": Doubled}),
        (lambda: keras.layers.Dense(3, activation=wobbled), {"wobbled": wobbled}),
        (lambda: keras.layers.Lambda(wobbled), {"wobbled": wobbled}),
    ],
)
def test_what_keras_does_not_know_is_named_and_loads_as_the_message_advises(layer, names, tmp_path):
    path = tmp_path / "net.keras"
    model = keras.Sequential([keras.Input((4,)), layer()])
    model.save(path)
    with pytest.raises(ModelError, match=f"no (class|function) '{next(iter(names))}'") as refused:
        load_model(path)
    assert "\n" not in str(refused.value)
    known = keras.saving.get_custom_objects()
    before = dict(known)
    fix = re.search(r"(keras.saving.get_custom_objects\(\)\[.*?\] = \w+)", str(refused.value))[1]
    try:
        exec(fix, {"keras": keras, **names})
        np.testing.assert_array_equal(answers(load_model(path)), answers(model))
    finally:
        known.clear()
        known.update(before)


# --- what is refused when saving ---


def test_a_file_is_replaced_only_on_demand(model, saved):
    before = saved.read_bytes()
    with pytest.raises(InputError, match="exists.*overwrite"):
        save_model(model, saved)
    assert saved.read_bytes() == before

    model.layers[0].kernel.assign(np.ones((4, 3)))
    save_model(model, saved, overwrite=True)
    np.testing.assert_array_equal(answers(load_model(saved)), answers(model))


def test_a_disk_that_does_not_take_the_model_keeps_the_old_one(model, saved, monkeypatch):
    before = saved.read_bytes()

    def full(path: Path) -> None:
        Path(path).write_bytes(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save", full)
    with pytest.raises(WorkError, match="No space left"):
        save_model(model, saved, overwrite=True)
    assert saved.read_bytes() == before
    assert files(saved.parent) == ["net.keras"]


def test_a_loss_that_is_not_known_here_does_not_keep_a_model_from_being_read(model, tmp_path):
    def own(y, outputs):
        return keras.ops.mean(keras.ops.square(y - outputs))

    model.compile("adam", own)
    model.save(tmp_path / "own.keras")
    with pytest.warns(ModelWarning, match="without the loss .* Keras has no function 'own'"):
        loaded = load_model(tmp_path / "own.keras")
    assert not loaded.compiled
    x = np.ones((2, *model.input_shape[1:]))
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
