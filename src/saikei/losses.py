"""Keras losses: from names to loss objects, and what a loss implies about its task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from saikei.errors import InputError

_BY_FUNCTION: dict[str, type[keras.losses.Loss]] = {
    "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
    "categorical_focal_crossentropy": keras.losses.CategoricalFocalCrossentropy,
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "bce": keras.losses.BinaryCrossentropy,
    "binary_focal_crossentropy": keras.losses.BinaryFocalCrossentropy,
    "mean_squared_error": keras.losses.MeanSquaredError,
    "mse": keras.losses.MeanSquaredError,
    "mean_absolute_error": keras.losses.MeanAbsoluteError,
    "mae": keras.losses.MeanAbsoluteError,
    "mean_absolute_percentage_error": keras.losses.MeanAbsolutePercentageError,
    "mape": keras.losses.MeanAbsolutePercentageError,
    "mean_squared_logarithmic_error": keras.losses.MeanSquaredLogarithmicError,
    "msle": keras.losses.MeanSquaredLogarithmicError,
    "huber": keras.losses.Huber,
    "log_cosh": keras.losses.LogCosh,
    "logcosh": keras.losses.LogCosh,
}
_CATEGORICAL = (
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.CategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
)
_BINARY = (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy)
_NUMERIC = (
    keras.losses.MeanSquaredError,
    keras.losses.MeanAbsoluteError,
    keras.losses.MeanAbsolutePercentageError,
    keras.losses.MeanSquaredLogarithmicError,
    keras.losses.Huber,
    keras.losses.LogCosh,
)


@dataclass(frozen=True)
class LossInfo:
    """What a known loss implies about its task."""

    kind: Literal["crossentropy", "binary", "numeric"]
    from_logits: bool


def as_loss(loss: Any) -> Any:
    """A loss object from the name or function of a loss in Keras; anything else as it is.

    Objects, because unlike Keras's functions they bring labels `(n,)` and outputs `(n, 1)` to
    one shape.

    Raises:
        InputError: When no loss has that name.
    """
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", None)
    if not isinstance(loss, keras.losses.Loss) and name in _BY_FUNCTION:
        return _BY_FUNCTION[name]()
    if not isinstance(loss, str):
        if not callable(loss) or isinstance(loss, (type, keras.Layer)):
            raise InputError(
                f"loss={loss!r:.60} is no loss: use a name such as 'mse', or a loss object."
            )
        return loss
    try:
        return keras.losses.get(loss)
    except ValueError as error:
        raise InputError(
            f"Keras has no loss named '{loss}': use a name such as 'mse', or a loss object."
        ) from error


def describe_loss(loss: Any) -> LossInfo | None:
    """What a loss object implies about its task; `None` for a custom loss."""
    if isinstance(loss, _CATEGORICAL):
        return LossInfo("crossentropy", _takes_logits(loss))
    if isinstance(loss, _BINARY):
        return LossInfo("binary", _takes_logits(loss))
    if isinstance(loss, _NUMERIC):
        return LossInfo("numeric", False)
    return None


def takes_sparse(loss: Any) -> bool | None:
    """Whether a categorical loss takes class numbers; `None` for any other loss."""
    if not isinstance(loss, _CATEGORICAL):
        return None
    return isinstance(loss, keras.losses.SparseCategoricalCrossentropy)


def ignored_class(loss: Any) -> int | None:
    """The class number that a loss leaves out, if it does (`ignore_class`)."""
    number = getattr(loss, "ignore_class", None)
    return None if number is None else int(number)


def leaves_out_nan(loss: Any, y: Any, shape: tuple[int | None, ...]) -> bool:
    """Whether a loss of the caller's own is a finite number where labels are NaN.

    Args:
        loss: A loss object or function.
        y: Labels `(n, …)`, some of them NaN.
        shape: The shape of the output, batch axis first.
    """
    if describe_loss(loss) is not None or not callable(loss):
        return False
    row = int(np.argmax(~np.isfinite(y).reshape(len(y), -1).all(axis=1)))
    sizes = [size or (y.shape[at] if at < y.ndim else 1) for at, size in enumerate(shape[1:], 1)]
    predicted = np.full((1, *sizes), 0.5, dtype="float32")
    try:
        value = keras.ops.convert_to_numpy(loss(y[row : row + 1].astype("float32"), predicted))
    except Exception:  # noqa: BLE001 - whatever a caller's own function raises
        return False
    return bool(np.isfinite(value).all())


def _takes_logits(loss: keras.losses.Loss) -> bool:
    # Not every loss keeps the flag as an attribute; all have it in their config.
    return bool(loss.get_config().get("from_logits", False))


def default_loss(
    kind: str, sparse: bool, from_logits: bool, ignored: int | None = None
) -> keras.losses.Loss:
    """The usual loss of a kind of task: log-loss, or squared error for regression."""
    if kind == "regression":
        return keras.losses.MeanSquaredError()
    if kind != "multiclass":
        return keras.losses.BinaryCrossentropy(from_logits=from_logits)
    if sparse:
        return keras.losses.SparseCategoricalCrossentropy(
            from_logits=from_logits, ignore_class=ignored
        )
    return keras.losses.CategoricalCrossentropy(from_logits=from_logits)
