"""Refit an edited graph to its original, layer by layer, by least squares on a few samples.

He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017, refit each layer
after pruning; Frantar et al., "Optimal Brain Compression", 2022, from its actual input. Here each
layer, in order, is given the input that the edited graph really has, errors so far included, and
fitted to what the original's layer of the same name gave.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saikei.blas import one_thread
from saikei.calibration.affordable import affordable
from saikei.calibration.batch_norm import refit_batch_norm
from saikei.calibration.layers import same_operation
from saikei.calibration.least_squares import NormalEquations, best_change
from saikei.calibration.linear_form import LinearForm, linear_form
from saikei.calibration.parts import Parts
from saikei.calibration.run import Run
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
# Outputs are compared on samples with so many bytes of them, and on so many samples at least.
COMPARED_BYTES, FEWEST_COMPARED = 2**28, 16

Array = NDArray[Any]
Pair = tuple[Array, Array]
Part = tuple[slice, list[Pair]]


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
    fitting = _Refit(original, edited, data, kept or {}, samples)
    fitted = fitting.run()
    return fitted if fitted is edited or fitting.comes_closer() else edited


class _Distance:
    """The squared error of outputs, each relative to the variance of what is wanted of it."""

    def __init__(self) -> None:
        self._rows = 0
        self._sums: list[Array] = []
        self._squares: list[float] = []
        self._errors: list[float] = []

    def add(self, wanted: list[Array], outputs: list[Array]) -> None:
        """Add samples.

        Args:
            wanted: What is wanted of each output, one sample a row.
            outputs: What a graph gives for them.
        """
        if not self._sums:
            self._sums = [np.zeros(goal.shape[1:]) for goal in wanted]
            self._squares = [0.0 for _ in wanted]
            self._errors = [0.0 for _ in wanted]
        self._rows += len(wanted[0])
        for number, (goal, found) in enumerate(zip(wanted, outputs, strict=True)):
            self._sums[number] += goal.sum(axis=0, dtype=np.float64)
            self._squares[number] += _square(goal)
            if found.shape == goal.shape:
                self._errors[number] += _square(found - goal)

    def total(self) -> float:
        """The sum over the outputs; infinite where it is no number."""
        spreads = [
            square - _square(total) / max(self._rows, 1)
            for square, total in zip(self._squares, self._sums, strict=True)
        ]
        total = sum(e / s if s > 0 else e for e, s in zip(self._errors, spreads, strict=True))
        return total if np.isfinite(total) else np.inf


def _square(array: Array) -> float:
    """The sum of the squares, in float64."""
    return float(sum(np.square(row, dtype=np.float64).sum() for row in array))


class _Refit:
    def __init__(self, original: Graph, edited: Graph, data: Any, kept: Kept, samples: int) -> None:
        self.original, self.edited, self.kept = original, edited, kept
        self.calls = _calls_of(edited)
        self.original_calls = _calls_of(original)
        tied = Counter(w.key for op in edited.operations.values() for w in op.weights.values())
        self.tied = {key for key, count in tied.items() if count > 1}
        # Tensors of the edited graph that are the original's, to the last bit.
        self.same: dict[TensorRef, TensorRef] = {}
        wanted = [name for name in self.calls if self._fittable(name)]
        stops = [self.calls[name][0] for name in wanted]
        firsts = [self.original_calls[name][0] for name in wanted]
        # What later layers are fitted to is not to be passed.
        self.reach = {name: min(firsts[n:]) for n, name in enumerate(wanted)}
        inputs = calibration_inputs(original, data, samples)
        # An input and an output, of both graphs, before and after the activation.
        last = max((self.original_calls[name][-1] for name in wanted), default=-1)
        self.inputs = affordable(original, inputs, tensors=6, until=last + 1)
        self.fitted = Parts(edited, self.inputs, stops, edited.output_refs())
        self.targets = Parts(
            original, self.inputs, list(self.reach.values()), original.output_refs()
        )

    def run(self) -> Graph:
        """Fit the layers in the order of their calls; the fitted graph."""
        met: set[str] = set()
        for index, call in enumerate(self.edited.calls):
            name = call.operation
            twin = self._twin(index, call)
            if twin is None and name in self.reach and name not in met:
                self._fit(name)
            met.add(name)
            if twin is not None:
                self.same.update(
                    {TensorRef(index, i): TensorRef(twin, i) for i in range(len(call.outputs))}
                )
        return self.fitted.graph

    def comes_closer(self) -> bool:
        """Whether the outputs of the fitted graph are no further from the original's."""
        before = Parts(self.edited, self.inputs, (), self.edited.output_refs())
        size = min(part.size(len(part.graph.calls)) for part in (self.targets, self.fitted, before))
        unfitted = self._distance(before, size)
        # One after the other, so that the layers of both are not in memory together.
        del before
        return self._distance(self.fitted, size) <= unfitted

    def _distance(self, graph: Parts, size: int) -> float:
        """How far the outputs of a graph are from those of the original, on some samples."""
        bytes_of_outputs = self.targets.bytes_of(self.original.output_refs())
        enough = max(FEWEST_COMPARED, COMPARED_BYTES // max(bytes_of_outputs, 1))
        runs = [parts.before(len(parts.graph.calls), size) for parts in (self.targets, graph)]
        distance = _Distance()
        for (rows, wanted), (_, found) in zip(*runs, strict=True):
            if rows.start >= enough:
                break
            distance.add(_outputs(wanted), _outputs(found))
        return distance.total()

    def _fittable(self, name: str) -> bool:
        """Whether the original has a counterpart whose kept outputs have the same shapes."""
        operation = self.edited.operations[name]
        form = linear_form(operation)
        if form is None and operation.kind != "BatchNormalization":
            return False
        if any(weight.key in self.tied for weight in operation.weights.values()):
            return False
        ours, theirs = self.calls[name], self.original_calls.get(name, [])
        if len(ours) != len(theirs):
            return False
        for mine, other in zip(ours, theirs, strict=True):
            shape = self.edited.calls[mine].outputs[0].shape
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
        if not same_operation(self.fitted.graph.operations[name], self.original.operations[name]):
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
        operation = self.fitted.graph.operations[name]
        form = linear_form(operation)
        first, reach = self.calls[name][0], self.reach[name]
        size = min(self.fitted.size(first), self.targets.size(reach + 1))
        parts = zip(self.fitted.before(first, size), self.targets.before(reach, size), strict=True)
        pairs = ((rows, self._pairs(name, ours, theirs)) for (rows, ours), (_, theirs) in parts)
        if form is None:
            fitted: Operation | None = refit_batch_norm(operation, _whole(pairs))
        else:
            with one_thread(form.matrix(operation).shape[1]):
                fitted = fit_linear(
                    operation, form, pairs, self.fitted.samples, self._feeds_only_batch_norm(name)
                )
        if fitted is not None:
            self.fitted.replace(fitted)

    def _pairs(self, name: str, ours: Run, theirs: Run) -> list[Pair]:
        """For each call of a layer, its input, and what is left of the original's output."""
        pairs = []
        for index, other in zip(self.calls[name], self.original_calls[name], strict=True):
            given = ours.value(ours.graph.calls[index].inputs()[0])
            # The next call is the one that the part ends before, unless layers changed places.
            outcome = theirs.step(other) if theirs.at == other else theirs.ahead(other)
            pairs.append((given.array, take_kept(outcome.before[0].array, self.kept.get(name))))
        return pairs

    def _feeds_only_batch_norm(self, name: str) -> bool:
        graph = self.edited
        outputs = {TensorRef(index, 0) for index in self.calls[name]}
        if outputs & set(graph.output_refs()):
            return False
        readers = [call.operation for call in graph.calls if outputs & set(call.inputs())]
        kinds = [graph.operations[reader].kind for reader in readers]
        return bool(kinds) and all(kind == "BatchNormalization" for kind in kinds)


def fit_linear(
    operation: Operation,
    form: LinearForm,
    parts: Iterable[Part],
    samples: int,
    free_mean: bool = False,
) -> Operation | None:
    """A linear layer fitted to wanted outputs.

    Args:
        operation: The layer; its weights are what the fit is shrunk towards.
        form: How it is linear.
        parts: For each part of the samples, its rows, and for each of the layer's calls its input
            and the wanted output before the activation.
        samples: The number of samples in all parts.
        free_mean: Whether a constant offset of its outputs does not matter, because
            normalisation follows.

    Returns:
        The fitted layer, or `None` where the fit would not make it better.
    """
    matrix, bias = form.matrix(operation), form.bias(operation)
    systems, features, outputs = matrix.shape
    sums = [NormalEquations.empty(systems, features, outputs) for _ in range(2)]
    scale, dtype = 0.0, np.dtype(np.float32)
    for given, wanted, rows, held in _row_blocks(form, parts, features, samples):
        goal = form.outputs(wanted, rows)
        scale += float(np.square(goal).sum())
        x = form.features(given, rows).astype(np.float64)
        linear = x @ matrix
        linear += bias
        sums[held].add(x, np.subtract(goal, linear, out=linear))
        dtype = wanted.dtype
    right = max(RIGHT, rounding(dtype) if is_half(dtype) else 0.0)
    if sums[0].square + sums[1].square <= right**2 * scale:
        return None
    intercept = "bias" in operation.weights or free_mean
    rounded = partial(form.rounded_change, operation)
    change = best_change(sums[0], sums[1], intercept, rounded=rounded)
    return None if change is None else form.changed(operation, change)


def _row_blocks(
    form: LinearForm, parts: Iterable[Part], features: int, samples: int
) -> Iterator[tuple[Array, Array, NDArray[np.int64], bool]]:
    """Rows to fit on, in blocks that fit in memory, those of held-out samples apart."""
    generator = np.random.default_rng(0)
    chosen: list[NDArray[np.int64]] = []
    for part, pairs in parts:
        for number, (given, wanted) in enumerate(pairs):
            shape = form.channels_last(wanted).shape
            each = int(np.prod(shape[1:-1]))
            # A sample may have several steps; what has fewer rows does not depend on samples.
            of_sample = each * (shape[0] // (part.stop - part.start))
            if of_sample == 0 and part.start > 0:
                continue
            if number == len(chosen):
                limit = max(ROWS, ROWS_PER_FEATURE * features) // len(pairs)
                total = samples * of_sample or shape[0] * each
                chosen.append(_some(generator, total, limit))
            begin, end = part.start * of_sample, part.stop * of_sample or shape[0] * each
            rows = chosen[number]
            rows = rows[(rows >= begin) & (rows < end)]
            held = (rows // each) % HELD_OUT == HELD_OUT - 1
            width = features + shape[-1] // form.systems
            size = max(1, CHUNK_BYTES // (8 * form.systems * width))
            for apart in (False, True):
                own = rows[held == apart] - begin
                for start in range(0, len(own), size):
                    yield given, wanted, own[start : start + size], apart


def _some(generator: np.random.Generator, total: int, limit: int) -> NDArray[np.int64]:
    if total <= limit:
        return np.arange(total)
    return np.sort(generator.choice(total, limit, replace=False))


def _outputs(run: Run) -> list[Array]:
    return [to_floats(run.value(ref).array) for ref in run.graph.output_refs()]


def _calls_of(graph: Graph) -> dict[str, list[int]]:
    """The calls of each operation, in order."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, call in enumerate(graph.calls):
        found[call.operation].append(index)
    return found


def _whole(parts: Iterable[Part]) -> list[Pair]:
    """The inputs and wanted outputs of all samples, for each call."""
    every = [pairs for _, pairs in parts]
    return [
        (np.concatenate([one for one, _ in pairs]), np.concatenate([two for _, two in pairs]))
        for pairs in zip(*every, strict=True)
    ]
