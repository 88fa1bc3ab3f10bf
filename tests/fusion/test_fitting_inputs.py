"""Where members take other inputs, the code of the message makes them fit."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.errors import FusionError

L = keras.layers


def member(shape: tuple[int | None, ...], dtype: str = "float32") -> keras.Model:
    tensor = keras.Input(shape, dtype=dtype)
    x = L.Embedding(300, 3)(tensor) if dtype == "int32" else L.Rescaling(1.0)(tensor)
    while len(x.shape) > 2:
        x = keras.ops.mean(x, axis=1)
    return keras.Model(tensor, L.Dense(2, "softmax")(x))


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (((9, 8, 3),), ((6, 7, 3),)),
        (((8, 9, 3),), ((9, 8, 3),)),
        (((3, 9, 8),), ((9, 8, 3),)),
        (((9, 8, 3),), ((3, 9, 8),)),
        (((9, 8, 1),), ((72,),)),
        (((72,),), ((9, 8, 1),)),
        (((9, 8),), ((9, 8, 1),)),
        (((9, 8, 3),), ((None, None, 3),)),
        (((None, None, 3),), ((9, 8, 3),)),
        (((6,), "int32"), ((6,), "float32")),
        (((6,), "float32"), ((6,), "int32")),
        (((9, 8, 3), "uint8"), ((6, 7, 3), "float32")),
        (((9, 8, 3), "float32"), ((6, 7, 3), "uint8")),
        (((6,), "float32"), ((6,), "float16")),
    ],
)
def test_the_code_of_the_message_makes_members_fit(first: Any, second: Any) -> None:
    ours, theirs = member(*first), member(*second)
    with pytest.raises(FusionError) as refused:
        sk.Average()([ours, theirs])
    code = re.search(r"(x = keras.Input.*\)\))\.$", str(refused.value))
    assert code is not None, refused.value
    scope: dict[str, Any] = {"keras": keras, "member": theirs}
    exec(code[1], scope)
    fused = sk.Average()([ours, scope["member"]])
    x = np.ones((2, *(size or 5 for size in first[0])), ours.inputs[0].dtype)
    expected = (ours.predict_on_batch(x) + scope["member"].predict_on_batch(x)) / 2
    np.testing.assert_allclose(fused.predict_on_batch(x), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("first", "second"), [((5,), (6,)), ((9, 8, 3), (9, 8, 1)), ((9, 8), (8, 9)), ((9, 8), (7, 8))]
)
def test_where_no_layer_leads_from_one_to_the_other_none_is_offered(
    first: Any, second: Any
) -> None:
    with pytest.raises(FusionError, match="No layer of Keras makes one of the other") as refused:
        sk.Average()([member(first), member(second)])
    assert "Reshape" not in str(refused.value)


def test_of_several_inputs_the_one_that_differs_is_named() -> None:
    def two(size: int) -> keras.Model:
        picture = keras.Input((size, size, 1), name="picture")
        age = keras.Input((1,), name="age")
        x = L.Concatenate()([L.GlobalAveragePooling2D()(picture), age])
        return keras.Model({"picture": picture, "age": age}, L.Dense(2)(x))

    with pytest.raises(FusionError, match=r"as 'picture'.*keras.layers.Resizing\(4, 4\)"):
        sk.Average()([two(6), two(4)])
