"""Refit an edited graph to its original, layer by layer, by least squares on a few samples.

He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017, refit each layer
after pruning; Frantar et al., "Optimal Brain Compression", 2022, from its actual input. Here each
layer, in order, is given the input that the edited graph really has, errors so far included, and
fitted to what the original's layer of the same name gave.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saikei.blas import one_thread
from saikei.calibration.affordable import affordable
from saikei.calibration.batch_norm import refit_batch_norm
from saikei.calibration.least_squares import NormalEquations, best_change
from saikei.calibration.linear_form import LinearForm, linear_form
from saikei.calibration.run import Outcome, Run, Value, same_operation
from saikei.calibration.samples import SAMPLES, calibration_inputs
from saikei.calibration.surviving_outputs import Kept, take_kept
from saikei.graph import Call, Graph, Operation, TensorRef
from saikei.tensors import is_half, rounding, to_floats

# Rows of a system: enough that another sample of them would hardly change the solution.
ROWS = 16_384
ROWS_PER_FEATURE = 5
# One sample in five is held out to choose the ridge by.
HELD_OUT = 5
# What residuals may be, relative to the outputs, for a layer to count as right already; in half
# precision, as much as rounding makes of them.
RIGHT = 1e-6
CHUNK_BYTES = 2**26

Array = NDArray[Any]
Pair = tuple[Array, Array]


def refit(
    original: Graph, edited: Graph, data: Any, *, kept: Kept | None = None, samples: int = SAMPLES
) -> Graph:
    """Fit the weights of an edited graph to what the original computes.

    Dense, convolutional and depthwise layers are fitted, before their activation, to the
    original's operation of the same name; BatchNormalization gets the statistics of what it now
    reads. Operations without a counterpart of the same output shape stay as they are, and so do
    those that compute the right thing already. On the samples, no layer is further from its
    original than it was before its fit, and neither are the outputs: layers that come closer each
    can make them worse together, as ahead of a normalization, and then no layer is fitted.

    Args:
        original: What to come close to.
        edited: What to fit; its structure stays. It is not changed.
        data: What `keras.Model.fit` takes.
        kept: The channels that an edit left, by operation; see `kept_outputs`.
        samples: How many samples to use.

    Raises:
        DataError: When the data does not fit the original.
    """
    # An input and an output, of both graphs, before and after the activation.
    inputs = affordable(original, calibration_inputs(original, data, samples), tensors=6)
    fitting = _Refit(original, edited, inputs, kept or {})
    fitted = fitting.run()
    if fitted is edited:
        return edited
    wanted, found = fitting.outputs()
    before = _distance(Run(edited, inputs, edited.output_refs()).outputs(0), wanted)
    return fitted if _distance(found, wanted) <= before else edited


def _distance(outputs: list[Array], wanted: list[Array]) -> float:
    """The squared error of all outputs, each relative to the variance of what is wanted of it."""
    total = 0.0
    for output, goal in zip(outputs, wanted, strict=True):
        if output.shape == goal.shape:
            spread = float(np.square(goal - goal.mean(axis=0, dtype=np.float64)).sum())
            error = float(np.square(output.astype(np.float64) - goal).sum())
            total += error / spread if spread > 0 else error
    return total if np.isfinite(total) else np.inf


@dataclass
class _Targets:
    """The original's outputs before the activation, kept until the edited graph gets there."""

    run: Run
    wanted: frozenset[str]
    next: int = 0
    found: dict[str, list[Value]] = field(default_factory=lambda: defaultdict(list))

    def until(self, index: int) -> Outcome | None:
        """Run the original up to and with a call; what it gave, if it has not run before."""
        outcome = None
        while self.next <= index:
            outcome = self.run.step(self.next)
            name = self.run.graph.calls[self.next].operation
            if name in self.wanted:
                self.found[name].append(outcome.before[0])
            self.next += 1
        return outcome


class _Refit:
    def __init__(self, original: Graph, edited: Graph, inputs: Any, kept: Kept) -> None:
        self.original, self.kept = original, kept
        self.calls: dict[str, list[int]] = defaultdict(list)
        for index, call in enumerate(edited.calls):
            self.calls[call.operation].append(index)
        self.original_calls: dict[str, list[int]] = defaultdict(list)
        for index, call in enumerate(original.calls):
            self.original_calls[call.operation].append(index)
        self.run_edited = Run(edited, inputs, edited.output_refs())
        tied = Counter(w.key for op in edited.operations.values() for w in op.weights.values())
        self.tied = {key for key, count in tied.items() if count > 1}
        wanted = frozenset(name for name in edited.operations if self._fittable(name))
        self.targets = _Targets(Run(original, inputs, original.output_refs()), wanted)
        # Tensors of the edited graph that are the original's, to the last bit.
        self.same: dict[TensorRef, TensorRef] = {}

    def run(self) -> Graph:
        """Fit and run the calls in order; the fitted graph."""
        fitted: set[str] = set()
        for index, call in enumerate(self.run_edited.graph.calls):
            name = call.operation
            twin = self._twin(index, call)
            if twin is None and name in self.targets.wanted and name not in fitted:
                self._fit(name)
            fitted.add(name)
            self.run_edited.step(index)
            if twin is not None:
                self.same.update(
                    {TensorRef(index, i): TensorRef(twin, i) for i in range(len(call.outputs))}
                )
        return self.run_edited.graph

    def outputs(self) -> tuple[list[Array], list[Array]]:
        """The outputs of the original, and those of the fitted graph, which `run` has run."""
        self.targets.until(len(self.original.calls) - 1)
        original, fitted = (
            [to_floats(run.value(ref).array) for ref in run.graph.output_refs()]
            for run in (self.targets.run, self.run_edited)
        )
        return original, fitted

    def _fittable(self, name: str) -> bool:
        """Whether the original has a counterpart whose kept outputs have the same shapes."""
        operation = self.run_edited.graph.operations[name]
        form = linear_form(operation)
        if form is None and operation.kind != "BatchNormalization":
            return False
        if any(weight.key in self.tied for weight in operation.weights.values()):
            return False
        ours, theirs = self.calls[name], self.original_calls.get(name, [])
        if len(ours) != len(theirs):
            return False
        for mine, other in zip(ours, theirs, strict=True):
            shape = self.run_edited.graph.calls[mine].outputs[0].shape
            if shape != self._kept_shape(name, self.original.calls[other].outputs[0].shape):
                return False
        return True

    def _kept_shape(self, name: str, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        masks = self.kept.get(name) or (None,) * len(shape)
        return tuple(
            size if mask is None else int(mask.sum())
            for size, mask in zip(shape, masks, strict=True)
        )

    def _twin(self, index: int, call: Call) -> int | None:
        """The original's call that computes the very same, if there is one."""
        name = call.operation
        theirs = self.original_calls.get(name, [])
        occurrence = self.calls[name].index(index)
        if occurrence >= len(theirs):
            return None
        other = theirs[occurrence]
        if not same_operation(
            self.run_edited.graph.operations[name], self.original.operations[name]
        ):
            return None
        mine, given = call.leaves(), self.original.calls[other].leaves()
        if len(mine) != len(given):
            return None
        for one, two in zip(mine, given, strict=True):
            same = self.same.get(one) == two if isinstance(one, TensorRef) else one is two
            if not same:
                return None
        return other

    def _fit(self, name: str) -> None:
        operation = self.run_edited.graph.operations[name]
        self.targets.until(self.original_calls[name][-1])
        pairs = []
        for index, target in zip(self.calls[name], self.targets.found.pop(name), strict=True):
            given = self.run_edited.value(self.run_edited.graph.calls[index].inputs()[0])
            pairs.append((given.array, take_kept(target.array, self.kept.get(name))))
        form = linear_form(operation)
        if form is None:
            fitted: Operation | None = refit_batch_norm(operation, pairs)
        else:
            with one_thread(form.matrix(operation).shape[1]):
                fitted = fit_linear(operation, form, pairs, self._feeds_only_batch_norm(name))
        if fitted is not None:
            self.run_edited.replace(fitted)

    def _feeds_only_batch_norm(self, name: str) -> bool:
        graph = self.run_edited.graph
        outputs = {TensorRef(index, 0) for index in self.calls[name]}
        if outputs & set(graph.output_refs()):
            return False
        readers = [call.operation for call in graph.calls if outputs & set(call.inputs())]
        kinds = [graph.operations[reader].kind for reader in readers]
        return bool(kinds) and all(kind == "BatchNormalization" for kind in kinds)


def fit_linear(
    operation: Operation, form: LinearForm, pairs: list[Pair], free_mean: bool = False
) -> Operation | None:
    """A linear layer fitted to wanted outputs.

    Args:
        operation: The layer; its weights are what the fit is shrunk towards.
        form: How it is linear.
        pairs: For each of its calls, its input and the wanted output before the activation.
        free_mean: Whether a constant offset of its outputs does not matter, because
            normalisation follows.

    Returns:
        The fitted layer, or `None` where the fit would not make it better.
    """
    matrix, bias = form.matrix(operation), form.bias(operation)
    systems, features, outputs = matrix.shape
    parts = [NormalEquations.empty(systems, features, outputs) for _ in range(2)]
    scale = 0.0
    blocks = list(_row_blocks(form, pairs, features))
    for given, wanted, rows, held in blocks:
        goal = form.outputs(wanted, rows)
        scale += float(np.square(goal).sum())
        x = form.features(given, rows)
        parts[held].add(x, goal - (x @ matrix + bias))
    right = max(RIGHT, *(rounding(wanted.dtype) for _, wanted in pairs if is_half(wanted.dtype)), 0)
    if parts[0].square + parts[1].square <= right**2 * scale:
        return None
    intercept = "bias" in operation.weights or free_mean
    rounded = partial(form.rounded_change, operation)
    change = best_change(parts[0], parts[1], intercept, rounded=rounded)
    return None if change is None else form.changed(operation, change)


def _row_blocks(
    form: LinearForm, pairs: list[Pair], features: int
) -> Iterator[tuple[Array, Array, NDArray[np.int64], bool]]:
    """Rows to fit on, in blocks that fit in memory, those of held-out samples apart."""
    generator = np.random.default_rng(0)
    limit = max(ROWS, ROWS_PER_FEATURE * features) // len(pairs)
    for given, wanted in pairs:
        shape = form.channels_last(wanted).shape
        each = int(np.prod(shape[1:-1]))
        total = shape[0] * each
        rows = np.arange(total)
        if total > limit:
            rows = np.sort(generator.choice(total, limit, replace=False))
        held = (rows // each) % HELD_OUT == HELD_OUT - 1
        size = max(1, CHUNK_BYTES // (8 * form.systems * (features + shape[-1] // form.systems)))
        for part in (False, True):
            own = rows[held == part]
            for start in range(0, len(own), size):
                yield given, wanted, own[start : start + size], part
