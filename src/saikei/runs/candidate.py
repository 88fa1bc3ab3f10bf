"""`Candidate`: one model of a run with its scores, costs and training, as a frozen value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from saikei.budget import LIMITS
from saikei.codec import Logged
from saikei.scoring.score import Score

Kind = Literal["original", "given", "kept", "fresh", "fused", "quantized"]

# How each kind reads in a sentence or a legend.
KINDS: Mapping[Kind, str] = {
    "original": "original",
    "given": "original that fits",
    "kept": "kept weights",
    "fresh": "fresh weights",
    "fused": "fused",
    "quantized": "int8",
}
ORIGINALS = ("original", "given")
COST_AXES = LIMITS


@dataclass(frozen=True)
class Cost:
    """What a model costs at inference.

    Args:
        params: Number of parameters.
        macs: Multiply-accumulates per sample.
        bytes: Size of the weights in the saved file, in bytes.
        memory: Peak of the bytes of live activations, per sample.
        latency: Median milliseconds of one batch; `None` if it was not measured.
        batch_size: Samples in the batch that was timed.
        mean_macs: Mean MACs per sample of a cascade, whose `macs` are those of all its members;
            `None` for other models, and if it is unknown how many samples each member gets.
        mean_latency: Mean milliseconds of one batch of a cascade; `None` as for `mean_macs`.
    """

    params: int
    macs: int
    bytes: int
    memory: int
    latency: float | None
    batch_size: int
    mean_macs: float | None = None
    mean_latency: float | None = None

    def on(self, axis: str) -> float:
        """One of the costs as a number.

        Args:
            axis: One of `COST_AXES`; the latency must have been measured.
        """
        value = getattr(self, axis)
        assert value is not None, f"{axis} was not measured"
        return float(value)


@dataclass(frozen=True)
class LayerChange:
    """Number of output channels of a layer, before and after.

    Args:
        name: Name of the layer.
        kind: Kind of the layer, such as `"Conv2D"`.
        before: Channels in the original.
        after: Channels in the candidate.
        pinned: Why they could not be cut; `None` if they could.
    """

    name: str
    kind: str
    before: int
    after: int
    pinned: str | None


@dataclass(frozen=True)
class Training:
    """How a candidate was trained.

    Args:
        teacher: Name of the teacher; `None` if the candidate was trained on labels alone.
        epochs: Number of epochs that were run.
        total: Number of epochs that the learning rate's schedule was for.
        learning_rate: The constant learning rate before it falls.
        temperature: Temperature of the distillation; `None` without a teacher.
        alpha: Weight of the true labels in the loss; 1 without a teacher.
        seconds: Duration of the training.
        curves: For each logged quantity, its value after each epoch.
    """

    teacher: str | None
    epochs: int
    total: int
    learning_rate: float
    temperature: float | None
    alpha: float
    seconds: float
    curves: Mapping[str, tuple[Logged, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """One model that was considered.

    Args:
        name: Unique in the run; also the name of its folder.
        kind: Where its weights come from.
        family: How its structure was found, such as `"knapsack"` or `"uniform"`; for a fused
            model the fusion, such as `"average"` or `"cascade"`; for an int8 version the name of
            what was quantized.
        parent: Name of the original that it was cut from; `None` for originals and fused models.
        plan: What was asked for, JSON-ready: enough to make it again.
        recipe: The edits that make its structure from the parent, JSON-ready; `None` for
            originals, for the structure of the parent itself, and for fused models.
        members: Names of the members of a fused model; empty for other kinds.
        weights: One weight for each member of an average; empty for other kinds.
        fits: Whether it keeps the budget.
        cost: Costs of the model as it is saved.
        before: Score on validation before training; `None` if nothing was trained.
        validation: Score on validation; out of fold if weights were fitted there.
        training: How it was trained; `None` if it was not.
        layers: Its channels, layer by layer, compared to the parent's.
    """

    name: str
    kind: Kind
    family: str
    parent: str | None
    plan: Mapping[str, Any]
    recipe: Mapping[str, Any] | None
    members: tuple[str, ...]
    weights: tuple[float, ...]
    fits: bool
    cost: Cost
    before: Score | None
    validation: Score
    training: Training | None
    layers: tuple[LayerChange, ...]

    @property
    def unimproved(self) -> bool:
        """Whether no epoch of its training was better, so that the weights stayed as cut."""
        carried_over = self.training is not None and self.kind != "fresh"
        return carried_over and self.before == self.validation

    def faults(self, names: set[str], axis: str) -> Iterator[str]:
        """What no run would have written, one clause for each fault.

        Args:
            names: Names of all candidates of the run.
            axis: The cost that the run's front compares.
        """
        yield from self._faults_of_cost(axis)
        yield from self._faults_of_members(names)
        if self.parent is None and self.kind in ("kept", "fresh"):
            yield "there is no parent"
        if self.parent is not None and self.parent not in names - {self.name}:
            yield f"the parent is {self.parent!r}, which is no candidate"
        if self.parent is not None and not isinstance(self.plan.get("seed"), int):
            yield "the plan has no seed"
        training = self.training
        if training is not None and training.teacher is not None and training.temperature is None:
            yield "there is a teacher but no temperature"
        for layer in self.layers:
            if layer.before < 1 or layer.after < 0:
                yield f"the channels of layer {layer.name!r} are {layer.before} and {layer.after}"

    def _faults_of_members(self, names: set[str]) -> Iterator[str]:
        if self.kind == "fused" and not self.members:
            yield "there are no members"
        if self.weights and len(self.members) != len(self.weights):
            yield f"there are {len(self.weights)} weights for {len(self.members)} members"
        for member in self.members:
            if member not in names - {self.name}:
                yield f"there is no member {member!r}"

    def _faults_of_cost(self, axis: str) -> Iterator[str]:
        cost = self.cost
        sizes = (
            *(cost.params, cost.macs, cost.bytes, cost.memory),
            *(cost.latency or 0, cost.mean_macs or 0, cost.mean_latency or 0),
        )
        if min(sizes) < 0:
            yield f"a cost is {min(sizes)}"
        if axis == "latency" and cost.latency is None:
            yield "the latency was not measured"
