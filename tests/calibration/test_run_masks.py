"""Masks that layers leave on tensors and take off again, in a run call by call."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei.calibration.run import Run
from saikei.graph import TensorRef, read

LAYERS = {
    "attention": lambda x: L.MultiHeadAttention(2, 4)(x, x),
    "dense": lambda x: L.Dense(8)(x),
    "every step": lambda x: L.TimeDistributed(L.Dense(8))(x),
}


def masked_model(layer: str, residual: bool) -> keras.Model:
    """A layer over tokens with padding; what comes after may or may not see the mask."""
    tokens = keras.Input((6,), dtype="int32")
    x = L.Embedding(10, 8, mask_zero=True)(tokens)
    y = LAYERS[layer](x)
    y = L.Add()([x, y]) if residual else y
    return keras.Model(tokens, [L.GlobalAveragePooling1D()(y), L.GlobalAveragePooling1D()(x)])


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("residual", [True, False])
def test_a_run_sees_the_masks_that_the_model_sees(layer: str, residual: bool) -> None:
    keras.utils.set_random_seed(0)
    model = masked_model(layer, residual)
    tokens = np.random.default_rng(0).integers(1, 10, (70, 6)).astype("int32")
    tokens[:, 4:] = 0
    graph = read(model)
    refs = [ref for ref in keras.tree.flatten(graph.outputs) if isinstance(ref, TensorRef)]
    run = Run(graph, tokens, also=refs)
    for index in range(len(graph.calls)):
        run.step(index)
    for ref, theirs in zip(refs, model.predict_on_batch(tokens), strict=True):
        expected = keras.ops.convert_to_numpy(theirs)
        np.testing.assert_allclose(run.value(ref).array, expected, rtol=1e-5, atol=1e-6)
