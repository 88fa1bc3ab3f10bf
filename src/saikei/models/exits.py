"""When a cascade is confident enough of a row to run no further member on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import keras
import numpy as np

from saikei.codec import Jsonable
from saikei.errors import FusionError

Confidence = Literal["max_probability", "margin", "entropy", "agreement"]
Combine = Literal["last", "average"]
# A confidence is at most 1.
NEVER = 2.0


@dataclass(frozen=True)
class Exits(Jsonable):
    """The output of a cascade at each stage, and which rows leave there.

    A row leaves at the first stage where its confidence, from 0 to 1, is at least the stage's
    threshold; the last stage has none. Where a confidence is not a number, it counts as 0.

    Args:
        thresholds: One for each member but the last; 0 lets every row go, and one above 1 none.
        confidence: `"max_probability"`, of the most probable class; `"margin"` of it over the
            next one; `"entropy"`, 1 - H(p) / log(classes); `"agreement"`, the overlap
            Σ min(pₖ, q) of member k's probabilities with the mean q of those before it, which is
            0 at the first stage.
        combine: `"last"`: the output of a stage is that of its member; `"average"`: the mean of
            the members up to it, in probabilities or logits, as they give them.
        kind: `"binary"`, one output, or `"multiclass"`.
        from_logits: Whether members give logits rather than probabilities.
    """

    error_class: ClassVar[type[FusionError]] = FusionError
    thresholds: tuple[float, ...]
    confidence: Confidence = "max_probability"
    combine: Combine = "last"
    kind: Literal["binary", "multiclass"] = "multiclass"
    from_logits: bool = False

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        check_choice("confidence", self.confidence, get_args(Confidence))
        check_choice("combine", self.combine, get_args(Combine))
        object.__setattr__(self, "thresholds", tuple(float(t) for t in self.thresholds))
        if not all(threshold >= 0 for threshold in self.thresholds):
            raise FusionError(
                f"thresholds={self.thresholds}: they are confidences, so give numbers of at least "
                "0; one above 1 lets no row leave."
            )

    def output(self, outputs: Sequence[Any]) -> Any:
        """The output of the cascade at a stage.

        Args:
            outputs: One array or tensor `(n, classes)` for each member up to this stage.
        """
        if self.combine == "last" or len(outputs) == 1:
            return outputs[-1]
        return sum(outputs[1:], start=outputs[0]) / len(outputs)

    def leaves(self, outputs: Sequence[Any]) -> Any:
        """Which rows leave at a stage that is not the last, booleans `(n,)`.

        Args:
            outputs: One array or tensor `(n, classes)` for each member up to this stage.
        """
        return self.confidences(outputs) >= self.thresholds[len(outputs) - 1]

    def confidences(self, outputs: Sequence[Any]) -> Any:
        """The confidences at a stage, float32 `(n,)`.

        Args:
            outputs: One array or tensor `(n, classes)` for each member up to this stage.
        """
        numpy = all(isinstance(one, np.ndarray) for one in outputs)
        # The two have functions of the same names, so that there is one formula.
        ops: Any = np if numpy else keras.ops
        if self.confidence == "agreement":
            each = [self._probabilities(one, ops) for one in outputs]
            measured = _agreement(each, ops)
        else:
            measured = _MEASURES[self.confidence](
                self._probabilities(self.output(outputs), ops), ops
            )
        return ops.where(
            ops.isnan(measured), ops.zeros_like(measured), ops.clip(measured, 0.0, 1.0)
        )

    def _probabilities(self, outputs: Any, ops: Any) -> Any:
        values = outputs.astype("float32") if ops is np else ops.cast(outputs, "float32")
        if self.kind == "binary":
            if self.from_logits:
                values = 1.0 / (1.0 + ops.exp(-ops.clip(values, -80.0, 80.0)))
            return ops.concatenate([1.0 - values, values], axis=-1)
        if not self.from_logits:
            return values
        exponents = ops.exp(values - ops.max(values, axis=-1, keepdims=True))
        return exponents / ops.sum(exponents, axis=-1, keepdims=True)


def check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    """Refuse an argument that is none of the known values."""
    if value not in known:
        raise FusionError(f"{name}={value!r} is unknown: use one of {', '.join(known)}.")


def check_thresholds(thresholds: Sequence[float], members: int) -> None:
    """Refuse thresholds of another number than there are exits."""
    if len(thresholds) != members - 1:
        raise FusionError(
            f"{len(thresholds)} thresholds are given for {members} members: give one for each but "
            "the last."
        )


def _max_probability(p: Any, ops: Any) -> Any:
    return ops.max(p, axis=-1)


def _margin(p: Any, ops: Any) -> Any:
    ranked = ops.sort(p, axis=-1)
    return ranked[:, -1] - ranked[:, -2]


def _entropy(p: Any, ops: Any) -> Any:
    # p · log(p) is 0 where p is 0.
    logarithms = ops.log(ops.maximum(p, float(np.finfo(np.float32).tiny)))
    return 1.0 + ops.sum(p * logarithms, axis=-1) / float(np.log(p.shape[-1]))


_MEASURES: dict[str, Callable[[Any, Any], Any]] = {
    "max_probability": _max_probability,
    "margin": _margin,
    "entropy": _entropy,
}


def _agreement(each: Sequence[Any], ops: Any) -> Any:
    if len(each) == 1:
        return ops.zeros_like(each[0][:, 0])
    earlier = sum(each[1:-1], start=each[0]) / (len(each) - 1)
    return ops.sum(ops.minimum(each[-1], earlier), axis=-1)
