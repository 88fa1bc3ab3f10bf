"""What the edits offer to the search, and options that are stitched together."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from saikei.channels import map_channels
from saikei.costs import count_costs
from saikei.edits import Recipe
from saikei.edits.base import Edit, edit_classes
from saikei.edits.options import Option, stitch
from saikei.errors import EditError, SaikeiError
from saikei.graph import Graph, build, read
from tests.edits.option_nets import NETS

BUILT_IN = [kind for kind in edit_classes().values() if kind.__module__.startswith("saikei.")]


def _inputs(model: keras.Model, rows: int) -> Any:
    generator = np.random.default_rng(0)
    shape = (rows, *model.inputs[0].shape[1:])
    if "int" in model.inputs[0].dtype:
        return generator.integers(0, 20, shape).astype("int32")
    return generator.normal(size=shape).astype("float32")


def _by_site(graph: Graph, data: Any = None) -> dict[str, list[Option]]:
    found: dict[str, list[Option]] = defaultdict(list)
    for kind in BUILT_IN:
        for option in kind.options(graph, data):
            found[option.site].append(option)
    return dict(found)


def _predicted(model: keras.Model, x: Any) -> list[np.ndarray]:
    return [np.asarray(one) for one in keras.tree.flatten(model.predict(x, verbose=0))]


@pytest.fixture(scope="module", params=NETS)
def net(request: pytest.FixtureRequest) -> tuple[keras.Model, Graph]:
    keras.utils.set_random_seed(1)
    model = NETS[request.param]()
    return model, read(model)


def test_every_kind_of_edit_has_options_for_a_convolutional_network() -> None:
    found = _by_site(read(NETS["cnn"]()))
    kinds = {site.partition(":")[0] for site in found}
    assert kinds == {
        "channels",
        "layer",
        "activation",
        "pooling",
        "head",
        "block",
        "precision",
    }
    methods = {option.method for options in found.values() for option in options}
    assert methods >= {"prune", "factorize", "separate", "kernel", "activation", "pooling", "head"}


def test_channels_go_by_what_the_others_can_make_up_for() -> None:
    model = NETS["cnn"]()
    kernel, bias = model.get_layer("c1").get_weights()
    kernel[..., 3], bias[3] = kernel[..., 1], bias[1]
    model.get_layer("c1").set_weights([kernel, bias])
    first = _by_site(read(model), _inputs(model, 64))["channels:c1"][0].edit.to_dict()
    # One of two equal channels goes first.
    assert set(first["channels"]["c1"]) <= {1, 3}


def test_options_name_layers_of_the_model_and_survive_json(net: tuple[Any, Graph]) -> None:
    _, graph = net
    for options in _by_site(graph).values():
        for option in options:
            assert set(option.layers) <= set(graph.operations)
            assert Option.from_dict(json.loads(json.dumps(option.to_dict()))) == option


@pytest.mark.sampled
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_stitched_options_run_and_cost_what_is_counted(
    net: tuple[keras.Model, Graph], seed: int, tmp_path: Path
) -> None:
    model, graph = net
    generator = np.random.default_rng(seed)
    chosen = [
        options[generator.integers(len(options))]
        for options in _by_site(graph).values()
        if generator.random() < 0.7
    ]
    x = _inputs(model, 40)
    recipe, stitched = stitch(graph, chosen, x)
    built = build(stitched)
    path = tmp_path / "stitched.keras"
    built.save(path)
    loaded = keras.saving.load_model(path)
    outputs = _predicted(loaded, x)
    assert [one.shape for one in outputs] == [one.shape for one in _predicted(model, x)]
    assert all(np.isfinite(one).all() for one in outputs)
    assert count_costs(map_channels(read(loaded))) == count_costs(map_channels(stitched))
    assert built.count_params() == count_costs(map_channels(stitched)).params
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    for one, other in zip(outputs, _predicted(again(model, x), x), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_stitched_options_that_change_nothing_compute_the_same(name: str) -> None:
    keras.utils.set_random_seed(2)
    model = NETS[name]()
    graph, x = read(model), _inputs(model, 30)
    same = ("prelu in place of relu", "kernel 5×5 in place of 3×3", "depthwise conv in place")
    chosen = [
        next(option for option in options if option.change.startswith(same))
        for options in _by_site(graph).values()
        if any(option.change.startswith(same) for option in options)
    ]
    assert len(chosen) >= 3
    _, stitched = stitch(graph, chosen, x)
    np.testing.assert_allclose(
        _predicted(build(stitched), x)[0], _predicted(model, x)[0], atol=1e-5
    )


def test_cuts_are_one_edit_and_options_of_removed_layers_are_left_out() -> None:
    found = _by_site(read(NETS["resnet"]()))
    chosen = [found["channels:a0"][3], found["channels:a1"][3], found["block:add0"][0]]
    recipe, stitched = stitch(read(NETS["resnet"]()), chosen)
    assert [type(edit).__name__ for edit in recipe.edits] == ["RemoveLayers", "DropChannels"]
    assert set(recipe.edits[1].to_dict()["channels"]) == {"a1"}
    assert "a0" not in stitched.operations


def test_a_refit_of_all_together_is_closer_to_the_original_than_none() -> None:
    keras.utils.set_random_seed(3)
    model = NETS["cnn"]()
    graph, x = read(model), _inputs(model, 300)
    found = _by_site(graph, x)
    chosen = [found["channels:c1"][2], found["channels:d1"][2], found["head:flat"][0]]
    before = _predicted(model, x)[0]
    errors = [
        np.abs(_predicted(build(stitch(graph, chosen, data)[1]), x)[0] - before).mean()
        for data in (None, x)
    ]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.long
def test_layers_are_refitted_before_they_are_quantised() -> None:
    keras.utils.set_random_seed(3)
    graph = read(NETS["cnn"]())
    x = _inputs(build(graph), 300)
    found = _by_site(graph, x)
    cuts = [found["channels:c2"][2], found["channels:d1"][1]]
    quantised = [found["precision:d1"][0], found["precision:d2"][0]]
    before = _predicted(build(graph), x)[0]
    recipe, stitched = stitch(graph, [*cuts, *quantised], x)
    outputs = _predicted(build(stitched), x)[0]
    np.testing.assert_allclose(_predicted(build(recipe.apply(graph, x)), x)[0], outputs, atol=1e-5)
    refitted = _predicted(build(stitch(graph, cuts, x)[1]), x)[0]
    assert np.abs(outputs - refitted).mean() < 0.2 * np.abs(before - refitted).mean()


def test_two_options_of_one_site_and_options_that_cannot_be_applied_are_refused() -> None:
    graph = read(NETS["cnn"]())
    channels = _by_site(graph)["channels:c1"]
    with pytest.raises(EditError, match="Two options change 'channels:c1'"):
        stitch(graph, channels[:2])
    other = read(NETS["two outputs"]())
    with pytest.raises(EditError, match="None of the 1 options can be applied"):
        stitch(other, channels[:1])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"site": 3}, "Option\\(site=3\\)"),
        ({"layers": "c1"}, "tuple of names"),
        ({"edit": {"edit": "Melt"}}, "Unknown edit 'Melt' in the option"),
        ({"more": 1}, "no argument 'more'"),
    ],
)
def test_a_damaged_option_is_refused(change: dict[str, Any], match: str) -> None:
    option = _by_site(read(NETS["cnn"]()))["channels:c1"][0]
    with pytest.raises(SaikeiError, match=match):
        Option.from_dict({**option.to_dict(), **change})


def test_an_edit_without_options_offers_none() -> None:
    class Nothing(Edit):
        pass

    assert Nothing.options(read(NETS["cnn"]())) == ()
