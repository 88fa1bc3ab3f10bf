"""Silence channels, cut them, compare; and the models' inputs and numbers for it."""

from __future__ import annotations

import inspect
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.channels import BoolMask, ChannelMap, map_channels
from saikei.costs import count_costs
from saikei.edits.cut import cut
from saikei.graph import build, read
from saikei.graph.internals import flattened_layers, use_assigned_statistics
from saikei.graph.samples import random_inputs as samples_of
from saikei.tensors import to_floats
from saikei.testing.silence import silence


@dataclass(frozen=True)
class CutCheck:
    """The result of the oracle.

    Args:
        cut: How many channels were cut.
        total: How many there were.
        error: Largest difference of an output, relative to that output's largest value.
        spread: The largest difference between the outputs of different samples. Where it is near 0
            no signal reaches the outputs, and `error` shows nothing.
        loaded: Whether the error is that of the saved and loaded model too.
    """

    cut: int
    total: int
    error: float
    spread: float
    loaded: bool


def assert_cuts_exactly(
    model: keras.Model,
    share: float = 0.25,
    seed: int = 0,
    readers: bool = False,
    tolerance: float | None = None,
    loaded: bool | None = None,
    inputs: Any = None,
) -> CutCheck:
    """Silence a random share of each group's channels, cut exactly those, compare outputs.

    The same is done to the model as it is after saving and loading, in which Keras names weights
    otherwise.

    Args:
        model: A built model; it is not changed.
        share: The share of the channels of each group that is cut, between 0 and 1.
        seed: Seed of the choice of channels, and of the random input.
        readers: Whether the weights that read the channels are set to zero too. This is needed
            where an activation turns 0 into something else (a sigmoid): the channel is then silent
            only in its effect on others.
        tolerance: The largest difference allowed, relative to the largest output; by default 1e-5,
            and eight rounding errors where the model computes in half precision.
        loaded: Whether to save and load the model and cut that too; when not given, wherever
            Keras can save it.
        inputs: What to compare the outputs on, in the structure that the model takes; random
            numbers when not given.

    Returns:
        How much was cut and how large the difference was.

    Raises:
        AssertionError: When the cut model differs from the silenced one, or when the loaded model
            has other channels than the model.
    """
    check = check_cut(model, share, seed, readers, loaded, inputs)
    # Sums in another order differ by some rounding errors.
    allowed = max(1e-5, 8 * read(model).rounding()) if tolerance is None else tolerance
    assert check.error <= allowed, (
        f"Cutting {check.cut} of {check.total} silent channels of '{model.name}' changed an "
        f"output by {check.error:.2e} of its largest value (seed {seed})."
    )
    return check


def check_cut(
    model: keras.Model,
    share: float = 0.25,
    seed: int = 0,
    readers: bool = False,
    loaded: bool | None = False,
    inputs: Any = None,
) -> CutCheck:
    """The oracle's measurement; see `assert_cuts_exactly` for the arguments."""
    generator = np.random.default_rng(seed)
    channel_map = map_channels(read(model))
    keep = random_mask(channel_map, share, generator)
    silenced = build(silence(channel_map, keep, readers))
    smaller = [build(cut(channel_map, keep))]
    twin = None if loaded is False else saved_and_loaded(model, must=bool(loaded))
    if twin is not None:
        smaller.append(build(cut(_map_of_loaded(twin, channel_map), keep)))
    batch = random_inputs(model, generator) if inputs is None else inputs
    error = spread = 0.0
    expected = run(silenced, batch)
    for whole, *parts in zip(expected, *(run(one, batch) for one in smaller), strict=True):
        scale = max(float(np.abs(whole).max(initial=0.0)), float(np.finfo(np.float32).tiny))
        for part in parts:
            difference = float(np.abs(whole - part).max(initial=0.0)) / scale
            # Not a number is no agreement.
            error = max(error, difference if np.isfinite(difference) else np.inf)
        spread = max(spread, float(np.ptp(whole, axis=0).max(initial=0.0)) / scale)
    return CutCheck(int((~keep).sum()), channel_map.count, error, spread, twin is not None)


def _map_of_loaded(loaded: keras.Model, built: ChannelMap) -> ChannelMap:
    """The channels of the loaded model, which have to be those of the one that was built."""
    channel_map = map_channels(read(loaded))
    found, expected = _described(channel_map), _described(built)
    assert found == expected, (
        f"'{loaded.name}' has other channels once it was saved and loaded: {found} instead of "
        f"{expected}."
    )
    return channel_map


def _described(channel_map: ChannelMap) -> Any:
    """What a cut depends on: the channels of each axis of each weight, and which are pinned.

    Operations go by their place: Keras names layers within others anew when it loads them.
    """
    places = {name: number for number, name in enumerate(channel_map.graph.operations)}
    axes = [
        (places[operation], name, axis, channels.tolist())
        for operation, name, _, axis, channels in channel_map.weight_axes()
    ]
    # What is live at once depends on the order of calls, which Keras may change when it loads.
    costs = replace(count_costs(channel_map), memory=0)
    return axes, channel_map.count, sorted(channel_map.reasons), costs


def saved_and_loaded(model: keras.Model, must: bool = True) -> keras.Model | None:
    """The model as it comes out of a `.keras` file that it was saved to.

    Args:
        model: A built model; its own layers and functions need not be registered with Keras.
        must: Whether it is an error that Keras cannot save or load the model (a class without
            `get_config()`, a layer that is wrapped and called itself too); when not, there is no
            loaded model.
    """
    own: dict[str, Any] = {}
    for part in flattened_layers(model):
        held: list[Any] = [value for value in vars(part).values() if inspect.isfunction(value)]
        own.update({thing.__name__: thing for thing in (type(part), *held) if not _is_keras(thing)})
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Of lambdas, which Keras warns of for the sake of whoever loads the file.
        warnings.simplefilter("ignore", UserWarning)
        path = Path(folder) / "model.keras"
        try:
            model.save(path)
            # The file was written here from an object of this process, so its code is known.
            return keras.models.load_model(path, own, compile=False, safe_mode=False)
        except (NotImplementedError, TypeError, ValueError):
            if must:
                raise
            return None


def _is_keras(thing: Any) -> bool:
    return str(thing.__module__).startswith("keras.")


def random_mask(channel_map: ChannelMap, share: float, generator: np.random.Generator) -> BoolMask:
    """Cut a random share of the free channels of each group, at least one where possible."""
    keep = np.ones(channel_map.count, dtype=bool)
    for group in channel_map.groups:
        free = group.channels[group.free]
        count = max(int(share * len(free)), min(1, len(free)))
        keep[generator.permutation(free)[:count]] = False
        for _, channels, least in group.needs():
            waiting = iter(channels)
            while keep[channels].sum() < least:
                keep[next(waiting)] = True
    return keep


def random_inputs(model: keras.Model, generator: np.random.Generator, samples: int = 3) -> Any:
    """Normal noise in the structure that the model takes; unknown axes have size 8.

    Integer inputs (tokens, masks) are 0 or 1, which every embedding has. Where the model begins
    with a `Rescaling`, the noise is normal after that.
    """
    return samples_of(read(model), samples, generator, below=2)


def randomise_statistics(model: keras.Model, seed: int = 0) -> None:
    """Give a freshly built model biases and normalisation weights that are not 0 and 1.

    Otherwise cutting the wrong index of a bias or a moving mean would change nothing. The
    moving statistics are those of a random batch, so that the signal does not die in depth, and
    kernels before a ReLU, which lets half of it through, grow by the root of 2 (He et al., 2015).

    Args:
        model: Changed in place.
        seed: Seed of the new values.
    """
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.name
        if name in ("gamma", "scale", "variance", "moving_variance", "alpha"):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif name in ("beta", "bias", "mean", "moving_mean"):
            weight.assign(generator.normal(0.0, 0.1, weight.shape))
    for layer in flattened_layers(model):
        if getattr(layer, "activation", None) is keras.activations.relu and layer.built:
            kernel = getattr(layer, "kernel", None)
            if isinstance(kernel, keras.Variable):
                kernel.assign(kernel * 2**0.5)
    use_assigned_statistics(model)
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


def run(model: keras.Model, batch: Any) -> list[np.ndarray]:
    """The outputs of a model, flat, as floats."""
    outputs = model(batch, training=False)
    return [to_floats(output) for output in tree.flatten(outputs)]
