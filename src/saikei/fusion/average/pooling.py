"""Opinion pools: how an average combines the outputs of the members.

The linear pool is the mean of probabilities. The logarithmic pool is the mean in logit space: their
geometric mean, scaled to sum 1 (Genest and Zidek, "Combining Probability Distributions",
1986). Medians stand in for means in either space.

Pools are written once, in Keras's layers: weights are fitted to the results on arrays, and models
are built of the results on symbolic tensors, so both are the same function in the same precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from keras import layers, ops

from saikei.batches import Array
from saikei.errors import FusionError
from saikei.fusion.average.class_weights import ClassWeights
from saikei.fusion.average.greedy import Selection
from saikei.fusion.average.masked import median, pooled_logits
from saikei.fusion.average.weights import FittedWeights
from saikei.fusion.base import listed
from saikei.fusion.evidence import MemberOutputs
from saikei.fusion.masks import all_with_masks, with_mask
from saikei.fusion.members import numbered_name
from saikei.scoring.links import Link, logits_of
from saikei.scoring.temperature import Temperature
from saikei.tensors import to_floats

Space: TypeAlias = Literal["probability", "logit"]
How: TypeAlias = Literal["mean", "median"]
FittedAny: TypeAlias = FittedWeights | Selection | ClassWeights


@dataclass(frozen=True)
class CalibratedFit:
    """Temperatures of the members, and the weights that were fitted after them.

    Args:
        temperatures: For each output those of the members; `None` for a regression.
        weights: `None` where they are given, equal or, for a median, absent.
    """

    temperatures: tuple[tuple[Temperature, ...] | None, ...]
    weights: FittedAny | None

    def to_dict(self) -> dict[str, Any]:
        """The entries of the weights, if there are any, and the temperatures; JSON-ready."""
        return {
            **(self.weights.to_dict() if self.weights is not None else {}),
            "temperatures": [
                each and [temperature.to_dict() for temperature in each]
                for each in self.temperatures
            ],
        }


@dataclass(frozen=True)
class OutputPool:
    """How the members' outputs become one.

    Args:
        link: The activation of the members' outputs.
        space: The space in which they are pooled; `None` for the space that they are in.
        how: `"mean"` or `"median"`.
        weights: One for each member; or for each class a tuple of such. A median only uses which
            weights are not 0.
        temperatures: One for each member; `None` without calibration.

    Raises:
        FusionError: When the members do not give what the space needs.
    """

    link: Link
    space: Space | None
    how: How
    weights: tuple[Any, ...]
    temperatures: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.space == "probability" and self.link == "linear":
            raise FusionError(
                "space='probability' needs members that end in softmax or sigmoid, and these give "
                "logits or numbers: add the activation, or leave space out."
            )
        if self.per_class and keras.config.image_data_format() == "channels_first":
            raise FusionError(
                "Weights for each class are on the last axis, where Keras's image_data_format "
                "'channels_first' has no classes: set 'channels_last'."
            )

    @property
    def used(self) -> tuple[int, ...]:
        """The indices of the members whose weight is not 0."""
        table = np.asarray(self.weights, dtype=np.float64).reshape(-1, self.members)
        return tuple(int(index) for index in np.flatnonzero(table.any(axis=0)))

    @property
    def members(self) -> int:
        """The number of members."""
        return len(self.weights[0] if self.per_class else self.weights)

    def of(self, indices: Sequence[int]) -> OutputPool:
        """The pool of some members; the weights of the others are 0."""
        table = np.asarray(self.weights, dtype=np.float64)[..., list(indices)].tolist()
        chosen = self.temperatures and tuple(self.temperatures[index] for index in indices)
        return replace(self, weights=_tuples(table), temperatures=chosen)

    @property
    def per_class(self) -> bool:
        """Whether each class has weights of its own."""
        return isinstance(self.weights[0], tuple)

    def prepare(
        self, parts: Sequence[Any], form: str = "{}", logits: Sequence[Any] | None = None
    ) -> list[Any]:
        """The members' outputs, calibrated, in the space in which they are pooled.

        Args:
            parts: The outputs of the members.
            form: The format string for the names of layers.
            logits: The members' outputs before their last activation, where these are known.
        """
        temperatures = self.temperatures or (1.0,) * len(parts)
        known = logits or (None,) * len(parts)
        return [
            self._prepared(part, temperature, form, number, own)
            for number, (part, temperature, own) in enumerate(
                zip(parts, temperatures, known, strict=True), start=1
            )
        ]

    def _prepared(self, part: Any, temperature: float, form: str, number: int, logits: Any) -> Any:
        back = self.link != "linear" and self.space != "logit"
        if temperature == 1.0 and back:
            return part
        if logits is None:
            part = logits_of(part, self.link)
        elif self.link == "softmax":
            name = form.format(f"logarithms_{number}")
            part = layers.Activation("log_softmax", dtype="float32", name=name)(logits)
        else:
            part = logits
        if temperature != 1.0:
            name = form.format(f"temperature_{number}")
            part = layers.Rescaling(1 / temperature, dtype="float32", name=name)(part)
        return _squashed(part, self.link, form.format(f"calibrated_{number}")) if back else part

    def __call__(
        self,
        parts: Sequence[Any],
        form: str = "{}",
        name: str = "average",
        logits: Sequence[Any] | None = None,
    ) -> Any:
        """The pooled output.

        Args:
            parts: The outputs of the members, arrays or symbolic tensors.
            form: The format string for the names of layers.
            name: The name of the last layer.
            logits: The members' logits; see `prepare`.
        """
        used = self.used
        last = form.format(name)
        if logits is not None and self.needs_layers:
            return self._in_layers([(i, logits[i]) for i in used], form, name)
        ready = self.prepare(parts, form, logits)
        if self.how == "median":
            pooled = _median([ready[i] for i in used])
        else:
            pooled = self._mean([(i, ready[i]) for i in used], form, last)
        if self.space == "logit" and self.link != "linear":
            return _squashed(pooled, self.link, form.format(f"{name}_{self.link}"))
        if self.link == "softmax" and (self.how == "median" or self.per_class):
            # softmax(log p) is p / Σp, and reads as what it is: probabilities.
            logs = logits_of(pooled, "softmax")
            return _squashed(logs, "softmax", form.format(f"{name}_softmax"))
        if self.link == "sigmoid" and self.how == "median":
            return _squashed(
                logits_of(pooled, "sigmoid"), "sigmoid", form.format(f"{name}_sigmoid")
            )
        return pooled

    @property
    def needs_layers(self) -> bool:
        """Whether pooling takes operations, which lose masks, where layers would keep them."""
        table = self.per_class and self.link == "softmax" and self.space != "logit"
        return self.how == "median" or table

    def _in_layers(self, used: Sequence[tuple[int, Any]], form: str, name: str) -> Any:
        """The pooled output, by layers alone."""
        temperatures = self.temperatures or (1.0,) * self.members
        parts = [
            part
            if temperatures[i] == 1.0
            else layers.Rescaling(1 / temperatures[i], dtype="float32")(part)
            for i, part in used
        ]
        if self.link != "linear" and self.space != "logit":
            table = [self._weights(i).tolist() for i, _ in used] if self.per_class else None
            pooled = pooled_logits(self.link, parts, table)
            return _squashed(pooled, self.link, form.format(f"{name}_{self.link}"))
        if self.link == "softmax":
            parts = [layers.Activation("log_softmax", dtype="float32")(part) for part in parts]
        middle = median(parts)
        pooled = middle[0]
        if len(middle) > 1:
            pooled = layers.Average(dtype="float32", name=form.format(name))(middle)
        if self.link == "linear":
            return pooled
        return _squashed(pooled, self.link, form.format(f"{name}_{self.link}"))

    def _weights(self, member: int) -> Array:
        """The weights of a member, `(1,)` or `(classes,)`."""
        table = np.asarray(self.weights, dtype=np.float64)
        return np.atleast_1d(table[..., member])

    def _mean(self, used: Sequence[tuple[int, Any]], form: str, last: str) -> Any:
        if len(used) == 1:
            return used[0][1]
        scaled = [
            layers.Rescaling(
                self._weights(i).tolist() if self.per_class else float(self._weights(i)[0]),
                dtype="float32",
                name=form.format(f"weight_{i + 1}"),
            )(part)
            for i, part in used
        ]
        return layers.Add(dtype="float32", name=last)(scaled)


def _median(parts: Sequence[Any]) -> Any:
    """The middle one, or the mean of the two in the middle.

    `ops.median` is exported to operations that LiteRT's own runtime does not have.
    """
    ordered = ops.sort(ops.stack(parts, axis=-1), axis=-1)
    below, above = (len(parts) - 1) // 2, len(parts) // 2
    if below == above:
        return ordered[..., below]
    return (ordered[..., below] + ordered[..., above]) / 2


def _squashed(logits: Any, link: Link, name: str) -> Any:
    return layers.Activation(link, dtype="float32", name=name)(logits)


@dataclass(frozen=True)
class Pool:
    """An average of any kind: one `OutputPool` for each output.

    Args:
        each: The pool of each output.
        fitted: How it was fitted; `None` where nothing was.
    """

    each: tuple[OutputPool, ...]
    fitted: FittedAny | CalibratedFit | None = None

    @property
    def used(self) -> tuple[int, ...]:
        """The indices of the members that any output needs."""
        return tuple(sorted({index for pool in self.each for index in pool.used}))

    @property
    def takes_logits(self) -> bool:
        """Whether any output is computed from the members' logits."""
        return any(
            (pool.link != "linear" and (pool.space == "logit" or pool.temperatures is not None))
            or pool.needs_layers
            for pool in self.each
        )

    def of(self, indices: Sequence[int]) -> Pool:
        """The pool of some members; no output needs the others."""
        return Pool(tuple(pool.of(indices) for pool in self.each), self.fitted)

    def weighted(self, weights: Sequence[tuple[Any, ...]]) -> Pool:
        """The pool with other weights, one entry for each output."""
        pairs = zip(self.each, weights, strict=True)
        return Pool(tuple(replace(pool, weights=one) for pool, one in pairs))

    def prepare(self, predictions: MemberOutputs) -> list[list[Array]]:
        """For each member, arrays of its outputs: calibrated, in the space of the pool."""
        outputs = [
            [to_floats(part) for part in pool.prepare(parts)]
            for pool, parts in zip(self.each, zip(*predictions.outputs, strict=True), strict=True)
        ]
        return [list(member) for member in zip(*outputs, strict=True)]

    @property
    def summary(self) -> str:
        """The weights and temperatures that were fitted."""
        calibrated = self.fitted if isinstance(self.fitted, CalibratedFit) else None
        weights = calibrated.weights if calibrated else self.fitted
        parts = []
        if isinstance(weights, ClassWeights):
            parts.append(
                f"weights for each class, loss {weights.loss:.4f} "
                f"(shared: {weights.shared_loss:.4f})"
            )
        elif isinstance(weights, (FittedWeights, Selection)):
            parts.append(f"weights {listed(weights.values)}")
        each = [one for one in calibrated.temperatures if one] if calibrated else []
        if each:
            shown = [listed(member.value for member in output) for output in each]
            parts.append(f"temperatures {'; '.join(shown)}")
        return ", ".join(parts)

    def predict(self, predictions: MemberOutputs) -> tuple[Array, ...]:
        """One array for each output."""
        return tuple(
            to_floats(pool([np.asarray(part) for part in parts]))
            for pool, parts in zip(self.each, zip(*predictions.outputs, strict=True), strict=True)
        )

    def connect(
        self, predictions: MemberOutputs, name: str = "average", logits: MemberOutputs | None = None
    ) -> tuple[Any, ...]:
        """The pooled outputs in a graph.

        Args:
            predictions: The members' outputs as symbolic tensors.
            name: The name of the last layer.
            logits: The members' outputs before their last activation, where these are known. They
                go through layers, where probabilities go through operations, which lose masks.
        """
        prefix = "{}" if name == "average" else f"{name}_{{}}"
        parts = list(zip(*predictions.outputs, strict=True))
        before = [None] * len(parts) if logits is None else zip(*logits.outputs, strict=True)
        outputs = []
        for index, (pool, own, known) in enumerate(zip(self.each, parts, before, strict=True)):
            form = numbered_name(prefix, index, len(self.each))
            masked = all_with_masks(own, form.format("masked_{}"))
            logits_of_each = known and all_with_masks(known, form.format("masked_logits_{}"))
            pooled = pool(masked, form, logits=logits_of_each)
            outputs.append(with_mask(pooled, masked, form.format("masked")))
        return tuple(outputs)

    def to_dict(self) -> dict[str, Any]:
        """What was fitted, or the pool, one entry for each output; JSON-ready."""
        if self.fitted is not None:
            return self.fitted.to_dict()
        return {
            "weights": [_lists(pool.weights) for pool in self.each],
            "temperatures": [pool.temperatures and [*pool.temperatures] for pool in self.each],
            "space": [pool.space for pool in self.each],
            "how": [pool.how for pool in self.each],
        }


def _lists(weights: tuple[Any, ...]) -> list[Any]:
    return [list(one) if isinstance(one, tuple) else one for one in weights]


def _tuples(table: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(one) if isinstance(one, list) else one for one in table)
