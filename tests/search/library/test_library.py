"""The library: every option of a model alone, measured without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from keras import layers

from saikei import profile
from saikei.edits import Edit, PruneChannels, RemoveLayers, ReplaceActivation, ReplaceHead
from saikei.edits.options import Option, stitch
from saikei.errors import InputError
from saikei.executors import Inline, TaskFailure
from saikei.graph import Graph, build, read
from saikei.scoring import infer_tasks
from saikei.search.library import Library, Measured, build_library, divergence
from saikei.search.library.measure import SiteResult, SiteTask, measure_site

ROWS = 160


@dataclass(frozen=True)
class DropBias(Edit):
    """A toy: layers without their bias. One method makes it join the search."""

    exact: ClassVar[bool] = False
    method: ClassVar[str] = "drop_bias"
    layers: tuple[str, ...] = ()

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        changed = {}
        for name in self.layers:
            operation = graph.operations[name]
            weights = {key: w for key, w in operation.weights.items() if key != "bias"}
            config = {**(operation.config or {}), "use_bias": False}
            changed[name] = replace(operation, weights=weights, config=config)
        return graph.with_operations(changed)

    @classmethod
    def options(cls, graph: Graph, data: Any = None) -> tuple[Option, ...]:
        return tuple(
            Option(f"bias:{name}", cls.method, "without bias", cls((name,)), (name,))
            for name, operation in graph.operations.items()
            if "bias" in operation.weights
        )


def _model() -> keras.Model:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(x)
    for number in range(2):
        y = layers.Conv2D(8, 3, padding="same", activation="relu", name=f"a{number}")(x)
        y = layers.Conv2D(8, 1, name=f"b{number}")(y)
        y = layers.BatchNormalization(name=f"bn{number}")(y)
        x = layers.Add(name=f"add{number}")([x, y])
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    model = keras.Model(inputs, layers.Dense(4, activation="softmax", name="out")(x))
    model.get_layer("bn1").set_weights([np.full(8, 0.1), *model.get_layer("bn1").get_weights()[1:]])
    model.get_layer("out").bias.assign([0.5, -0.5, 1.0, 0.0])
    return model


def _data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, 6, 6, 2)).astype("float32")
    return x, generator.integers(0, 4, ROWS)


METHODS = (PruneChannels, RemoveLayers, ReplaceActivation, DropBias)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return _model()


@pytest.fixture(scope="module")
def library(model: keras.Model) -> Library:
    return build_library(model, _data(0), _data(1), METHODS)


def test_every_option_is_measured_or_left_out_with_a_reason(
    model: keras.Model, library: Library
) -> None:
    offered = [o for kind in METHODS for o in kind.options(read(model), _data(0))]
    found = [e.option for e in library.entries] + [e.option for e in library.left_out]
    assert len(found) == len(offered)
    assert all(option in found for option in offered)
    assert all(entry.reason for entry in library.left_out)
    assert library.rows == ROWS and library.unit == "nats"
    assert all(entry.loss >= 0 and np.isfinite(entry.error) for entry in library.entries)


def test_costs_are_those_of_the_built_model(model: keras.Model, library: Library) -> None:
    for entry in library.entries[::7]:
        built = entry.option.edit(model)
        counted = profile(built)
        assert (entry.costs.params, entry.costs.macs) == (counted.params, counted.macs)
    assert library.original.params == model.count_params()


def test_losses_are_those_of_the_outputs_of_the_refitted_model(
    model: keras.Model, library: Library
) -> None:
    x, y = _data(1)
    before = model.predict(x, verbose=0)
    tasks = infer_tasks(model, y)
    for method in ("activation", "drop_bias", "prune"):
        entry = max((e for e in library.entries if e.option.method == method), key=_loss)
        _, stitched = stitch(read(model), [entry.option], _data(0))
        after = build(stitched).predict(x, verbose=0)
        loss, _ = divergence([after], [before], tasks)
        # The library refits with fewer ridges.
        assert loss / 3 - 1e-3 < entry.loss < 3 * loss + 1e-3


def test_fewer_channels_lose_more_and_an_option_that_changes_nothing_loses_nothing(
    library: Library,
) -> None:
    losses = [entry.loss for entry in library.sites["channels:a0"]]
    assert losses == sorted(losses)
    assert losses[-1] > losses[0]
    same = next(e for e in library.entries if e.option.change == "prelu in place of relu")
    assert same.loss < 1e-9


def test_a_toy_edit_joins_by_one_method(library: Library) -> None:
    entries = {e.option.site: e for e in library.entries if e.option.method == "drop_bias"}
    assert {"bias:stem", "bias:out"} <= set(entries)
    assert entries["bias:out"].loss > 1e-4
    assert entries["bias:out"].costs.params == library.original.params - 4


def test_blocks_go_one_by_one_and_the_weakest_first(library: Library) -> None:
    sites = [entry.option.site for entry in library.depth]
    assert sites[0] == "block:add1"
    assert library.depth[1].loss >= library.depth[0].loss
    assert library.depth[1].costs.params < library.depth[0].costs.params


def test_cuts_of_what_a_new_head_reads_are_measured_together_with_it() -> None:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, activation="relu", name="first")(x)
    x = layers.Conv2D(6, 3, activation="relu", name="map")(x)
    x = layers.Dense(4, activation="softmax", name="out")(layers.Flatten(name="flatten")(x))
    methods = (PruneChannels, ReplaceHead)
    seen: list[tuple[int, int]] = []
    library = build_library(
        keras.Model(inputs, x),
        _data(0),
        _data(1),
        methods,
        progress=lambda done, total: seen.append((done, total)),
    )
    # The progress goes on where options are measured together.
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (len(library.entries) + len(library.pairs),) * 2
    heads, cuts = library.sites["head:flatten"], library.sites["channels:map"]
    assert len(library.pairs) == len(heads) * len(cuts)
    for pair in library.pairs:
        head = next(e for e in heads if e.option == pair.first)
        cut = next(e for e in cuts if e.option == pair.both.option)
        assert pair.both.costs.params < head.costs.params
        added = library.added_loss(cut, head)
        assert added == pytest.approx(max(pair.both.loss - head.loss, 0.0))
        assert library.added_loss(cut, None) == cut.loss
    upstream = library.sites["channels:first"][0]
    assert library.added_loss(upstream, heads[0]) == upstream.loss


def test_a_library_survives_its_file_exactly(library: Library, tmp_path: Path) -> None:
    library.save(tmp_path)
    assert Library.load(tmp_path) == library


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"loss": ', '"loss": "x', 1),
        lambda text: text.replace('"rows"', '"lines"'),
        lambda text: text.replace('"edit": "DropChannels"', '"edit": "Melt"', 1),
    ],
)
def test_a_damaged_file_is_refused(
    library: Library, tmp_path: Path, damage: Callable[[str], str]
) -> None:
    path = library.save(tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError):
        Library.load(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        Library.load(tmp_path)


class _Counted(Inline):
    """Counts the options that are measured, and ends after some tasks as a kill would."""

    def __init__(self, most: int = 10**6) -> None:
        self.measured, self.most = 0, most

    def run(self, function: Any, shared: Any, tasks: Sequence[Any], done: Any) -> Any:
        def counted(index: int, result: SiteResult | TaskFailure) -> None:
            done(index, result)
            self.measured += 1
            if self.measured == self.most:
                raise KeyboardInterrupt

        return super().run(function, shared, tasks, counted)


def test_what_is_finished_is_not_measured_again(model: keras.Model, tmp_path: Path) -> None:
    def built(executor: _Counted, folder: Path | None = tmp_path) -> Library:
        methods = (RemoveLayers, DropBias)
        return build_library(model, _data(0), _data(1), methods, executor=executor, folder=folder)

    with pytest.raises(KeyboardInterrupt):
        built(_Counted(most=3))
    whole, rest, again = _Counted(), _Counted(), _Counted()
    expected = built(whole, folder=None)
    assert built(rest) == expected
    assert built(again) == expected
    assert (rest.measured, again.measured) == (whole.measured - 3, 0)


def test_an_option_is_measured_the_same_in_any_company(model: keras.Model) -> None:
    shared: list[Any] = []

    class Kept(Inline):
        def run(self, function: Any, given: Any, tasks: Any, done: Any) -> Any:
            shared.append(given)
            return super().run(function, given, tasks, done)

    library = build_library(model, _data(0), _data(1), (DropBias,), executor=Kept())
    for entry in library.entries:
        (alone,) = measure_site(shared[0], SiteTask(((entry.option,),))).measured
        assert alone == entry


def test_a_model_without_options_is_refused(model: keras.Model) -> None:
    class Nothing(DropBias):
        @classmethod
        def options(cls, graph: Graph, data: Any = None) -> tuple[Option, ...]:
            return ()

    with pytest.raises(InputError, match="No method offers any option"):
        build_library(model, _data(0), _data(1), (Nothing,))


def _loss(entry: Measured) -> float:
    return entry.loss


def test_library_json_is_plain(library: Library, tmp_path: Path) -> None:
    entry = json.loads(library.save(tmp_path).read_text())["entries"][0]
    assert set(entry) == {"option", "loss", "error", "costs"}
