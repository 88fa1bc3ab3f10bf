"""`Boost`: members trained one after the other, each on the errors of those before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import keras
import numpy as np

from saikei.batches import ArrayData
from saikei.data import gathered
from saikei.errors import FusionError
from saikei.for_each_output import flat_weights
from saikei.fusion.base import DataNeed, Fitted, TrainedFusion, listed, only_models
from saikei.fusion.boost.adaboost import AdaBoostRounds
from saikei.fusion.boost.gradient import GradientRounds
from saikei.fusion.boost.series import TrainingData, TrainingSettings, sum_model, vote_term
from saikei.fusion.logits import last_activation
from saikei.fusion.members import AnyMembers, Members
from saikei.graph import Graph
from saikei.limits import BAGS, EPOCHS, check_rate, check_seed, check_whole, is_number
from saikei.scoring.inference import flat_labels
from saikei.scoring.observed import observe

METHODS = ("gradient", "samme")


@dataclass(frozen=True, eq=False)
class BoostFit(Fitted):
    """A boosted model and how it came about.

    Args:
        model: The fused model.
        steps: The factor of each member's output, 1 for a first member that is kept as it is; of
            SAMME the weights α of the members' votes.
        losses: The training loss after each round: log-loss (nats), squared error, or AdaBoost's
            exponential loss.
        validation_losses: The same on validation data; empty without any.
        errors: The share of the weighted rows that each member gets wrong; empty for gradient
            boosting.
        ended: Why there are fewer members than rounds; `None` when there are not.
    """

    steps: tuple[float, ...]
    losses: tuple[float, ...]
    validation_losses: tuple[float, ...]
    errors: tuple[float, ...] = ()
    ended: str | None = None

    @property
    def summary(self) -> str:
        """The steps, or the weights of the votes."""
        return f"steps {listed(self.steps)}"


@dataclass(frozen=True)
class Boost(TrainedFusion):
    """Members in series, each trained on the errors of the sum of those before it.

    Forward stagewise fitting (Friedman, "Greedy Function Approximation", 2001): with F the sum so
    far, before softmax or sigmoid, the next member h is trained to lower the loss of F + h, which
    for regression is to fit the residuals. Then F + ν·γ·h replaces F, with γ the best step along
    h, so the training loss never goes up.

    For classes there is AdaBoost too (SAMME; Zhu et al., "Multi-class AdaBoost", 2009): each member
    is trained with larger weights on the rows that the earlier ones get wrong, and votes for one
    class with a weight α computed from its errors. The series ends at a member that is no better
    than chance, that does not lower the exponential loss, or that makes no errors. The members'
    last layers need not be the same; the fused model's probabilities are AdaBoost's own, which are
    overconfident.

    Args:
        rounds: How many members are summed up; `None` for as many as are given. When it is more,
            their architectures take turns.
        keep_first: Whether the first member is used as it is, for one that is trained already;
            otherwise it is trained from new weights like the others.
        shrinkage: ν, above 0 and at most 1.
        epochs: Passes over the data, for each member.
        batch_size: Samples a step.
        learning_rate: Peak of the learning rate.
        seed: Seed of the new weights, of the order of samples and of random layers.
        method: `"gradient"` or `"samme"`.

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
    method: str = "gradient"

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        if self.method not in METHODS:
            raise FusionError(
                f"Boost(method={self.method!r}): give one of {', '.join(map(repr, METHODS))}."
            )
        if self.rounds is not None:
            # A series has at least two members.
            check_whole("Boost: rounds", self.rounds, 2, BAGS)
        check_whole("Boost: epochs", self.epochs, 1, EPOCHS)
        check_rate("Boost: learning_rate", self.learning_rate)
        check_seed(self.seed)
        if not (is_number(self.shrinkage) and 0 < self.shrinkage <= 1):
            raise FusionError(
                f"Boost(shrinkage={self.shrinkage!r}): use a number above 0 and at most 1."
            )

    @property
    def data(self) -> DataNeed:
        """Data to train on."""
        return "training"

    def fuse(
        self,
        members: AnyMembers,
        data: Any = None,
        validation: Any = None,
        *,
        allow_in_sample: bool = False,  # noqa: ARG002 - members are trained on these rows
    ) -> BoostFit:
        """Train the series, and report how.

        Args:
            members: Built models with the same inputs and the same single output; one is enough
                with `rounds`. They are copied, never changed; of all but a kept first one only
                the architecture is used.
            data: Training data, `(x, y)` or `(x, y, sample_weight)` arrays, or a dataset, which is
                read into memory.
            validation: Data of the same form; with it the series ends before the first member that
                does not lower the validation loss, and otherwise before one that does not lower the
                training loss.
            allow_in_sample: Has no effect, since members are trained on the data.

        Returns:
            A model of plain Keras layers, the weighted sum of the members, and how it
            was trained.

        Raises:
            FusionError: When the members cannot be summed, there is no data, or the first
                member that is trained lowers no loss; with AdaBoost also when the output
                is not of classes, or a first member that is kept is no better than chance.
            DataError: When the data does not fit the members.
        """
        given = only_models(self, members)
        architectures = self._architectures(given)
        if data is None:
            raise FusionError("Boost needs training data: call it with (members, (x, y)).")
        activation = last_activation(given, "Boost")
        train = _training_data(given, data, "train")
        held = None if validation is None else _training_data(given, validation, "validation")
        settings = TrainingSettings(
            activation, self.epochs, self.batch_size, self.learning_rate, self.shrinkage
        )
        rounds: GradientRounds | AdaBoostRounds
        if self.method == "gradient":
            rounds = GradientRounds(given.graphs[0], settings, train, held)
            term = None
        else:
            rounds = AdaBoostRounds(settings, train, held)
            term = vote_term(train.task)
        self._run(rounds, architectures)
        return _fitted(sum_model(given, rounds.parts, activation, term), rounds)

    def _run(self, rounds: GradientRounds | AdaBoostRounds, architectures: Sequence[Graph]) -> None:
        seeds = np.random.SeedSequence(self.seed).generate_state(len(architectures)) >> 1
        for number, (model, seed) in enumerate(zip(architectures, seeds, strict=True)):
            if number == 0 and self.keep_first:
                rounds.keep(model)
            elif not rounds.add(model, int(seed)):
                break
        if len(rounds.parts) < 2:
            raise FusionError(
                f"Boost: {rounds.ended}, so there is no series: train members for longer, or ship "
                "the first."
            )

    def _architectures(self, members: Members) -> list[Graph]:
        if len(members) != 1 or self.rounds is None:
            members.check_alike()
        return list(islice(cycle(members.graphs), self.rounds or len(members)))


def _fitted(model: keras.Model, rounds: GradientRounds | AdaBoostRounds) -> BoostFit:
    parts = rounds.parts
    return BoostFit(
        model,
        tuple(part.step for part in parts),
        tuple(part.loss for part in parts),
        tuple(part.validation_loss for part in parts if part.validation_loss is not None),
        tuple(part.error for part in parts if part.error is not None),
        rounds.ended,
    )


def _training_data(members: Members, data: Any, name: str) -> TrainingData:
    arrays = gathered(data, name)
    model, outputs = members.models[0], members.outputs[0]
    labelled, _ = observe(model, arrays.parts, outputs=outputs)
    (y,), (weights,) = flat_labels(model, arrays.y, outputs), flat_weights(arrays.weights, 1)
    return TrainingData(ArrayData(arrays.x, y, weights), labelled)
