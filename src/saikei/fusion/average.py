"""`Average`: one model that says the mean of what its members say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras

from saikei.errors import FusionError
from saikei.fusion.base import Fusion
from saikei.fusion.members import check_members, side_by_side
from saikei.fusion.weights import FittedWeights, fit_weights
from saikei.training.digests import digest_data
from saikei.training.outputs import read_outputs
from saikei.training.predictions import predict
from saikei.training.provenance import check_held_out, record_rows
from saikei.training.task import flat_labels, infer_tasks

Weights = tuple[float, ...] | Literal["learn"] | None
_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Average(Fusion):
    """The mean of the members' outputs, `Σ wᵢ yᵢ` with `wᵢ ≥ 0` and `Σ wᵢ = 1`.

    Members that end in softmax or sigmoid are averaged in probability, members that give logits
    in logits.

    Args:
        weights: `None` for equal ones, one number for each member, or `"learn"` to fit them to
            data that no member was trained on.

    Raises:
        FusionError: when weights are negative or do not sum to 1.

    Example:
        >>> Average(weights=(0.25, 0.75)).to_dict()
        {'weights': [0.25, 0.75]}
    """

    weights: Weights = None

    def __post_init__(self) -> None:
        given: object = self.weights
        if given is None or given == "learn":
            return
        if not isinstance(given, (tuple, list)):
            raise FusionError(
                f"weights={given!r} is unknown: use None, 'learn' or a tuple of numbers."
            )
        object.__setattr__(self, "weights", _checked(tuple(given)))

    def __call__(
        self, members: Sequence[keras.Model], data: Any = None, *, allow_in_sample: bool = False
    ) -> keras.Model:
        """Fuse the members into one model.

        Args:
            members: two or more built models with the same inputs and outputs; they are copied,
                never changed.
            data: held-out `(x, y)` or a dataset, for learned weights only. The fused model counts
                as trained on it.
            allow_in_sample: fit even on rows that a member was trained on.

        Returns:
            An uncompiled model of plain Keras layers. Members of weight 0 are left out of it.

        Raises:
            FusionError: when the members do not fit each other or the weights, or learned
                weights are asked for without data, or on rows that a member was trained on.
            DataError: when the data does not fit the members.
        """
        check_members(members)
        if self.weights is None:
            return _mean(members)
        if self.weights == "learn":
            fitted = self.fit(members, data, allow_in_sample=allow_in_sample)
            fused = _weighted_mean(members, fitted.values)
            record_rows(fused, digest_data(data), "Average")
            return fused
        if len(self.weights) != len(members):
            raise FusionError(
                f"{len(self.weights)} weights are given for {len(members)} members: give one for "
                "each."
            )
        return _weighted_mean(members, tuple(float(weight) for weight in self.weights))

    @staticmethod
    def fit(
        members: Sequence[keras.Model], data: Any, *, allow_in_sample: bool = False
    ) -> FittedWeights:
        """Fit weights to held-out data: log-loss, or squared error for regression.

        Args:
            members: as for a call.
            data: `(x, y)` arrays or a dataset.
            allow_in_sample: fit even on rows that a member was trained on.

        Raises:
            FusionError: when the members do not fit each other, there is no data, or a member
                was trained on some of it.
            DataError: when the data does not fit the members.
        """
        check_members(members)
        if data is None:
            raise FusionError(
                "Average(weights='learn') needs held-out data: call it with (members, (x, y))."
            )
        check_held_out(members, data, allow_in_sample)
        # A dataset may come in another order each time: one pass serves all members.
        together = _beside(members)
        labels, outputs = predict(together, data)
        tasks = infer_tasks(members[0], labels)
        count = len(tasks)
        predictions = [outputs[i * count : (i + 1) * count] for i in range(len(members))]
        return fit_weights(tasks, predictions, flat_labels(members[0], labels))

    def to_dict(self) -> dict[str, Any]:
        """The arguments, JSON-ready."""
        weights = list(self.weights) if isinstance(self.weights, tuple) else self.weights
        return {"weights": weights}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Average:
        """The inverse of `to_dict`."""
        weights = record["weights"]
        return cls(tuple(weights) if isinstance(weights, list) else weights)


def _checked(weights: tuple[Any, ...]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(weight) for weight in weights)
    except (TypeError, ValueError) as error:
        raise FusionError(
            f"weights={weights!r} are no numbers: give one for each member."
        ) from error
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise FusionError(f"weights={numbers} must be finite and at least 0.")
    total = math.fsum(numbers)
    if abs(total - 1) > _SUM_TOLERANCE:
        raise FusionError(
            f"The weights sum to {total:g}, not to 1: divide each of them by {total:g}."
        )
    return numbers


def _beside(members: Sequence[keras.Model]) -> keras.Model:
    """One model that gives the outputs of every member, one after the other."""
    inputs, outputs = side_by_side(members)
    return keras.Model(inputs, [output for member in outputs for output in member])


def _mean(members: Sequence[keras.Model]) -> keras.Model:
    inputs, outputs = side_by_side(members)
    means = [
        keras.layers.Average(name=_name("average", place, outputs[0]))([*parts])
        for place, parts in enumerate(zip(*outputs, strict=True))
    ]
    return keras.Model(inputs, read_outputs(members[0]).pack(means), name="average")


def _weighted_mean(members: Sequence[keras.Model], weights: Sequence[float]) -> keras.Model:
    used = [(m, w) for m, w in zip(members, weights, strict=True) if w > 0]
    inputs, outputs = side_by_side([member for member, _ in used])
    means = [
        _weighted_sum(place, parts, [weight for _, weight in used], outputs[0])
        for place, parts in enumerate(zip(*outputs, strict=True))
    ]
    return keras.Model(inputs, read_outputs(members[0]).pack(means), name="average")


def _weighted_sum(
    place: int, parts: Sequence[Any], weights: Sequence[float], outputs: Sequence[Any]
) -> Any:
    if len(parts) == 1:
        return parts[0]
    scaled = [
        keras.layers.Rescaling(weight, name=_name(f"weight_{number}", place, outputs))(part)
        for number, (part, weight) in enumerate(zip(parts, weights, strict=True), start=1)
    ]
    return keras.layers.Add(name=_name("average", place, outputs))(scaled)


def _name(name: str, place: int, outputs: Sequence[Any]) -> str:
    return name if len(outputs) == 1 else f"{name}_output_{place + 1}"
