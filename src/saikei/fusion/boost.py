"""`Boost`: members trained in series, each on what those before it get wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import keras
import numpy as np

from saikei.data import arrays
from saikei.errors import FusionError
from saikei.fusion.base import Fusion
from saikei.fusion.boosting.rounds import Labelled, Rounds, Settings
from saikei.fusion.logits import last_activation
from saikei.fusion.members import check_members, new_inputs
from saikei.graph import read
from saikei.training.outputs import read_outputs
from saikei.training.task import flat_labels, infer_tasks


@dataclass(frozen=True)
class BoostFit:
    """A boosted model and how it came about.

    Args:
        model: the fused model.
        steps: by what the outputs of each round are multiplied; 1 for a first member that is
            kept as it is.
        losses: the training loss after each round, log-loss or squared error.
        validation_losses: likewise on validation data; empty without any.
    """

    model: keras.Model
    steps: tuple[float, ...]
    losses: tuple[float, ...]
    validation_losses: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; without the model."""
        return {
            "steps": list(self.steps),
            "losses": list(self.losses),
            "validation_losses": list(self.validation_losses),
        }


@dataclass(frozen=True)
class Boost(Fusion):
    """Members in series, each trained on what the sum of those before it gets wrong.

    Forward stagewise fitting (Friedman, "Greedy Function Approximation", 2001): with F what the
    sum says so far, before softmax or sigmoid, the next member h is trained to lower the loss of
    F + h, which for regression is to fit the residuals. Then F + ν·γ·h takes the place of F, with
    γ the best step along h, so the training loss never goes up.

    Args:
        rounds: how many members are summed up; `None` for as many as are given. When it is more,
            their architectures take turns.
        keep_first: whether the first member stays as it is, as when it is trained already;
            otherwise it starts anew like the others.
        shrinkage: ν, above 0 and at most 1.
        epochs: passes over the data, for each member.
        batch_size: samples a step.
        learning_rate: at its peak.
        seed: of the new weights, the order of samples and random layers.

    Example:
        >>> Boost(rounds=5, shrinkage=0.5).to_dict()["rounds"]
        5
    """

    rounds: int | None = None
    keep_first: bool = True
    shrinkage: float = 1.0
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds is not None and self.rounds < 2:
            raise FusionError(f"Boost(rounds={self.rounds}): a series has at least two members.")
        if not 0 < self.shrinkage <= 1:
            raise FusionError(
                f"Boost(shrinkage={self.shrinkage}): use a number above 0 and at most 1."
            )

    def __call__(self, members: Sequence[keras.Model], data: Any = None) -> keras.Model:
        """Train the series.

        Args:
            members: built models with the same inputs and the same single output; one is enough
                with `rounds`. They are copied, never changed; all but a kept first one give only
                their architecture.
            data: training data, `(x, y)` arrays or a dataset, which is read into memory.

        Returns:
            An uncompiled model of plain Keras layers: the weighted sum of the members.

        Raises:
            FusionError: when the members cannot be summed, there is no data, or the first
                member that is trained makes nothing better.
            DataError: when the data does not fit the members.
        """
        return self.fit(members, data).model

    def fit(self, members: Sequence[keras.Model], data: Any, validation: Any = None) -> BoostFit:
        """Train the series and say how.

        Args:
            members: as for a call.
            data: as for a call.
            validation: likewise; with it the series ends before the first member that makes the
                validation loss no better, and otherwise before one that makes the training loss
                no better.
        """
        architectures = self._architectures(members)
        if data is None:
            raise FusionError("Boost needs training data: call it with (members, (x, y)).")
        first = members[0]
        activation = last_activation(first, "Boost")
        train = _labelled(first, data, "train")
        held = None if validation is None else _labelled(first, validation, "validation")
        settings = Settings(
            activation, self.epochs, self.batch_size, self.learning_rate, self.shrinkage
        )
        rounds = Rounds(read(first), settings, train, held)
        seeds = np.random.SeedSequence(self.seed).generate_state(len(architectures)) >> 1
        for number, (model, seed) in enumerate(zip(architectures, seeds, strict=True)):
            if number == 0 and self.keep_first:
                rounds.keep(model)
            elif not rounds.add(model, int(seed)):
                break
        if len(rounds.parts) < 2:
            raise FusionError(
                "Boost: no member makes the loss any lower than the first alone: train them for "
                "longer, or ship the first."
            )
        return BoostFit(
            _summed(first, rounds, activation),
            tuple(part.step for part in rounds.parts),
            tuple(part.loss for part in rounds.parts),
            tuple(p.validation_loss for p in rounds.parts if p.validation_loss is not None),
        )

    def _architectures(self, members: Sequence[keras.Model]) -> list[keras.Model]:
        several = not isinstance(members, keras.Model) and len(members) != 1
        if several or self.rounds is None:
            check_members(members)
        return list(islice(cycle(members), self.rounds or len(members)))

    def to_dict(self) -> dict[str, Any]:
        """The arguments, JSON-ready."""
        return {
            "rounds": self.rounds,
            "keep_first": self.keep_first,
            "shrinkage": self.shrinkage,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Boost:
        """The inverse of `to_dict`."""
        return cls(**record)


def _labelled(model: keras.Model, data: Any, name: str) -> Labelled:
    x, y = arrays(data, name)
    (task,) = infer_tasks(model, y)
    return Labelled(x, flat_labels(model, y)[0], task)


def _summed(first: keras.Model, rounds: Rounds, activation: str) -> keras.Model:
    inputs = new_inputs(read(first))
    terms = []
    for number, part in enumerate(rounds.parts, start=1):
        (term,) = keras.tree.flatten(part.model(inputs))
        if part.step != 1.0:
            term = keras.layers.Rescaling(part.step, name=f"step_{number}")(term)
        terms.append(term)
    output = keras.layers.Add(name="sum")(terms)
    if activation != "linear":
        output = keras.layers.Activation(activation, name=activation)(output)
    return keras.Model(inputs, read_outputs(first).pack([output]), name="boost")
