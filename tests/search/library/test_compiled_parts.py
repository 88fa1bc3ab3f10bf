"""CompiledParts of a network that are compiled once give what the network gives."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
from keras import layers

from saikei.channels import ChannelMap
from saikei.costs import call_macs
from saikei.edits import DropChannels, RemoveLayers
from saikei.graph import read
from saikei.search.library import build_library, compiled_parts
from saikei.search.library.compiled_parts import CompiledParts

BLOCKS = 4


@functools.cache
def _model() -> keras.Model:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    for n in range(BLOCKS):
        y = layers.Conv2D(6, 3, padding="same", name=f"a{n}")(x)
        y = layers.Conv2D(6, 1, activation="relu", name=f"b{n}")(y)
        y = layers.Conv2D(4, 3, padding="same", name=f"c{n}")(y)
        x = layers.Add(name=f"add{n}")([x, layers.BatchNormalization(name=f"n{n}")(y)])
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="out")(x))


def _data(seed: int, rows: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 6, 6, 2)).astype("float32")
    return x, generator.integers(0, 3, rows)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> CompiledParts:
    """The parts of the small network, which counts as a large one."""
    monkeypatch.setattr(compiled_parts, "LARGE", 0.0)
    monkeypatch.setattr(compiled_parts, "PARTS", 6)
    graph = read(_model())
    counted = ChannelMap.of_whole(graph)
    return CompiledParts(
        graph, [call_macs(counted, index) or 0 for index in range(len(graph.calls))]
    )


def test_all_parts_together_give_the_outputs(compiled: CompiledParts) -> None:
    # Not a multiple of the rows that go through a part at once.
    x, _ = _data(0, rows=compiled_parts.BATCH + 5)
    assert 3 <= len(compiled.starts) <= 8
    (found,) = compiled.outputs(0, x)
    np.testing.assert_allclose(found, np.asarray(_model()(x)), atol=1e-6)


def test_a_changed_graph_goes_on_behind_its_change(compiled: CompiledParts) -> None:
    graph = compiled.graph
    cut, _ = DropChannels({"a1": (0, 3)}).unfitted(graph)
    last = max(i for i, call in enumerate(graph.calls) if call.operation in ("a1", "b1"))
    join = compiled.join(cut, 0)
    assert join is not None and compiled.starts[join.part] > last
    assert compiled.starts[join.part - 1] <= last
    shorter = RemoveLayers(1.0, layers=("add1",)).apply(graph)
    gone = len(graph.calls) - len(shorter.calls)
    join = compiled.join(shorter, 0)
    assert join is not None and join.call == compiled.starts[join.part] - gone
    assert compiled.join(DropChannels({f"a{BLOCKS - 1}": (0,)}).unfitted(graph)[0], 0) is None


@pytest.mark.long
def test_a_library_is_the_same_with_compiled_parts(
    compiled: CompiledParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built() -> list[float]:
        library = build_library(_model(), _data(0), _data(1), (RemoveLayers,))
        return [entry.loss for entry in (*library.entries, *library.depth)]

    inside = built()
    monkeypatch.setattr(compiled_parts, "LARGE", 1e18)
    assert inside and inside == pytest.approx(built(), rel=1e-3, abs=1e-7)
