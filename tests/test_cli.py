"""The command line as a user meets it: what it prints, writes and exits with."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import saikei
from saikei.cli import main
from saikei.cli.options import budget, number
from saikei.datasets import digits
from saikei.errors import InputError
from saikei.exporting import Exported
from saikei.search import measurements, optimize
from saikei.training import fit


def small_network(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L.Conv2D(8, 3, activation="relu", name="conv"),
            L.Flatten(),
            L.Dense(16, activation="relu", name="hidden"),
            L.Dense(10, activation="softmax", name="classes"),
        ]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained models and data, as a user would have them."""
    path = tmp_path_factory.mktemp("cli")
    splits = digits()
    assert splits.validation is not None
    assert splits.test is not None
    for seed in (0, 1):
        model = small_network(seed)
        fit(model, splits.train, epochs=3, batch_size=16, learning_rate=1e-3, progress=False)
        model.save(path / f"m{seed}.keras")
    parts: dict[str, Any] = {}
    for name, part in zip(("train", "val", "test"), vars(splits).values(), strict=True):
        parts[f"x_{name}"], parts[f"y_{name}"] = part
    np.savez(path / "data.npz", **parts)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    parsed: dict[str, Any] = json.loads(out)
    return parsed


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a wrong input gets."""
    code, _, err = run(capsys, *arguments)
    lines = [line for line in err.splitlines() if line.startswith("saikei: ")]
    assert code == 2
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


def test_profile_shows_layers_costs_and_pins(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "profile", folder / "m0.keras")
    assert code == 0, err
    assert "conv" in out
    assert "a model output" in out
    assert "MACs per sample" in out


def test_profile_json_is_one_object(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run_json(capsys, "profile", folder / "m0.keras", "--no-latency")
    assert shown["params"] == small_network(0).count_params()
    assert shown["latency"] is None
    assert {g["name"] for g in shown["channel_groups"]} == {"conv", "hidden", "classes"}


@pytest.fixture(scope="module")
def any_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes images of any size, and data of one."""
    path = tmp_path_factory.mktemp("any_size")
    image = keras.Input((None, None, 1), name="image")
    x = L.GlobalAveragePooling2D()(L.Conv2D(8, 3, activation="relu", name="conv")(image))
    keras.Model(image, L.Dense(2, activation="softmax", name="out")(x)).save(path / "m.keras")
    x_train, y_train = np.ones((16, 9, 7, 1), "float32"), np.arange(16) % 2
    np.savez(path / "data.npz", x_train=x_train, y_train=y_train)
    return path


def test_profile_takes_and_shows_a_size(any_size: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run_json(capsys, "profile", any_size / "m.keras", "--input-shape", "9,7,1")
    assert shown["macs"] == 7 * 5 * 9 * 8 + 16
    assert shown["sizes"] == {"image": [9, 7, 1]} and shown["assumed"] == []
    assert shown["latency"] > 0
    named = ("profile", any_size / "m.keras", "--no-latency", "--input-shape", "image=9,7,1")
    assert run_json(capsys, *named)["macs"] == shown["macs"]
    code, out, _ = run(capsys, "profile", any_size / "m.keras")
    assert code == 0
    assert "the size of 'image' is unknown and assumed to be 128×128×1" in out
    for shape, reason in (("9,7", "does not fit 'image'"), ("9xa", "is no shape")):
        line = refused(capsys, "profile", any_size / "m.keras", "--input-shape", shape)
        assert reason in line


def test_edit_counts_at_the_size_of_the_data_or_one_that_is_typed(
    any_size: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("edit", any_size / "m.keras", "--macs", "0.5", "--out", tmp_path / "s.keras")
    by_data = run_json(capsys, *command, "--data", any_size / "data.npz")
    assert by_data["sizes"] == {"image": [9, 7, 1]}
    assert by_data["after"]["macs"] <= 0.5 * by_data["before"]["macs"]
    typed = run_json(capsys, *command, "--overwrite", "--input-shape", "9,7,1")
    assert typed["before"] == by_data["before"] and typed["after"] == by_data["after"]
    assumed = run_json(capsys, *command, "--overwrite")
    assert assumed["assumed"] == ["image"]


def test_edit_prunes_to_a_share(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.keras"
    shown = run_json(
        capsys, "edit", folder / "m0.keras", "--keep", "0.5", "--scope", "layer", "--out", out
    )
    assert keras.saving.load_model(out).get_layer("conv").filters == 4
    assert shown["after"]["params"] < shown["before"]["params"]


def test_edit_takes_inputs_alone_and_asks_for_labels_where_they_count(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "x.npz", x_train=np.load(folder / "data.npz")["x_train"])
    out = tmp_path / "small.keras"
    command = ("edit", folder / "m0.keras", "--keep", "0.5", "--data", tmp_path / "x.npz")
    assert run_json(capsys, *command, "--out", out)["after"]
    other = (*command, "--importance", "taylor", "--out", tmp_path / "other.keras")
    assert "need labels" in refused(capsys, *other)
    assert not (tmp_path / "other.keras").exists()


def test_edit_replays_the_recipe_that_it_prints(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, recipe = tmp_path / "a.keras", tmp_path / "b.keras", tmp_path / "recipe.json"
    shown = run_json(capsys, "edit", folder / "m0.keras", "--macs", "0.5", "--out", first)
    recipe.write_text(json.dumps(shown["recipe"]), encoding="utf-8")
    run_json(capsys, "edit", folder / "m0.keras", "--recipe", recipe, "--out", second)
    weights = [keras.saving.load_model(path).get_weights() for path in (first, second)]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_edit_applies_steps_typed_as_in_python(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run_json(
        capsys,
        *("edit", folder / "m0.keras", "--out", tmp_path / "small.keras"),
        *("--step", "DropChannels({'conv': [0, 1]})"),
        *("--step", "sk.PruneChannels(Budget(macs=0.5), scope='layer')"),
    )
    assert [entry["edit"] for entry in shown["recipe"]["edits"]] == [
        "DropChannels",
        "PruneChannels",
    ]
    assert shown["after"]["macs"] <= 0.5 * shown["before"]["macs"]


def test_fuse_learns_weights_on_held_out_data(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run_json(
        capsys,
        *("fuse", folder / "m0.keras", folder / "m1.keras", "--out", tmp_path / "fused.keras"),
        *("--weights", "learn", "--data", folder / "data.npz"),
    )
    assert shown["fusion"]["name"] == "Average"
    assert sum(shown["fitted"]["values"]) == pytest.approx(1)
    assert shown["fitted"]["gap"] <= 1e-4
    assert shown["test"]["n"] == 359


def test_members_with_their_classes_in_another_order_are_refused_with_a_fix(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = keras.saving.load_model(folder / "m0.keras")
    turned = keras.ops.take(model.outputs[0], [1, 2, 0, *range(3, 10)], axis=-1)
    keras.Model(model.inputs[0], turned, name="turned").save(tmp_path / "turned.keras")
    line = refused(
        capsys,
        *("fuse", folder / "m1.keras", tmp_path / "turned.keras"),
        *("--data", folder / "data.npz", "--out", tmp_path / "fused.keras"),
    )
    assert "Member 2 ('turned') gives its classes in another order" in line
    assert "keras.ops.take(model.outputs[0], [2, 0, 1, 3, 4, 5, 6, 7, 8, 9], axis=-1)" in line
    assert not (tmp_path / "fused.keras").exists()


@pytest.mark.parametrize(
    "arguments", [("fuse", "--weights", "learn", "--out", "{out}"), ("explain",)]
)
def test_data_of_another_shape_than_the_members_take_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    with np.load(folder / "data.npz") as held:
        x, y = held["x_val"], held["y_val"]
    np.savez(tmp_path / "flat.npz", x_val=x.reshape(len(x), -1), y_val=y)
    command, *options = (one.format(out=tmp_path / "fused.keras") for one in arguments)
    members = folder / "m0.keras", folder / "m1.keras"
    line = refused(capsys, command, *members, *options, "--data", tmp_path / "flat.npz")
    assert f"has shape ({len(x)}, 64), but model 'members' takes (n, 8, 8, 1)" in line
    assert not (tmp_path / "fused.keras").exists()


@pytest.mark.sampled
@pytest.mark.parametrize(
    "fusion",
    [
        "Average('greedy', bags=2)",
        "Average('learn', space='logit', calibrate=True)",
        "BestMember()",
        "Boost(rounds=2, epochs=1)",
        "Cascade(cost=1.5, certainty=None)",
        "Chain(training='later')",
        "Stack(meta='logistic')",
    ],
)
def test_fuse_makes_any_fusion_that_is_typed_as_in_python(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fusion: str
) -> None:
    shown = run_json(
        capsys,
        *("fuse", folder / "m0.keras", folder / "m1.keras", "--out", tmp_path / "fused.keras"),
        *("--with", fusion, "--data", folder / "data.npz"),
    )
    assert shown["fusion"]["name"] == fusion.partition("(")[0]
    assert (shown["fitted"] is None) == fusion.startswith("Chain")
    assert shown["test"]["n"] == 359
    loaded = keras.saving.load_model(tmp_path / "fused.keras")
    assert loaded.count_params() == shown["params"]


def test_members_with_different_inputs_are_fused_from_named_arrays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    parts: dict[str, Any] = {}
    for part in ("val", "test"):
        arrays = {"left": generator.normal(size=(40, 3)), "right": generator.normal(size=(40, 2))}
        parts |= {f"x_{part}.{name}": array for name, array in arrays.items()}
        parts[f"y_{part}"] = (arrays["left"][:, 0] + arrays["right"][:, 0] > 0).astype(int)
        for name, array in arrays.items():
            x = keras.Input(array.shape[1:], name=name)
            member = keras.Model(x, L.Dense(1, activation="sigmoid")(x))
            member.save(tmp_path / f"{name}.keras")
    np.savez(tmp_path / "data.npz", **parts)
    arguments = ("fuse", tmp_path / "left.keras", tmp_path / "right.keras")
    arguments += ("--with", "Multimodal(fallback='drop')", "--data", tmp_path / "data.npz")
    shown = run_json(capsys, *arguments, "--out", tmp_path / "fused.keras")
    assert set(shown["fitted"]["without"]) == {"left", "right"}
    assert shown["test"]["n"] == 40
    code, out, _ = run(capsys, *arguments, "--out", tmp_path / "again.keras")
    assert code == 0
    assert "accuracy without 'left'" in out


def test_merge_makes_one_file_of_several_without_data(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = keras.saving.load_model(folder / "m0.keras")
    tuned = keras.saving.load_model(folder / "m0.keras")
    tuned.set_weights([weight + 0.01 for weight in model.get_weights()])
    tuned.save(tmp_path / "tuned.keras")
    files = ("merge", folder / "m0.keras", tmp_path / "tuned.keras")
    shown = run_json(
        capsys, *files, "--out", tmp_path / "soup.keras", "--with", "Linear(weights=(0.25, 0.75))"
    )
    assert shown["correlation"] > 0.9
    merged = keras.saving.load_model(tmp_path / "soup.keras").get_weights()
    for weight, before in zip(merged, model.get_weights(), strict=True):
        np.testing.assert_allclose(weight, before + 0.0075, atol=1e-6)
    strangers = ("merge", folder / "m0.keras", folder / "m1.keras", "--out", tmp_path / "no.keras")
    line = refused(capsys, *strangers)
    assert "another seed" in line and "with --no-check." in line
    assert "needs the file of a base" in refused(capsys, *strangers, "--with", "ties")
    assert not (tmp_path / "no.keras").exists()


@pytest.mark.parametrize(
    ("fusion", "shown"),
    [
        (
            "Average('learn', space='logit', calibrate=True)",
            r"Average, weights \d\.\d{3}, \d\.\d{3}, temperatures \d+\.\d{3}, \d+\.\d{3};",
        ),
        ("Average(how='median', calibrate=True)", r"Average, temperatures \d+\.\d{3}, \d+\.\d{3};"),
        ("Average('learn', per_class=True)", r"weights for each class, loss \S+ \(shared: \S+\);"),
    ],
)
def test_fuse_prints_the_temperatures_and_weights_that_it_fitted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fusion: str, shown: str
) -> None:
    code, printed, _ = run(
        capsys,
        *("fuse", folder / "m0.keras", folder / "m1.keras", "--out", tmp_path / "fused.keras"),
        *("--with", fusion, "--data", folder / "data.npz"),
    )
    assert code == 0
    assert re.search(shown, printed.replace("\n", " "))


def test_explain_prints_the_same_for_a_fused_file_and_its_members(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members, fused = (folder / "m0.keras", folder / "m1.keras"), tmp_path / "fused.keras"
    given = ("--weights", "0.3,0.7")
    assert run(capsys, "fuse", *members, "--out", fused, *given)[0] == 0
    data = ("--data", folder / "data.npz")
    whole = run_json(capsys, "explain", fused, *data)
    parts = run_json(capsys, "explain", *members, *data, *given)
    assert whole["on"] == "test"
    assert whole["fused"]["n"] == 359
    gains = [[member["shapley"] for member in shown["members"]] for shown in (whole, parts)]
    assert gains[0] == pytest.approx(gains[1], abs=1e-6)
    assert sum(gains[0]) == pytest.approx(whole["without_members"] - whole["with_all"])
    code, printed, _ = run(capsys, "explain", fused, *data, "--on", "validation")
    assert code == 0
    assert "On validation, 360 rows." in printed
    assert "recall of each class".capitalize() in printed


def test_explain_refuses_what_it_cannot_explain(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, data = folder / "m0.keras", ("--data", folder / "data.npz")
    assert "it is for one model" in refused(capsys, "explain", one, one, *data, "--original", one)
    assert "two or more" in refused(capsys, "explain", one, *data, "--weights", "learn")
    stored = np.load(folder / "data.npz")
    np.savez(tmp_path / "d.npz", x_train=stored["x_train"], y_train=stored["y_train"])
    line = refused(capsys, "explain", one, one, "--data", tmp_path / "d.npz")
    assert "holds no 'x_val'" in line


def test_a_shell_gets_the_commands_that_complete_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_SAIKEI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "saikei ex")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert main([]) == 0
    assert capsys.readouterr().out.split() == ["explain", "export"]


# A search of a few seconds, as the command line and as Python take it.
LEAST = ("--effort", "3", "--methods", "prune", "--no-latency", "--no-rivals")
SAME: dict[str, Any] = {"effort": 3, "methods": ["prune"], "latency": False, "rivals": False}


def test_optimize_writes_a_model_a_record_and_a_report(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ("optimize", folder / "m0.keras", "--data", folder / "data.npz", "--macs", "0.5")
    arguments += (*LEAST, "--out", tmp_path / "run")
    shown = run_json(capsys, *arguments)
    assert Path(shown["report"]).read_text(encoding="utf-8").startswith("<!")
    looks = ("report", tmp_path / "run", "--data", folder / "data.npz")
    assert "Report:" in run(capsys, *looks)[1]
    page = Path(shown["report"]).read_text(encoding="utf-8")
    for section in ("What the models look at", "Sensitivity of each layer"):
        assert section in page
    best = keras.saving.load_model(shown["best"])
    assert best.count_params() < small_network(0).count_params()
    assert refused(capsys, *arguments[:-1], tmp_path / "run", "--seed", "1").endswith(
        "or repeat the call that started it."
    )
    (tmp_path / "run" / "report.html").unlink()
    code, out, _ = run(capsys, "report", tmp_path / "run")
    assert code == 0
    assert "Pareto table" in out
    assert (tmp_path / "run" / "report.html").is_file()
    page = tmp_path / "page.html"
    page.write_text("mine")
    assert "exists" in refused(capsys, "report", tmp_path / "run", "--out", page)
    assert page.read_text() == "mine"
    run_json(capsys, "report", tmp_path / "run", "--out", page, "--overwrite")
    assert page.read_text().startswith("<!doctype")
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    run_json(capsys, "report", tmp_path / "run", tmp_path / "again", "--out", page, "--overwrite")
    assert "Settings that differ" in page.read_text()
    run_json(capsys, "report", tmp_path / "run", "--out", tmp_path / "front.svg")
    assert (tmp_path / "front.svg").read_text().startswith("<svg")
    assert "twice" in refused(capsys, "report", tmp_path / "run", tmp_path / "run")
    stored = json.loads((tmp_path / "again" / "details.json").read_text(encoding="utf-8"))
    points = stored["fronts"]["original"]["points"]["macs"]
    assert all(
        0 < one["costs"]["macs"] <= stored["fronts"]["original"]["original"]["macs"]
        for one in points
    )
    (tmp_path / "again" / "details.json").write_text("{}", encoding="utf-8")
    assert "delete this file alone" in refused(capsys, "report", tmp_path / "again")
    (tmp_path / "again" / "details.json").unlink()
    monkeypatch.setattr(measurements, "export_model", exported)
    run_json(capsys, "report", tmp_path / "again", "--files", "--out", page, "--overwrite")
    for words in ("original, LiteRT (float32)", "1.5 ms", "2 bytes"):
        assert words in page.read_text(encoding="utf-8")


def exported(model: keras.Model, path: Path, to: str) -> Exported:
    path.write_bytes(b"12")
    return Exported(path, to, 0.0, "made-up", 1.5)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="from JAX, Keras needs jax2onnx")
@pytest.mark.filterwarnings("ignore:[\\s\\S]*might cause the trace to be incorrect")
def test_an_onnx_file_predicts_what_the_model_predicts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    out = tmp_path / "net.onnx"
    run_json(capsys, "export", folder / "m0.keras", "--format", "onnx", "--out", out)
    with np.load(folder / "data.npz") as held:
        x = held["x_test"][:5]
    session = runtime.InferenceSession(out)
    (outputs,) = session.run(None, {session.get_inputs()[0].name: x})
    model = keras.saving.load_model(folder / "m0.keras")
    np.testing.assert_allclose(outputs, model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize(("to", "name"), [("litert", "m.tflite"), ("saved_model", "saved")])
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras exports these with TF")
def test_export_writes_what_the_runtime_reads(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str, name: str
) -> None:
    out = tmp_path / name
    run_json(capsys, "export", folder / "m0.keras", "--format", to, "--out", out)
    assert out.exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.long
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras exports these with TF")
def test_a_cascade_in_a_file_is_profiled_and_exported_with_its_branch(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    member = keras.saving.load_model(folder / "m0.keras")
    saikei.Cascade(thresholds=(0.5,))([member, member]).save(tmp_path / "cascade.keras")
    shown = run_json(capsys, "profile", tmp_path / "cascade.keras", "--no-latency")
    assert shown["macs"] == 2 * saikei.profile(member, latency=False).macs
    out = tmp_path / "saved"
    arguments = ("--format", "saved_model", "--out", out)
    run_json(capsys, "export", tmp_path / "cascade.keras", *arguments)
    assert b"If" in (out / "saved_model.pb").read_bytes()
    run_json(capsys, "export", folder / "m0.keras", *arguments, "--overwrite")
    assert b"If" not in (out / "saved_model.pb").read_bytes()


def test_what_exists_is_not_replaced_unasked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.keras"
    out.write_bytes(b"mine")
    arguments = ("edit", folder / "m0.keras", "--keep", "0.5", "--out", out)
    assert "exists" in refused(capsys, *arguments)
    assert out.read_bytes() == b"mine"
    assert run(capsys, *arguments, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("profile", "{none}"), "There is no file"),
        (("profile", "{data}"), "no .keras file"),
        (("profile", "{model}", "--bogus"), "No such option"),
        (("edit", "{model}", "--keep", "lots", "--out", "{out}"), "no number"),
        (("edit", "{model}", "--out", "{out}"), "one way to edit"),
        (
            ("edit", "{model}", "--keep", "0.5", "--macs", "0.5", "--out", "{out}"),
            "one way to edit",
        ),
        (("edit", "{model}", "--recipe", "{none}", "--out", "{out}"), "cannot be read"),
        (("edit", "{model}", "--keep", "0.5", "--exclude", "cnv", "--out", "{out}"), "'conv'?"),
        (("edit", "{model}", "--step", "PruneChannels(0.5", "--out", "{out}"), "as in Python"),
        (("edit", "{model}", "--step", "PruneChannels", "--out", "{out}"), "PruneChannels(…)"),
        (("edit", "{model}", "--step", "exit(1)", "--out", "{out}"), "unknown 'exit'"),
        (("edit", "{model}", "--step", "PruneChannels(open('x'))", "--out", "{out}"), "'open'"),
        (("edit", "{model}", "--step", "PruneChannels(1 + x)", "--out", "{out}"), "no number"),
        (("edit", "{model}", "--step", "PruneChannels(kep=1)", "--out", "{out}"), "kep"),
        (("edit", "{model}", "--step", "PruneChannels(2.0)", "--out", "{out}"), "at most 1"),
        (("edit", "{model}", "--step", "Budget(macs=0.5)", "--out", "{out}"), "is a budget"),
        (("edit", "{model}", "--macs", "10", "--out", "{out}"), "can be brought down to"),
        (("fuse", "{model}", "{model}", "--weights", "0.3,0.6", "--out", "{out}"), "sum to 0.9"),
        (("fuse", "{model}", "{model}", "--weights", "learn", "--out", "{out}"), "x_val"),
        (
            ("fuse", "{model}", "{model}", "--with", "Average(how='mode')", "--out", "{out}"),
            "'mode'",
        ),
        (
            ("fuse", "{model}", "{model}", "--with", "Average(calibrate=True)", "--out", "{out}"),
            "x_val",
        ),
        (("fuse", "{model}", "--out", "{out}"), "member"),
        (("fuse", "{model}", "{model}", "--with", "Stack()", "--out", "{out}"), "x_val"),
        (("fuse", "{model}", "{model}", "--with", "Boost()", "--out", "{out}"), "x_train"),
        (("fuse", "{model}", "{model}", "--with", "Soup()", "--out", "{out}"), "x_val"),
        (("fuse", "{model}", "{model}", "--with", "Ties(0.3)", "--out", "{out}"), "Soup(Ties(0.3)"),
        (
            ("fuse", "{model}", "{model}", "--with", "Stack(fold=3)", "--out", "{out}"),
            "'fold'; Stack takes meta, on,",
        ),
        (("fuse", "{model}", "{model}", "--with", "Stak()", "--out", "{out}"), "unknown 'Stak'"),
        (
            ("fuse", "{model}", "--with", "Chain()", "--weights", "learn", "--out", "{out}"),
            "not both",
        ),
        (("optimize", "{model}", "--data", "{data}", "--out", "{run}"), "No budget"),
        (
            (
                *("optimize", "{model}", "--data", "{data}", "--out", "{run}"),
                *("--params", "0.5", "--count", "mean"),
            ),
            "--count has no effect",
        ),
        (("optimize", "{model}", "--data", "{none}", "--macs", "0.5", "--out", "{run}"), "no file"),
        (("report", "{none}"), "no finished run"),
        (("report", "{run}", "--overwrite"), "--overwrite has no effect"),
        (("profile", "{model}", "--no-latency", "--batch-size", "1"), "--batch-size has no effect"),
        (
            ("edit", "{model}", "--step", "RemoveNoOps()", "--scope", "layer", "--out", "{out}"),
            "--scope has no effect",
        ),
        (
            ("edit", "{model}", "--recipe", "{none}", "--exclude", "conv", "--out", "{out}"),
            "--exclude has no effect",
        ),
        (
            ("edit", "{model}", "--keep", "0.5", "--no-compensate", "--out", "{out}"),
            "--compensate/--no-compensate has no effect",
        ),
        (("edit", "{model}", "--keep", "0.5", "--seed", "1", "--out", "{out}"), "--seed has no"),
        (
            ("edit", "{model}", "--keep", "0.5", "--importance", "apoz", "--out", "{out}"),
            "apoz needs --data",
        ),
        (("fuse", "{model}", "{model}", "--allow-in-sample", "--out", "{out}"), "has no effect"),
        (("edit", "{model}", "--keep", "0.5", "--scope", "all", "--out", "{out}"), "'layer'"),
        (("export", "{model}", "--format", "onnx", "--out", "{out}"), ".onnx"),
        (("demo", "--dataset", "cats"), "cats"),
        (("nonsense",), "nonsense"),
    ],
)
def test_wrong_input_gets_one_line_and_exit_code_2(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    places = {
        "model": folder / "m0.keras",
        "data": folder / "data.npz",
        "none": tmp_path / "none.keras",
        "out": tmp_path / "out.keras",
        "run": tmp_path / "run",
    }
    line = refused(capsys, *(argument.format(**places) for argument in arguments))
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": np.full((40, 8, 8, 1), np.nan), "y_train": np.zeros(40)}, "NaN"),
        ({"x_train": np.zeros((40, 8, 8, 1)), "y_train": np.zeros(39)}, "39 labels"),
        ({"x_train": np.zeros((40, 6, 8, 1)), "y_train": np.zeros(40)}, "shape"),
        ({"x_train": np.zeros((40, 8, 8, 1)), "y_train": np.zeros((40, 7))}, "Labels of shape"),
        ({"y_train": np.zeros(40)}, "x_train"),
    ],
)
def test_wrong_data_is_refused_before_any_training(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    message: str,
) -> None:
    np.savez(tmp_path / "data.npz", **change)
    line = refused(
        capsys,
        *("optimize", folder / "m0.keras", "--data", tmp_path / "data.npz"),
        *("--macs", "0.5", "--out", tmp_path / "run"),
    )
    assert message in line
    assert not (tmp_path / "run" / "candidates").exists()


def test_a_soup_is_made_of_two_files_and_prints_its_weights(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same, out = folder / "m0.keras", tmp_path / "soup.keras"
    soup = "Soup(Linear((0.25, 0.75)), check=False, recalibrate=False)"
    code, printed, _ = run(capsys, "fuse", same, same, "--with", soup, "--out", out)
    assert code == 0 and "Soup" in printed
    first, merged = (keras.saving.load_model(path) for path in (same, out))
    for a, b in zip(first.get_weights(), merged.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_models_with_different_outputs_are_not_fused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = keras.Sequential([keras.Input((8, 8, 1)), L.Flatten(), L.Dense(3, "softmax")])
    other.save(tmp_path / "three.keras")
    line = refused(
        capsys,
        *("fuse", folder / "m0.keras", tmp_path / "three.keras", "--out", tmp_path / "t.keras"),
    )
    assert "10" in line
    assert "3" in line


def test_a_lambda_in_a_file_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = keras.Sequential([keras.Input((2,)), L.Lambda(lambda x: x + 1)])
    model.save(tmp_path / "lambda.keras")
    assert "never run" in refused(capsys, "profile", tmp_path / "lambda.keras")


@pytest.mark.slow  # CI runs the demo from the wheel: `make package`.
def test_the_demo_runs_from_nothing_to_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run_json(capsys, "demo", "--effort", "3", "--out", tmp_path / "demo")
    record = shown["run"]
    chosen = next(c for c in record["candidates"] if c["name"] == record["chosen"])
    whole = next(c for c in record["candidates"] if c["name"] == record["baseline"])
    assert chosen["cost"]["macs"] <= 0.25 * whole["cost"]["macs"]
    assert Path(shown["best"]).is_file()


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"saikei {saikei.__version__}\n", "")


def test_help_is_quick_because_it_loads_neither_keras_nor_numpy() -> None:
    code = (
        "import sys; from saikei.cli import main; main(['--help']); "
        "print(bool({'keras', 'numpy'} & sys.modules.keys()))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip().endswith("False")
    assert printed.stderr == ""


@pytest.mark.parametrize(
    ("text", "value"), [("0.25", 0.25), ("500000", 500_000), ("1_000", 1000), ("1.0", 1.0)]
)
def test_numbers_with_a_point_are_shares_and_others_counts(text: str, value: float) -> None:
    read = number(text, "--macs")
    assert (read, type(read)) == (value, type(value))


def test_a_budget_needs_a_limit() -> None:
    with pytest.raises(InputError, match="--macs"):
        budget()


@pytest.mark.long
def test_python_and_command_line_do_the_same(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`saikei optimize` is `saikei.optimize`: same seed, same data, same model."""
    splits = digits()
    result = optimize(
        keras.saving.load_model(folder / "m0.keras"),
        splits.train,
        splits.validation,
        budget(macs="0.5"),
        test=splits.test,
        progress=False,
        **SAME,
    )
    arguments = ("optimize", folder / "m0.keras", "--data", folder / "data.npz", "--macs", "0.5")
    run_json(capsys, *arguments, *LEAST, "--out", tmp_path / "run")
    again = keras.saving.load_model(tmp_path / "run" / "best.keras")
    for one, other in zip(result.best.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
