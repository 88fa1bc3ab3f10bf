"""Saikei's errors repeat the messages of other libraries on one line, as plain text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import pytest
from keras import layers

from saikei.errors import ModelError, in_one_line
from saikei.graph import build, read


class Fussy(layers.Layer):
    """Takes an even number of channels."""

    def call(self, inputs: Any) -> Any:
        if inputs.shape[-1] % 2:
            raise ValueError(f"{inputs.shape[-1]} channels\nare odd.")
        return inputs


def test_what_keras_prints_around_an_error_of_a_call_is_left_out() -> None:
    with pytest.raises(ValueError, match="odd") as caught:
        keras.Sequential([keras.Input((4, 3)), keras.Sequential([Fussy()])])
    assert "\x1b" in str(caught.value)
    assert in_one_line(caught.value).endswith("3 channels are odd")
    assert "\x1b" not in in_one_line(caught.value)
    assert "Arguments received" not in in_one_line(caught.value)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("units"), "'units'"),
        (ValueError("One.\n  Two."), "One. Two"),
        (ValueError("\x1b[31mred\x1b[0m and not"), "red and not"),
        (ValueError("\x1b[1m\x1b[0m"), "ValueError"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError("word " * 1000), "word " * 59 + "word"),
    ],
)
def test_errors_become_a_part_of_a_sentence(error: Exception, text: str) -> None:
    assert in_one_line(error) == text


def test_a_layer_that_cannot_be_called_again_gives_the_reason_in_plain_text() -> None:
    tensor = keras.Input((8,))
    x = layers.Dense(4, name="wide")(tensor)
    graph = read(keras.Model(tensor, layers.Reshape((2, 2), name="square")(x)))
    wide = graph.operations["wide"]
    weights = {key: w.with_array(w.numpy()[..., :3]) for key, w in wide.weights.items()}
    narrow = replace(wide, config={**wide.config, "units": 3}, weights=weights)
    with pytest.raises(ModelError, match=r"'square'.*: .*size.* Exclude it") as caught:
        build(graph.with_operations({"wide": narrow}))
    assert "\x1b" in str(caught.value.__cause__)
    assert str(caught.value).isprintable()
