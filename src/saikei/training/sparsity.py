"""Zeros that survive training, and zeros that come gradually during it.

A kernel that is to keep zeros gets a constraint for as long as the training lasts: after every
step of the optimizer, whatever its momentum and weight decay did, the weights under the mask are
zero again. It is set on the variable, not on the layer, so no saved model contains it. The masks
are variables of the optimizer: the JAX trainer hands those in and out of its compiled step, so
that a mask can change without compiling anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import keras
import numpy as np

from saikei.arguments import shown
from saikei.errors import InputError
from saikei.graph import read
from saikei.graph.stored_weights import merged_weights
from saikei.sparsity import SparsityTarget, is_kernel, meant_zeros
from saikei.training.plan import Plan

# Zhu and Gupta prune until well before the end, while the learning rate is still high enough to
# recover from it.
END_SHARE = 2 / 3
# Masks are worked out anew so often on the way there.
UPDATES = 50


class HasTarget(Protocol):
    """An object with a target of sparsity, such as `saikei.Sparsify`."""

    @property
    def target(self) -> SparsityTarget:
        """Which kernels, and how sparse."""


@contextmanager
def holding_zeros(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    plan: Plan,
    steps: int | None,
    sparsify: HasTarget | None = None,
    keep_zeros: bool = True,
    held: Sequence[int] | None = None,
) -> Iterator[Plan]:
    """Keep zeros of a model's kernels while it trains with an optimizer.

    Args:
        model: What is trained.
        optimizer: The optimizer that it trains with, which has made no step yet.
        plan: How long.
        steps: Batches an epoch; `None` where the data does not know.
        sparsify: Zeros that come during training; `None` adds none.
        keep_zeros: Whether zeros that the kernels have already stay; see
            `saikei.sparsity.meant_zeros` for which zeros count.
        held: Positions, among the trainable variables, of the kernels whose zeros stay, as
            `sparse_kernels` found them when a longer training began; `None` finds them now.

    Yields:
        The plan, with what else training needs to do.

    Raises:
        InputError: When `sparsify` cannot be used.
    """
    if sparsify is not None and not isinstance(getattr(sparsify, "target", None), SparsityTarget):
        raise InputError(
            f"sparsify={shown(sparsify)}: give a saikei.Sparsify, for example Sparsify(0.8)."
        )
    _check_lora(model, sparsify is not None, keep_zeros)
    positions = sparse_kernels(model) if held is None else held
    masks = _zeros_of(model, positions) if keep_zeros else {}
    variables = {id(v): v for v in model.variables}
    if sparsify is not None:
        for kernel in sparsify.target.zeros(read(model), progress=0.0):
            masks.setdefault(kernel.key, np.zeros(kernel.zeros.shape, dtype=bool))
    kernels = [_Held(variables[key], mask, optimizer) for key, mask in masks.items()]
    try:
        for kernel_held in kernels:
            kernel_held.hold()
        if sparsify is None:
            yield plan
        else:
            gradual = _Gradual(model, sparsify.target, kernels, plan.epochs, steps)
            settled = _epochs_before_settled(plan.epochs, steps)
            yield replace(plan, callbacks=(gradual, *plan.callbacks), settled=settled)
    finally:
        for kernel_held in kernels:
            kernel_held.release()


def _check_lora(model: keras.Model, sparsify: bool, keep_zeros: bool) -> None:
    """Factors that are added to a kernel would fill its zeros at the first step.

    Raises:
        InputError: When such a kernel has zeros, or is to get some.
    """
    for layer, weight in merged_weights(model):
        if not is_kernel(weight.base.path, weight.shape):
            continue
        if sparsify or (keep_zeros and meant_zeros(weight.numpy()) is not None):
            raise InputError(
                f"Layer '{layer.name}' has zeros in its kernel, or is to get some, and training "
                "its LoRA factors would fill them: merge these first, by "
                "saikei.graph.copy_model(model), which gives the same model without LoRA, or "
                "train with keep_zeros=False and without sparsify."
            )


def sparse_kernels(model: keras.Model) -> tuple[int, ...]:
    """Positions, among the trainable variables, of the kernels whose zeros count as sparsity."""
    return tuple(
        position
        for position, variable in enumerate(model.trainable_variables)
        if is_kernel(variable.path, tuple(variable.shape))
        and meant_zeros(keras.ops.convert_to_numpy(variable)) is not None
    )


def _zeros_of(model: keras.Model, positions: Sequence[int]) -> dict[int, np.ndarray[Any, Any]]:
    """The zeros of some kernels, by the variable's `id`."""
    kernels = [model.trainable_variables[position] for position in positions]
    return {id(kernel): keras.ops.convert_to_numpy(kernel) == 0 for kernel in kernels}


class _Held:
    """A kernel whose zeros are kept."""

    def __init__(
        self,
        variable: Any,
        zeros: np.ndarray[Any, Any],
        optimizer: keras.optimizers.Optimizer,
    ) -> None:
        self.variable = variable
        # Zeros of the kernel before training stay, whatever is added.
        self.first = zeros
        self._own: Callable[[Any], Any] | None = None
        # Where losses are scaled, the step is made by an optimizer within.
        stepping = getattr(optimizer, "inner_optimizer", optimizer)
        self._zeros = stepping.add_variable(
            tuple(variable.shape), initializer="zeros", dtype="bool", name="zeros"
        )
        self._zeros.assign(zeros)

    def hold(self) -> None:
        """Let the optimizer put the zeros back after every step."""
        self._own = self.variable.constraint
        self.variable.constraint = self._constrained

    def release(self) -> None:
        """Leave the variable as it was found."""
        self.variable.constraint = self._own

    def put(self, zeros: np.ndarray[Any, Any]) -> None:
        """Set these weights to zero, and keep them so."""
        zeros = zeros | self.first
        self._zeros.assign(zeros)
        kernel = keras.ops.convert_to_numpy(self.variable).copy()
        kernel[zeros] = 0
        self.variable.assign(kernel)

    def _constrained(self, value: Any) -> Any:
        if self._own is not None:
            value = self._own(value)
        value = keras.ops.convert_to_tensor(value)
        # Not a product: an infinite weight times 0 is not 0.
        zeros = keras.ops.convert_to_tensor(self._zeros)
        return keras.ops.where(zeros, keras.ops.zeros_like(value), value)


class _Gradual(keras.callbacks.Callback):
    """More zeros step by step, along a cubic that is steep at first.

    s(t) = s · (1 - (1 - t / T)³), Zhu and Gupta, 2017, eq. 1, from no zeros at the first step.
    """

    def __init__(
        self,
        model: keras.Model,
        target: SparsityTarget,
        held: list[_Held],
        epochs: int,
        steps: int | None,
    ) -> None:
        super().__init__()
        self._sparse = model
        self._target = target
        self._held: Mapping[int, _Held] = {id(h.variable): h for h in held}
        self._epochs, self._steps = epochs, steps
        self._done = 0
        self._progress = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """A step along the schedule where the number of batches is not known."""
        if self._steps is None:
            self._advance((epoch + 1) / math.ceil(END_SHARE * self._epochs))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """A step along the schedule."""
        if self._steps is None:
            return
        self._done += 1
        end = _last_step(self._epochs, self._steps)
        if self._done == end or (self._done < end and self._done % max(1, end // UPDATES) == 0):
            self._advance(self._done / end)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """The whole sparsity, where training was stopped before the schedule's end."""
        self._advance(1.0)

    def _advance(self, progress: float) -> None:
        if self._progress >= 1.0:
            return
        self._progress = min(progress, 1.0)
        if keras.backend.backend() == "jax":
            # Between steps the numbers are in the trainer's state; it reads them back after.
            self.model.jax_state_sync()
        for kernel in self._target.zeros(read(self._sparse), 1 - (1 - self._progress) ** 3):
            self._held[kernel.key].put(kernel.zeros)


def _last_step(epochs: int, steps: int) -> int:
    return max(1, round(END_SHARE * epochs * steps))


def _epochs_before_settled(epochs: int, steps: int | None) -> int:
    """Epochs that end before the sparsity is reached: none of them can be the best one."""
    if steps is None:
        return math.ceil(END_SHARE * epochs) - 1
    return math.ceil(_last_step(epochs, steps) / steps) - 1
