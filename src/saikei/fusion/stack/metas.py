"""Fitted meta-learners: functions of arrays, and layers that compute the same in a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np

from saikei.batches import Array
from saikei.fusion.base import GraphHead
from saikei.fusion.evidence import MemberOutputs
from saikei.fusion.members import numbered_name
from saikei.fusion.stack.columns import View, concatenated
from saikei.fusion.stack.linear import LinearMap
from saikei.graph import copy_model
from saikei.scoring.links import link_of, probabilities_of
from saikei.tensors import to_floats


class Meta(Protocol):
    """A fitted meta-learner, which computes one output."""

    @property
    def view(self) -> View:
        """The columns that it reads."""
        ...

    def predict(self, predictions: MemberOutputs) -> Array:
        """One output, `(n, outputs)`."""
        ...

    def connect(self, predictions: MemberOutputs, name: str) -> Any:
        """The output in a graph."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """What was fitted, JSON-ready."""
        ...


@dataclass(frozen=True, eq=False)
class LinearMeta:
    """A linear meta-learner: one `Dense` layer over the members' outputs.

    Args:
        view: The columns that it reads.
        linear: The linear map, with all standardisation folded in.
        chosen: What was chosen, such as the regularisation.
        losses: The out-of-fold loss of everything that was tried.
    """

    view: View
    linear: LinearMap
    chosen: Mapping[str, Any]
    losses: Mapping[str, Any] = field(repr=False)

    def predict(self, predictions: MemberOutputs) -> Array:
        """Probabilities; logits where the members give logits; numbers in regression."""
        scores = self.linear(self.view.matrix(predictions))
        if self.view.task.from_logits:
            return scores
        return probabilities_of(scores, link_of(self.view.task.kind))

    def connect(self, predictions: MemberOutputs, name: str) -> Any:
        """The output in a graph."""
        columns = concatenated(self.view.tensors(predictions), f"{name}_columns")
        task = self.view.task
        dense = keras.layers.Dense(
            self.linear.kernel.shape[1],
            activation=None if task.from_logits else link_of(task.kind),
            dtype="float32",
            name=name,
        )
        output = dense(columns)
        dense.set_weights([np.float32(self.linear.kernel), np.float32(self.linear.bias)])
        return output

    def to_dict(self) -> dict[str, Any]:
        """What was fitted, JSON-ready."""
        return {
            "form": self.view.form,
            **self.chosen,
            "kernel": self.linear.kernel.tolist(),
            "bias": self.linear.bias.tolist(),
            "losses": dict(self.losses),
        }


@dataclass(frozen=True, eq=False)
class KerasMeta:
    """A Keras model as meta-learner.

    Args:
        view: The columns that it reads.
        model: The model that computes the output from unscaled columns.
        losses: The held-out loss of every form that was tried.
    """

    view: View
    model: keras.Model
    losses: Mapping[str, Any] = field(repr=False)

    def predict(self, predictions: MemberOutputs) -> Array:
        """The output of the model, `(n, outputs)`."""
        x = self.view.matrix(predictions).astype(np.float32)
        return to_floats(self.model(x, training=False))

    def connect(self, predictions: MemberOutputs, name: str) -> Any:
        """A copy of the model, in a graph."""
        columns = concatenated(self.view.tensors(predictions), f"{name}_columns")
        return copy_model(self.model, name)(columns)

    def to_dict(self) -> dict[str, Any]:
        """What was chosen, JSON-ready; the weights are in the fused model."""
        return {
            "form": self.view.form,
            "params": int(self.model.count_params()),
            "losses": dict(self.losses),
        }


@dataclass(frozen=True, eq=False)
class StackHead:
    """A fitted stack.

    Args:
        metas: One meta-learner for each output.
        below: Fitted fusions whose outputs the meta-learners read; empty where they read the
            members' outputs.
    """

    metas: tuple[Meta, ...]
    below: tuple[GraphHead, ...] = ()

    def predict(self, predictions: MemberOutputs) -> tuple[Array, ...]:
        """One array for each output."""
        seen = MemberOutputs(
            tuple(one.predict(predictions) for one in self.below), (), predictions.raw
        )
        return tuple(meta.predict(seen if self.below else predictions) for meta in self.metas)

    def connect(self, predictions: MemberOutputs, name: str = "stack") -> tuple[Any, ...]:
        """The output in a graph."""
        seen = predictions
        if self.below:
            numbered = enumerate(self.below, start=1)
            lower = tuple(one.connect(predictions, f"{name}_{number}") for number, one in numbered)
            seen = MemberOutputs(lower, (), predictions.raw)
        return tuple(
            meta.connect(seen, numbered_name(name, index, len(self.metas)))
            for index, meta in enumerate(self.metas)
        )

    @property
    def summary(self) -> str:
        """Empty: the weights of a meta-learner are too many to read."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """What was fitted, JSON-ready."""
        return {
            "outputs": [meta.to_dict() for meta in self.metas],
            "below": [one.to_dict() for one in self.below],
        }


def best_of(metas: Sequence[tuple[float, Any]]) -> Any:
    """The second entry of the pair with the lowest loss; of equals the first."""
    return min(metas, key=lambda pair: pair[0])[1]
