"""The oracle, for tests: silence channels, cut them, compare.

A channel whose values are zero everywhere can be removed without changing the function. A rule
of your own layer is right when `assert_cuts_exactly` passes on models that use the layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.channels import BoolMask, ChannelMap, map_channels
from saikei.edits.cut import cut
from saikei.graph import Graph, Operation, build, new_operation, read, replace_operations
from saikei.graph.internals import flattened_layers
from saikei.rules.labels import labelled


@dataclass(frozen=True)
class CutCheck:
    """What the oracle found.

    Args:
        cut: how many channels were cut.
        total: how many there were.
        error: largest difference of an output, relative to that output's largest value.
        spread: how much the outputs differ between samples, likewise. Where it is near 0 no
            signal reaches the outputs, and the error says nothing.
    """

    cut: int
    total: int
    error: float
    spread: float


def assert_cuts_exactly(
    model: keras.Model,
    share: float = 0.25,
    seed: int = 0,
    readers: bool = False,
    tolerance: float = 1e-5,
) -> CutCheck:
    """Silence a random share of each group's channels, cut exactly those, compare outputs.

    Args:
        model: a built model; it is not changed.
        share: of the channels of each group that go.
        seed: of the choice of channels, and of the random input.
        readers: also zero the weights that read the channels. Needed where an activation
            turns 0 into something else (a sigmoid): the channel is then silent only in
            what it does to others.
        tolerance: on the largest difference relative to the largest output, in float32.

    Returns:
        How much was cut and how large the difference was.

    Raises:
        AssertionError: when the cut model differs from the silenced one.
    """
    check = check_cut(model, share, seed, readers)
    assert check.error <= tolerance, (
        f"Cutting {check.cut} of {check.total} silent channels of '{model.name}' changed an "
        f"output by {check.error:.2e} of its largest value (seed {seed})."
    )
    return check


def check_cut(
    model: keras.Model, share: float = 0.25, seed: int = 0, readers: bool = False
) -> CutCheck:
    """The oracle's measurement; see `assert_cuts_exactly` for the arguments."""
    generator = np.random.default_rng(seed)
    channel_map = map_channels(read(model))
    keep = random_mask(channel_map, share, generator)
    small = cut(channel_map, keep)
    silenced = build(_with_twins(silence(channel_map, keep, readers), channel_map, keep, small))
    smaller = build(small)
    batch = random_inputs(model, generator)
    error = spread = 0.0
    for whole, part in zip(_run(silenced, batch), _run(smaller, batch), strict=True):
        scale = max(float(np.abs(whole).max(initial=0.0)), float(np.finfo(np.float32).tiny))
        error = max(error, float(np.abs(whole - part).max(initial=0.0)) / scale)
        spread = max(spread, float(np.ptp(whole, axis=0).max(initial=0.0)) / scale)
    return CutCheck(int((~keep).sum()), channel_map.count, error, spread)


def random_mask(channel_map: ChannelMap, share: float, generator: np.random.Generator) -> BoolMask:
    """Cut a random share of the free channels of each group, at least one where possible."""
    keep = np.ones(channel_map.count, dtype=bool)
    for group in channel_map.groups:
        free = group.channels[group.free]
        count = max(int(share * len(free)), min(1, len(free)))
        keep[generator.permutation(free)[:count]] = False
        for channels in group.blocks.values():
            if not keep[channels].any():
                keep[channels[0]] = True
    return keep


def silence(channel_map: ChannelMap, keep: BoolMask, readers: bool = False) -> Graph:
    """The graph with every weight that makes a dropped channel set to zero.

    Args:
        channel_map: a graph with its channels.
        keep: for each channel, whether it stays as it is.
        readers: also zero the weights that read dropped channels.
    """
    operations = {}
    for name, operation in channel_map.graph.operations.items():
        weights = {}
        for weight_name, weight in operation.weights.items():
            array = weight.numpy().copy()
            for axis, vector in enumerate(channel_map.weights.get(weight.key, ())):
                if vector is not None and (readers or (weight.key, axis) in channel_map.produced):
                    np.moveaxis(array, axis, 0)[~channel_map.kept(vector, keep)] = 0
            weights[weight_name] = weight.with_array(array)
        operations[name] = replace(operation, weights=weights)
    return replace(channel_map.graph, operations=operations, calls=_silent_calls(channel_map, keep))


@keras.saving.register_keras_serializable("saikei.testing")
class _Take(keras.layers.Layer):
    """The named indices of an axis, or zeros between them: `-1` stands for a zero."""

    def __init__(self, axis: int, indices: list[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.indices = list(indices)

    def call(self, x: Any) -> Any:
        padding = [(0, 0)] * len(x.shape)
        padding[self.axis] = (0, 1)
        # The last index, which `-1` is, is a zero.
        return keras.ops.take(keras.ops.pad(x, padding), np.array(self.indices), axis=self.axis)

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[: self.axis], len(self.indices), *shape[self.axis + 1 :])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis, "indices": self.indices}


def _with_twins(graph: Graph, channel_map: ChannelMap, keep: BoolMask, small: Graph) -> Graph:
    """The graph with layers that no cut leaves the same computing on the kept channels only.

    A layer normalisation takes its statistics over the channels that are there. So that its cut
    can be checked all the same, the silenced network does too: kept channels are taken out,
    normalised by the cut layer, and put back between zeros.
    """
    chains = {}
    for call, flow in zip(channel_map.graph.calls, channel_map.flows, strict=True):
        if flow.inexact is None or call.operation in chains:
            continue
        name = call.operation
        before: list[Operation] = []
        after: list[Operation] = []
        for axis, vector in labelled(flow.outputs[0]):
            kept = channel_map.kept(vector, keep)
            back = np.where(kept, np.cumsum(kept) - 1, -1)
            for chain, indices in ((before, np.flatnonzero(kept)), (after, back)):
                layer = _Take(axis, [int(i) for i in indices])
                chain.append(new_operation(f"{name}_{'ba'[chain is after]}{axis}", layer))
        middle = replace(small.operations[name], name=f"{name}_cut")
        chains[name] = (*before, middle, *after)
    return replace_operations(graph, chains) if chains else graph


def _silent_calls(channel_map: ChannelMap, keep: BoolMask) -> tuple[Any, ...]:
    """The calls, with constant arrays zero where their channel is dropped."""
    calls = []
    for call, flow in zip(channel_map.graph.calls, channel_map.flows, strict=True):
        leaves = call.leaves()
        for position, labels in flow.constants.items():
            array = np.array(leaves[position])
            for axis, vector in enumerate(labels):
                if vector is not None:
                    np.moveaxis(array, axis, 0)[~channel_map.kept(vector, keep)] = 0
            leaves[position] = array
        args, kwargs = tree.pack_sequence_as((call.args, dict(call.kwargs)), leaves)
        calls.append(replace(call, args=args, kwargs=kwargs) if flow.constants else call)
    return tuple(calls)


def random_inputs(model: keras.Model, generator: np.random.Generator, samples: int = 3) -> Any:
    """Normal noise in the structure that the model takes; unknown axes have size 8.

    Integer inputs (tokens, masks) are 0 or 1, which every embedding has.
    """
    graph = read(model)
    arrays = []
    for spec in (graph.spec(ref) for ref in graph.input_refs()):
        shape = (samples, *(size or 8 for size in spec.shape[1:]))
        whole = "int" in spec.dtype or spec.dtype == "bool"
        values = generator.integers(0, 2, shape) if whole else generator.standard_normal(shape)
        arrays.append(values.astype(spec.dtype))
    return tree.pack_sequence_as(graph.inputs, arrays)


def randomise_statistics(model: keras.Model, seed: int = 0) -> None:
    """Give a freshly built model biases and normalisation weights that are not 0 and 1.

    Otherwise cutting the wrong index of a bias or a moving mean would change nothing. The
    moving statistics are those of a random batch, so that the signal does not die in depth.

    Args:
        model: changed in place.
        seed: of the new values.
    """
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.path.split("/")[-1]
        if name in ("gamma", "moving_variance", "alpha"):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif name in ("beta", "bias", "moving_mean"):
            weight.assign(generator.normal(0.0, 0.1, weight.shape))
    normalisations = [
        layer
        for layer in flattened_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in normalisations]
    for layer in normalisations:
        layer.momentum = 0.0
    model(random_inputs(model, generator, samples=8), training=bool(normalisations))
    for layer, momentum in zip(normalisations, momenta, strict=True):
        layer.momentum = momentum


def _run(model: keras.Model, batch: Any) -> list[np.ndarray]:
    outputs = model(batch, training=False)
    return [keras.ops.convert_to_numpy(output) for output in tree.flatten(outputs)]
