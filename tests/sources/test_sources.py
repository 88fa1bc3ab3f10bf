"""Data as people have it reaches every command through one door, or is refused in one line."""

from __future__ import annotations

import json
import struct
import sys
import zlib
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest

from saikei.cli import main
from saikei.errors import DataError, InputError
from saikei.sources import read_source


@cache
def image_model(classes: int = 2, colours: int = 1) -> keras.Model:
    inputs = keras.Input((6, 5, colours), name="photo")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(x))
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(x))


@cache
def table_model(classes: int = 3) -> keras.Model:
    inputs = keras.Input((2,), name="table")
    x = keras.layers.Dense(8, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(x))


@cache
def two_inputs() -> keras.Model:
    size, rest = keras.Input((1,), name="size"), keras.Input((2,), name="rest")
    joined = keras.layers.Concatenate()([size, rest])
    return keras.Model([size, rest], keras.layers.Dense(1)(joined))


def write_png(path: Path, pixels: np.ndarray) -> None:
    """A grey or RGB image `(height, width, colours)` as PNG."""
    height, width, colours = pixels.shape
    rows = b"".join(b"\0" + row.astype("uint8").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if colours == 3 else 0, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def photos(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 6) -> Path:
    for number, name in enumerate(classes):
        for one in range(each):
            # Sizes differ from the model's and from each other.
            grey = np.full((8 + one, 9, 1), 40 + 100 * number)
            write_png(folder / name / f"{one}.png", grey)
    return folder


def table(path: Path, text: str = "") -> Path:
    rows = [f"{i},{i / 2},{('rose', 'lily', 'oak')[i % 3]}" for i in range(30)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or "\n".join(["sepal,petal,species", *rows]), encoding="utf-8")
    return path


def test_a_folder_of_images_is_read_in_the_size_and_colours_of_the_model(tmp_path):
    found = read_source(str(photos(tmp_path)), image_model())
    x, y = found.need("validation")
    assert x.shape == (12, 6, 5, 1) and x.dtype == np.float32
    assert found.classes == ("cat", "dog")
    np.testing.assert_array_equal(y, [0] * 6 + [1] * 6)
    np.testing.assert_array_equal(np.unique(x), [40, 140])
    halved = read_source(str(tmp_path), image_model(), divide_by=2.0)
    np.testing.assert_array_equal(np.unique(halved.train[0]), [20, 70])


def test_parts_of_a_folder_are_kept_apart(tmp_path):
    photos(tmp_path / "train")
    photos(tmp_path / "val", each=2)
    found = read_source(str(tmp_path), image_model())
    assert len(found.train[0]) == 12 and len(found.validation[0]) == 4 and found.test is None
    photos(tmp_path / "test", ("cat", "wolf"))
    with pytest.raises(DataError, match="other classes: dog, wolf"):
        read_source(str(tmp_path), image_model())


def damaged(folder: Path) -> None:
    (folder / "dog" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")


def empty_class(folder: Path) -> None:
    (folder / "emu").mkdir()
    (folder / "emu" / "one.webp").write_bytes(b"RIFF")


def one_class(folder: Path) -> None:
    for path in (folder / "dog").iterdir():
        path.unlink()
    (folder / "dog").rmdir()


def third_class(folder: Path) -> None:
    write_png(folder / "emu" / "1.png", np.zeros((4, 4, 1)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damaged, r"dog/3\.png' is no image that can be read .*: remove or replace it"),
        (empty_class, r"class 'emu' holds only \.webp files, which are not read"),
        (one_class, r"one class only \('cat'\)"),
        (third_class, r"3 classes \(cat, dog, emu\), but model .* has outputs for 2"),
    ],
)
def test_a_folder_that_is_odd_is_refused_with_the_place(tmp_path, spoil, message):
    photos(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        read_source(str(tmp_path), image_model())


def test_a_model_that_takes_no_images_refuses_a_folder(tmp_path):
    with pytest.raises(DataError, match="does not take one image"):
        read_source(str(photos(tmp_path)), table_model())


def test_images_that_nothing_scales_are_warned_about(tmp_path):
    model = keras.Sequential([keras.Input((6, 5, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(2, activation="softmax"))
    with pytest.warns(UserWarning, match="--divide-by 255"):
        read_source(str(photos(tmp_path)), model)


def test_a_table_becomes_inputs_and_named_classes(tmp_path):
    found = read_source(str(table(tmp_path / "f.csv")), table_model(), label="species")
    x, y = found.need("train")
    assert found.classes == ("lily", "oak", "rose")
    np.testing.assert_allclose(x[3], [3, 1.5])
    np.testing.assert_array_equal(y[:3], [2, 0, 1])
    unlabelled = table(tmp_path / "u.csv", "a,b\n1,2\n3,4\n")
    assert read_source(str(unlabelled), table_model(), labels=False).train[1] is None


def test_columns_go_to_inputs_by_name_and_quotes_keep_commas(tmp_path):
    path = table(tmp_path / "t.csv", 'rest.1;size;rest.2;"the; price"\n1;9;2;0.5\n3;8;4;1.5\n')
    x, y = read_source(str(path), two_inputs(), label="the; price").need("train")
    np.testing.assert_array_equal(x["size"], [[9], [8]])
    np.testing.assert_array_equal(x["rest"], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(y, np.float32([0.5, 1.5]))


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        ("", "specie", "no column 'specie': use 'species'"),
        ("", None, "name its column of labels with --label, one of sepal, petal, species"),
        ("a,b,c\n1,2,x\n1,,y\n,2,z\nNA,1,x\n", "c", "'a' of .* has no value in rows 3, 4: fill"),
        ("a,b,c\n1,2,x\n1,2,y,9\n", "c", "4 values in line 3, and 3 columns"),
        ("a,b,c\n1,2,x\n1,two,y\n1,2,z\n", "c", "'b' of .* holds 'two' in row 2"),
        (
            "a,b,d,c\n1,2,3,x\n1,2,3,y\n1,1,1,z\n",
            "c",
            r"takes 2 numbers a row.*3 columns .*a, b, d",
        ),
        ("1,2,3\n4,5,6\n", "3", "does not name every column"),
        ("a,a,c\n1,2,x\n", "c", "several columns called 'a'"),
        ("a,b,c\n", "c", "no rows"),
        ("a,b,c\n1,2,x\n3,4,x\n", "c", r"one class only \('x'\)"),
        ("a,b,c\n1,2,x\n3,4,y\n", "c", "2 classes .* has outputs for 3"),
    ],
)
def test_a_table_that_is_odd_is_refused_with_the_place(tmp_path, text, label, message):
    path = table(tmp_path / "t.csv", text)
    with pytest.raises(DataError, match=message) as refused:
        read_source(str(path), table_model(), label=label)
    assert "\n" not in str(refused.value)


def test_a_parquet_table_is_read_like_a_csv(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"a": [1.5, 2.0, 3.0], "b": [1, 2, 3], "c": ["x", "y", "z"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    found = read_source(str(tmp_path / "t.parquet"), table_model(), label="c")
    assert found.classes == ("x", "y", "z")
    np.testing.assert_allclose(found.train[0], [[1.5, 1], [2, 2], [3, 3]])


FUNCTIONS = """
import numpy as np
x, y = np.zeros((6, 2), "float32"), np.arange(6) % 3
def pair(): return x, y
def keras_like(): return (x, y), (x[:2], y[:2])
def parts(): return {"train": (x, y), "validation": (x, y), "classes": ["a", "b", "c"]}
def misspelt(): return {"train": (x, y), "valid": (x, y)}
def fails(): raise RuntimeError("no disk")
def nothing(): pass
number = 3
"""


def test_a_function_of_the_user_gives_data(tmp_path, monkeypatch):
    (tmp_path / "own_data.py").write_text(FUNCTIONS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert len(read_source("own_data:pair", table_model()).need("test")[0]) == 6
    kept = read_source("own_data:keras_like", table_model())
    assert len(kept.train[0]) == 6 and len(kept.test[0]) == 2
    assert read_source("own_data:parts", table_model()).classes == ("a", "b", "c")
    for name, message in {
        "own_data:misspelt": "returns 'valid' too",
        "own_data:fails": "RuntimeError: no disk",
        "own_data:nothing": "returned NoneType",
        "own_data:number": "is no function",
        "own_data:absent": "has no 'absent'",
        "not_there_at_all:load": "no module 'not_there_at_all'",
    }.items():
        with pytest.raises(DataError, match=message):
            read_source(name, table_model())


def test_options_that_do_not_apply_are_refused(tmp_path):
    np.savez(tmp_path / "d.npz", x_train=np.zeros((3, 2)), y_train=np.arange(3))
    with pytest.raises(InputError, match="--label names a column of a table"):
        read_source(str(tmp_path / "d.npz"), table_model(), label="c")
    with pytest.raises(InputError, match="--divide-by is for a folder of images"):
        read_source(str(table(tmp_path / "f.csv")), table_model(), label="species", divide_by=2)
    with pytest.raises(DataError, match="no file or folder 'nowhere'"):
        read_source("nowhere", table_model())


def test_commands_take_a_table_and_a_folder_alike(tmp_path, capsys):
    data = str(table(tmp_path / "f.csv"))
    table_model().save(tmp_path / "m.keras")
    image_model().save(tmp_path / "i.keras")
    model, images = str(tmp_path / "m.keras"), str(photos(tmp_path / "photos"))
    small = str(tmp_path / "small.keras")
    edit = ["edit", model, "--keep", "0.5", "--out", small, "--data", data, "--label", "species"]
    assert main(edit) == 0
    fuse = ["fuse", model, small, "--weights", "learn", "--out", str(tmp_path / "fused.keras")]
    assert main([*fuse, "--data", data, "--label", "species"]) == 0
    assert main(["explain", model, small, "--data", data, "--label", "species"]) == 0
    assert main(["edit", str(tmp_path / "i.keras"), "--keep", "0.5", "--out",
                 str(tmp_path / "j.keras"), "--data", images]) == 0  # fmt: skip
    capsys.readouterr()
    out = tmp_path / "m.tflite"
    export = ["export", str(tmp_path / "i.keras"), "--out", str(out), "--data", images, "--json"]
    assert main(export) == 0
    printed = json.loads(capsys.readouterr().out)
    assert Path(printed["labels"]).read_text(encoding="utf-8") == "cat\ndog\n"


def test_each_line_of_a_text_file_is_a_sample(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("the cat\n\n  the dog \n", encoding="utf-8")
    x, y = read_source(str(path), table_model(), labels=False).need("train")
    assert x.tolist() == ["the cat", "the dog"] and y is None
    with pytest.raises(DataError, match="holds no labels"):
        read_source(str(path), table_model())
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"corpus\.txt' is no text .*save it as UTF-8"):
        read_source(str(path), table_model())
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="is empty: write a text into each line"):
        read_source(str(path), table_model())
