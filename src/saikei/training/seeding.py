"""What a model draws at random while it trains, drawn from a seed of ours."""

from __future__ import annotations

import keras
import numpy as np


def seed_random_layers(model: keras.Model, seed: int) -> None:
    """Set the state of every random layer (dropout, noise, augmentation) from one seed.

    Keras keeps that state in variables of the model that are not weights, and it moves on with
    every training step; without this a second training of equal weights would differ.

    Args:
        model: the model that is about to be trained.
        seed: the seed; each random layer gets its own stream of it.
    """
    weights = {id(variable) for variable in model.weights}
    states = [
        variable
        for variable in model.variables
        if id(variable) not in weights and variable.path.endswith("seed_generator_state")
    ]
    streams = np.random.SeedSequence(seed).generate_state(len(states) or 1)
    for variable, stream in zip(states, streams, strict=False):
        variable.assign(np.array([stream, 0], dtype="uint32"))
