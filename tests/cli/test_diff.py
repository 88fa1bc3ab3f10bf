"""`saikei diff` shows two models layer by layer."""

from __future__ import annotations

import json

import keras

from saikei import PruneChannels, ReplaceActivation
from saikei.cli import main
from saikei.codec import from_jsonable
from saikei.runs.graph_diff import GraphDiff, compare_graphs


def residual(units: int = 8, block: bool = True) -> keras.Model:
    inputs = keras.Input((6,), name="in")
    x = keras.layers.Dense(units, activation="relu", name="first")(inputs)
    if block:
        y = keras.layers.Dense(units, activation="relu", name="inner")(x)
        x = keras.layers.Add(name="sum")([x, y])
    return keras.Model(inputs, keras.layers.Dense(3, name="out")(x), name="net")


def statuses(found: GraphDiff) -> dict[str, str]:
    return {node.side.name: node.status for node in found.nodes}


def test_what_became_of_each_layer_is_found():
    small = PruneChannels(keep=0.5)(residual())
    found = compare_graphs(residual(), small)
    assert {statuses(found)[name] for name in ("first", "inner", "sum", "out")} == {"narrower"}
    assert found.nodes[1].kept == 0.5
    assert from_jsonable(GraphDiff, found.to_dict()) == found

    without = compare_graphs(residual(), residual(block=False))
    assert statuses(without) == {
        "in": "same", "first": "same", "inner": "removed", "sum": "removed", "out": "same"
    }  # fmt: skip
    swapped = compare_graphs(residual(), ReplaceActivation("relu", "prelu")(residual()))
    assert statuses(swapped)["first_linear"] == "same"
    assert statuses(swapped)["first"] == "added"


def test_the_command_prints_text_json_and_a_page(tmp_path, capsys):
    first, second, page = (str(tmp_path / name) for name in ("a.keras", "b.keras", "d.html"))
    residual().save(first)
    residual(block=False).save(second)
    assert main(["diff", first, second, "--out", page]) == 0
    printed = capsys.readouterr().out
    assert "removed  inner" in printed and "3 same, 2 removed" in printed
    assert (tmp_path / "d.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main(["diff", first, second, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["macs"] == [6 * 8 + 8 * 8 + 8 * 3, 6 * 8 + 8 * 3]
