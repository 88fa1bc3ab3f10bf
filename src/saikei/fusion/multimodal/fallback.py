"""What replaces the outputs of a member where one of its inputs is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import keras
import numpy as np

from saikei.batches import Array
from saikei.fusion.evidence import MemberOutputs
from saikei.fusion.masks import with_mask
from saikei.scoring.links import Link, logits_of
from saikei.tensors import to_floats

Fallback = Literal["mean", "zeros", "drop"]
_PROBABILITIES = ("softmax", "sigmoid")


@dataclass(frozen=True, eq=False)
class StandIns:
    """Constants that replace the outputs and features of members.

    Args:
        constants: One row `(1, …)` of each output and each feature.
        activations: The last activation of each output.
    """

    constants: MemberOutputs
    activations: tuple[str, ...]

    @classmethod
    def of(
        cls, fallback: Fallback, predictions: MemberOutputs, activations: Sequence[str]
    ) -> StandIns:
        """The constants of a fallback."""
        if fallback == "zeros":
            zeros = predictions.map(lambda array: np.zeros((1, *array.shape[1:]), np.float32))
            return cls(zeros, tuple(activations))
        means = predictions.map(lambda array: np.asarray(array.mean(axis=0, keepdims=True)))
        return cls(means, tuple(activations))

    def without(self, predictions: MemberOutputs, missing: Sequence[int]) -> MemberOutputs:
        """The predictions when the inputs of some members are missing."""

        def swapped(real: Any, constant: Any) -> Any:
            return tuple(
                tuple(np.broadcast_to(c, r.shape) if index in missing else r for r, c in pairs)
                for index, pairs in enumerate(
                    zip(one, other, strict=True) for one, other in zip(real, constant, strict=True)
                )
            )

        return replace(
            predictions,
            outputs=swapped(predictions.outputs, self.constants.outputs),
            features=swapped(predictions.features, self.constants.features),
        )

    def connect(self, predictions: MemberOutputs, there: Sequence[Any]) -> MemberOutputs:
        """Put constants in the place of members without their input, in a graph.

        Args:
            predictions: The members' outputs as symbolic tensors.
            there: For each member 1 in rows that have all of its inputs, and 0 in others,
                `(batch, 1)`.
        """

        def chosen(real: Any, constant: Any, kind: str, activations: Sequence[str]) -> Any:
            return tuple(
                tuple(
                    _choose(there[index], r, c, f"member_{index + 1}_without_{kind}_{n}", a)
                    for n, (r, c, a) in enumerate(zip(one, other, activations, strict=True), 1)
                )
                for index, (one, other) in enumerate(zip(real, constant, strict=True))
            )

        linear = ["linear"] * max((len(one) for one in predictions.features), default=0)
        return replace(
            predictions,
            outputs=chosen(predictions.outputs, self.constants.outputs, "output", self.activations),
            features=chosen(predictions.features, self.constants.features, "feature", linear),
        )


def _choose(there: Any, real: Any, constant: Array, name: str, activation: str) -> Any:
    """A member's output where it has its inputs, and the constant elsewhere."""
    stand_in = constant_layer(there, constant, name, activation)
    chosen = keras.ops.where(_spread(there, real) > 0.5, real, stand_in)
    return with_mask(chosen, [real], f"{name}_masked")


def constant_layer(rows: Any, constant: Array, name: str, activation: str = "linear") -> Any:
    """A constant for every row, kept as the bias of a layer.

    Args:
        rows: Any tensor `(batch, 1)`.
        constant: The values, `(1, …)`.
        name: The name of the layer.
        activation: `"softmax"` or `"sigmoid"`, through which probabilities are given, as the
            members do, so that the output is still read as probabilities.
    """
    flat = _before(activation, np.asarray(constant, np.float32)).reshape(-1)
    layer = keras.layers.Dense(len(flat), name=name)
    spread = layer(rows)
    layer.set_weights([np.zeros((1, len(flat)), np.float32), flat])
    shape = constant.shape[1:]
    if len(shape) > 1:
        spread = keras.layers.Reshape(shape, name=f"{name}_shape")(spread)
    if activation not in _PROBABILITIES:
        return spread
    return keras.layers.Activation(activation, name=f"{name}_{activation}")(spread)


def _before(activation: str, constant: Array) -> Array:
    if activation not in _PROBABILITIES:
        return constant
    link: Link = "softmax" if activation == "softmax" else "sigmoid"
    return to_floats(logits_of(constant, link))


def _spread(there: Any, real: Any) -> Any:
    return keras.ops.reshape(there, (-1, *(1,) * (len(real.shape) - 1)))


def mean_of_those_there(
    outputs: Sequence[Any],
    weights: Sequence[float],
    there: Sequence[Any],
    prior: Array,
    name: str,
    activation: str,
) -> Any:
    """The weighted mean of the members that have their inputs; the prior where none has.

    Args:
        outputs: One output of each member.
        weights: One for each member.
        there: Whether each member's input is present; see `StandIns.connect`.
        prior: The output without any member, `(1, …)`.
        name: Begins the names of the layers.
        activation: The last activation of the outputs; the mean of probabilities goes through it
            again, so that it is read as such.
    """
    total: Any = 0.0
    weighted: Any = 0.0
    for output, weight, one in zip(outputs, weights, there, strict=True):
        mask = _spread(one, output) > 0.5
        # Not a product: the placeholder for a missing input may give NaN.
        weighted += weight * keras.ops.where(mask, output, keras.ops.zeros_like(output))
        total += weight * keras.ops.cast(mask, output.dtype)
    stand_in = constant_layer(there[0], prior, f"{name}_without_any")
    weighted = keras.ops.where(total > 0, weighted, stand_in)
    total = keras.ops.where(total > 0, total, keras.ops.ones_like(total))
    mean, masked = weighted / total, f"{name}_masked"
    if activation not in _PROBABILITIES:
        return with_mask(mean, outputs, masked)
    link: Link = "softmax" if activation == "softmax" else "sigmoid"
    logits = with_mask(logits_of(mean, link), outputs, masked)
    return keras.layers.Activation(activation, name=name)(logits)
