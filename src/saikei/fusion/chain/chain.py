"""`Chain`: serial fusion, in which each member reads the output of the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import keras
from keras import tree

from saikei.errors import FusionError
from saikei.fusion.base import DataNeed, Fitted, TrainedFusion, listed, only_models
from saikei.fusion.chain.adapters import Adapter, adapter_layers
from saikei.fusion.members import AnyMembers, Members, new_inputs
from saikei.graph import Graph, TensorSpec, build
from saikei.graph.instantiate import seeded
from saikei.graph.internals import flattened_layers
from saikei.limits import EPOCHS, check_rate, check_seed, check_whole
from saikei.training import fit

Training = Literal["joint", "stages", "later"] | None


@dataclass(frozen=True, eq=False)
class ChainFit(Fitted):
    """A chain and how it came about.

    Args:
        model: The fused model.
        adapters: The layers between the members, one entry for each pair of neighbours.
        losses: The training loss at the end of each stage: one for `"joint"`, one for each
            member for `"stages"`, none without training.
    """

    adapters: tuple[Adapter, ...]
    losses: tuple[float, ...]

    @property
    def summary(self) -> str:
        """The training losses; empty without training."""
        return f"losses {listed(self.losses)}" if self.losses else ""


@dataclass(frozen=True)
class Chain(TrainedFusion):
    """The composition of the members, `yₙ ∘ … ∘ y₂ ∘ y₁`: data passes through them in order.

    Where the output of a member has another shape than the input of the next, an adapter of new
    layers is put between them; `plan` lists them. New layers are untrained, so a chain that has any
    has to be trained: all of it together, or stage by stage, which trains each member with the
    adapter before it in turn, from the first to the last, while the others are frozen.

    Args:
        training: `"joint"` or `"stages"`; `None` where no adapter is needed, or `"later"` to train
            them yourself.
        epochs: Passes over the data, in each stage.
        batch_size: Samples a step, for arrays.
        learning_rate: Peak of the learning rate.
        seed: Seed of new weights, of the order of samples and of random layers.

    Example:
        >>> Chain(training="stages", epochs=3).to_dict()["training"]
        'stages'
    """

    training: Training = None
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        check_whole("Chain: epochs", self.epochs, 1, EPOCHS)
        check_rate("Chain: learning_rate", self.learning_rate)
        check_seed(self.seed)
        if self.training not in (None, "joint", "stages", "later"):
            raise FusionError(
                f"Chain(training={self.training!r}) is unknown: use 'joint', 'stages', 'later' or "
                "None."
            )

    @property
    def data(self) -> DataNeed:
        """Data to train on, where it trains."""
        return "training" if self.training in ("joint", "stages") else "none"

    def fuse(
        self,
        members: AnyMembers,
        data: Any = None,
        validation: Any = None,
        *,
        allow_in_sample: bool = False,  # noqa: ARG002 - members are trained on these rows
    ) -> ChainFit:
        """Compose the members, train them where that is asked, and report how.

        Args:
            members: Two or more built models; all but the first take one tensor, and all but
                the last give one. They are copied, never changed.
            data: Training data, `(x, y)` arrays or a dataset: inputs of the first member and
                labels of the last. Only where `training` needs it.
            validation: Data of the same form; with it each stage ends with the weights of its best
                epoch.
            allow_in_sample: Has no effect, since members are trained on the data.

        Returns:
            A model of plain Keras layers, compiled when it was trained, and how it was trained.

        Raises:
            FusionError: When a member has several inputs or outputs inside the chain, no adapter is
                possible, or there is no data to train on.
            DataError: When the data does not fit.
        """
        given = only_models(self, members)
        graphs = _checked(given)
        if self.data == "training" and data is None:
            raise FusionError(
                f"Chain(training='{self.training}') needs training data: call it with (members, "
                "(x, y))."
            )
        with seeded(self.seed):
            model, adapters, stages = _compose(graphs)
        self._check_trained(adapters)
        losses = tuple(
            self._train(model, trained, stages, data, validation)
            for trained in self._schedule(stages)
        )
        return ChainFit(model, adapters, losses)

    def _check_trained(self, adapters: Sequence[Adapter]) -> None:
        new = [adapter for adapter in adapters if adapter.layers]
        if self.training is None and new:
            raise FusionError(
                f"The members do not fit together without new layers ({new[0]}), which are "
                "untrained: use Chain(training='joint') or 'stages' with training data, or "
                "'later' to train the result yourself."
            )

    @staticmethod
    def plan(members: AnyMembers) -> tuple[Adapter, ...]:
        """The adapters between the members, without building anything.

        Args:
            members: The models to chain, in order; see `fuse`.
        """
        graphs = _checked(Members.of(members))
        return tuple(
            _adapter(number, given, taken, adapter_layers(given, taken, number))
            for number, (given, taken) in enumerate(_gaps(graphs), start=2)
        )

    def _schedule(self, stages: list[list[keras.Layer]]) -> list[list[list[keras.Layer]]]:
        if self.data == "none":
            return []
        return [stages] if self.training == "joint" else [[stage] for stage in stages]

    def _train(
        self,
        model: keras.Model,
        trained: list[list[keras.Layer]],
        stages: list[list[keras.Layer]],
        data: Any,
        validation: Any,
    ) -> float:
        chosen = {id(layer) for stage in trained for layer in stage}
        frozen_stages = [layer for stage in stages for layer in stage if id(layer) not in chosen]
        frozen = [part for layer in frozen_stages for part in flattened_layers(layer)]
        before = [part.trainable for part in frozen]
        for layer in frozen_stages:
            layer.trainable = False
        try:
            history = fit(
                model,
                data,
                validation,
                epochs=self.epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                seed=self.seed,
                progress=False,
            )
        finally:
            # Setting a layer sets those in it: the outer ones come first.
            for part, trainable in zip(frozen, before, strict=True):
                part.trainable = trainable
        return float(history.history["loss"][-1])


def _checked(members: Members) -> Sequence[Graph]:
    """The members' graphs.

    Raises:
        FusionError: When there are fewer than two, or one has several inputs or outputs inside.
    """
    members.check_several()
    graphs = members.graphs
    last = len(graphs)
    for number, (member, graph) in enumerate(zip(members.models, graphs, strict=True), start=1):
        inputs, outputs = len(graph.input_refs()), len(graph.output_refs())
        if number > 1 and inputs != 1:
            raise FusionError(
                f"Member {number} ('{member.name}') takes {inputs} inputs, but in a chain only the "
                "first member may: put it first, or give it one input."
            )
        if number < last and outputs != 1:
            raise FusionError(
                f"Member {number} ('{member.name}') gives {outputs} outputs, but in a chain only "
                "the last member may: put it last, or give it one output."
            )
    return graphs


def _gaps(graphs: Sequence[Graph]) -> list[tuple[TensorSpec, TensorSpec]]:
    return [
        (one.spec(one.output_refs()[0]), other.spec(other.input_refs()[0]))
        for one, other in pairwise(graphs)
    ]


def _adapter(
    before: int, given: TensorSpec, taken: TensorSpec, layers: Sequence[keras.Layer]
) -> Adapter:
    kinds = tuple(type(layer).__name__ for layer in layers)
    return Adapter(before, given.shape, taken.shape, kinds)


def _compose(
    graphs: Sequence[Graph],
) -> tuple[keras.Model, tuple[Adapter, ...], list[list[keras.Layer]]]:
    inputs = new_inputs(graphs[0])
    copies = [build(graph, f"member_{number}") for number, graph in enumerate(graphs, start=1)]
    outputs, stages, adapters = copies[0](inputs), [[copies[0]]], []
    for number, (given, taken) in enumerate(_gaps(graphs), start=2):
        layers = adapter_layers(given, taken, number)
        adapters.append(_adapter(number, given, taken, layers))
        stages.append([*layers, copies[number - 1]])
        (tensor,) = tree.flatten(outputs)
        for layer in layers:
            tensor = layer(tensor)
        # A member that takes a dictionary or a list gets one.
        outputs = copies[number - 1](tree.pack_sequence_as(graphs[number - 1].inputs, [tensor]))
    return keras.Model(inputs, outputs, name="chain"), tuple(adapters), stages
