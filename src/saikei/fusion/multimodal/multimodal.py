"""`Multimodal`: members with different inputs as one model, also where an input is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import keras
import numpy as np

from saikei.errors import FusionError
from saikei.fusion.average import Average, Weights
from saikei.fusion.average.weighted_mean import WeightedMean
from saikei.fusion.base import DataNeed, Fitted, Fusion, GraphHead, only_models
from saikei.fusion.compact import compacted
from saikei.fusion.evidence import Evidence, MemberOutputs, connect, gather
from saikei.fusion.members import AnyMembers, Members, numbered_name
from saikei.fusion.multimodal.fallback import Fallback, StandIns, mean_of_those_there
from saikei.fusion.multimodal.inputs import by_name, new_availabilities, with_all_inputs
from saikei.fusion.stack import Stack
from saikei.limits import check_seed
from saikei.scoring.score import Score
from saikei.training.provenance import record_rows

On = Literal["outputs", "features"]


@dataclass(frozen=True, eq=False)
class MultimodalFit(Fitted):
    """A multimodal model, and its scores when an input is missing.

    Args:
        model: The fused model.
        fallback: What replaces a member without its inputs.
        score: The score on the data of the fit, with all inputs.
        without: For each input the score when it is missing in all rows.
    """

    fallback: Fallback
    score: Score
    without: Mapping[str, Score]

    @property
    def summary(self) -> str:
        """The scores without each input."""
        each = self.without.items()
        return ", ".join(f"{one.value:.4f} {one.name} without '{name}'" for name, one in each)


@dataclass(frozen=True)
class Multimodal(Fusion):
    """Members with different inputs, such as an image, a table row and a text.

    The model takes a dictionary of all their inputs, those of one name once, and for each of them
    `<name>_available`, `(batch, 1)`: 1 where a row has it, 0 where it has not, and then its values
    do not matter. `saikei.fusion.fill_missing` makes both of the inputs that there are. A member
    of which any input is missing is replaced by the fallback.

    Args:
        on: `"outputs"`: the weighted mean of the members' outputs; `"features"`: one new last
            layer over the features of all, fitted as in `Stack(on="features")`.
        fallback: What replaces a member without its inputs. `"mean"`: its mean output on the data
            of the fit; `"zeros"`: zeros instead of its features, for `"features"` only; `"drop"`:
            the mean of the other members, for `"outputs"` only.
        weights: The weights for `"outputs"`, as in `Average`.
        seed: Seed of the folds that fit the new layer.

    Example:
        >>> Multimodal(on="features", fallback="zeros").to_dict()["fallback"]
        'zeros'
    """

    on: On = "outputs"
    fallback: Fallback = "mean"
    weights: Weights = None
    seed: int = 0

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        check_seed(self.seed)
        for name, value, known in (("on", self.on, On), ("fallback", self.fallback, Fallback)):
            if value not in get_args(known):
                raise FusionError(
                    f"{name}={value!r} is unknown: use one of {', '.join(get_args(known))}."
                )
        misplaced = {"outputs": "zeros", "features": "drop"}[self.on]
        if self.fallback == misplaced:
            raise FusionError(
                f"Multimodal(on='{self.on}', fallback='{misplaced}') would give numbers that mean "
                "nothing: use fallback='mean'."
            )
        if self.on == "features" and self.weights is not None:
            raise FusionError("Multimodal(on='features') has no weights: leave them out.")
        inner = Average(self.weights)
        if inner.per_class:
            raise FusionError("Multimodal has one weight for each member: give no table of them.")
        object.__setattr__(self, "weights", inner.weights)

    @property
    def data(self) -> DataNeed:
        """Held-out data, on which members' means, weights and scores are measured."""
        return "held_out"

    def fuse(
        self, members: AnyMembers, data: Any = None, *, allow_in_sample: bool = False
    ) -> MultimodalFit:
        """Fuse the members, and score the model also for when an input is missing.

        Args:
            members: Two or more built models with the same outputs; they are copied, never
                changed. Their inputs are distinguished by name.
            data: Held-out `(x, y)` or a dataset, with a dictionary of all inputs as x.
            allow_in_sample: Fit even on rows that a member was trained on.

        Raises:
            FusionError: When the members do not fit each other, an input has no name, there is
                no data, or a member was trained on some of it.
            DataError: When the data does not fit the members.
        """
        given = only_models(self, members)
        given.check_several()
        named = by_name(given)
        named.check_alike()
        held = None if data is None else with_all_inputs(named, data)
        inner = self._inner()
        evidence = gather(named, held, allow_in_sample, inner.parts)
        head = inner.fit_head(evidence)
        stand_ins = StandIns.of(self.fallback, evidence.predictions, named.activations)
        model = self._built(named, head, stand_ins)
        record_rows(model, evidence.digests, "Multimodal")
        reads = [list(graph.inputs) for graph in named.graphs]
        without = {
            name: self._scored(evidence, head, stand_ins, [name in one for one in reads])
            for name in dict.fromkeys(name for one in reads for name in one)
        }
        everything = self._scored(evidence, head, stand_ins, [False] * len(named))
        return MultimodalFit(model, self.fallback, everything, without)

    def _inner(self) -> Average | Stack:
        if self.on == "features":
            return Stack(on="features", seed=self.seed)
        return Average(self.weights)

    def _built(self, members: Members, head: GraphHead, stand_ins: StandIns) -> keras.Model:
        inputs, outputs = connect(members, self._inner().parts)
        flags = new_availabilities(inputs)
        there = [_all_of([flags[name] for name in graph.inputs]) for graph in members.graphs]
        if self.fallback == "drop" and isinstance(head, WeightedMean):
            fused = _dropping(outputs, head, stand_ins, there)
        else:
            fused = list(head.connect(stand_ins.connect(outputs, there), "multimodal"))
        packed = members.outputs[0].pack(fused)
        named = {tensor.name: tensor for tensor in flags.values()}
        return members.compile(
            compacted(keras.Model({**inputs, **named}, packed, name="multimodal"))
        )

    def _scored(
        self, evidence: Evidence, head: GraphHead, stand_ins: StandIns, missing: Sequence[bool]
    ) -> Score:
        """The score when the inputs of the marked members are missing."""
        indices = [index for index, gone in enumerate(missing) if gone]
        left = [index for index, gone in enumerate(missing) if not gone]
        if self.fallback == "drop" and left and isinstance(head, WeightedMean):
            total = sum(head.weights[index] for index in left)
            if total > 0:
                kept = MemberOutputs(tuple(evidence.predictions.outputs[index] for index in left))
                weights = tuple(head.weights[index] / total for index in left)
                predicted = WeightedMean(weights).predict(kept)
                return evidence.labelled.score(predicted)
        imputed = stand_ins.without(evidence.predictions, indices)
        return evidence.labelled.score(head.predict(imputed))


def _all_of(flags: Sequence[Any]) -> Any:
    return flags[0] if len(flags) == 1 else keras.layers.Minimum()(flags)


def _dropping(
    outputs: MemberOutputs, head: WeightedMean, stand_ins: StandIns, there: Sequence[Any]
) -> list[Any]:
    count = len(outputs.outputs[0])
    priors = head.predict(MemberOutputs(stand_ins.constants.outputs))
    return [
        mean_of_those_there(
            parts,
            head.weights,
            there,
            np.asarray(priors[index]),
            numbered_name("mean", index, count),
            stand_ins.activations[index],
        )
        for index, parts in enumerate(zip(*outputs.outputs, strict=True))
    ]
