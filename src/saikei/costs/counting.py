"""Costs that are counted from shapes: parameters, MACs, bytes and memory for activations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from saikei.budget import BATCH_SIZE, Budget
from saikei.channels import BoolMask, ChannelMap
from saikei.errors import BudgetError
from saikei.graph import Graph, TensorRef, TensorSpec, sized, value_inputs
from saikei.rules import CallView, find_rule
from saikei.rules.base import Shape, product
from saikei.rules.wrapping import JOINED, STEPS
from saikei.tensors import numpy_dtype


@dataclass(frozen=True)
class Counts:
    """Costs that are counted, not measured; it fits `saikei.budget.Costs`.

    Args:
        params: Number of parameters.
        macs: Multiply-accumulates per sample.
        bytes: Size of the weights in the saved file.
        memory: Peak of the bytes of live activations, per sample; `None` if it was not counted.
        latency: Milliseconds of one batch; `None` if it was not measured.
        batch_size: Number of samples in the batch that the latency is measured on.
        mean_macs: Always `None`: only one graph is counted, and no cascade of several.
        mean_latency: Always `None` too.
    """

    params: int
    macs: int
    bytes: int
    memory: int | None = None
    latency: float | None = None
    batch_size: int = BATCH_SIZE
    mean_macs: float | None = None
    mean_latency: float | None = None


def count_costs(channel_map: ChannelMap, keep: BoolMask | None = None) -> Counts:
    """What a graph costs, or what a cut leaves of it, without building a model.

    Args:
        channel_map: A graph with its channels.
        keep: For each channel, whether it stays; `None` keeps all.
    """
    macs = params = size = 0
    seen: set[int] = set()
    graph = channel_map.graph
    for index, call in enumerate(graph.calls):
        operation = graph.operations[call.operation]
        rule = find_rule(operation.kind)
        if rule is None and not operation.weights:
            continue
        view = channel_map.full.view(index, keep)
        macs += _macs_of(view, channel_map.batch) or 0
        for name, weight in operation.weights.items():
            if weight.key not in seen:
                seen.add(weight.key)
                quantised = operation.quantised is not None
                count = product(weight.shape if quantised else view.weights[name])
                params += count
                size += count * numpy_dtype(weight.dtype).itemsize
    return Counts(params, macs, size, peak_bytes(channel_map, keep))


def call_macs(channel_map: ChannelMap, index: int, keep: BoolMask | None = None) -> int | None:
    """Multiply-accumulates of one call for one sample.

    Args:
        channel_map: A graph with its channels; unknown sizes are those of `saikei.graph.sized`.
        index: Position of the call in the graph's calls.
        keep: For each channel, whether it stays; `None` keeps all.

    Returns:
        The number; `None` for a layer with weights and no rule, and where a size is unknown.
    """
    operation = channel_map.graph.operations[channel_map.graph.calls[index].operation]
    if find_rule(operation.kind) is None:
        return None if operation.weights else 0
    return _macs_of(channel_map.full.view(index, keep), channel_map.batch)


def _macs_of(view: CallView, batch: int) -> int | None:
    rule = find_rule(view.kind)
    macs = None if rule is None else rule.macs(view)
    if macs and any(None in shape[1:] for shape in (*view.inputs, *view.outputs)):
        return None
    if macs is None:
        return None
    rows = view.inputs[0][:1] if view.inputs else ()
    # Where a reshape has joined axes, the first axis has several rows for each sample.
    return macs if rows in ((), (None,)) else macs * int(rows[0] or 0) // batch


def check_countable(graph: Graph, budget: Budget) -> None:
    """Refuse a budget on MACs or memory where some depend on a size that is unknown."""
    unknown = sized(graph).unknown()
    if not unknown:
        return
    if budget.memory is not None:
        raise BudgetError(
            f"The budget limits memory, but the output of layer '{unknown[0]}' of model "
            f"'{graph.name}' has a size that is unknown, and none could be assumed: give data of "
            "the size that counts, or limit params."
        )
    if budget.macs is None:
        return
    channel_map = ChannelMap.of_whole(graph)
    for index in range(len(graph.calls)):
        view = channel_map.full.view(index)
        if _is_counted(view) and call_macs(channel_map, index) is None:
            raise BudgetError(
                f"The budget limits MACs, but layer '{view.operation}' of model '{graph.name}' "
                "works on a size that is unknown, and none could be assumed: give data of the "
                "size that counts, or limit params."
            )


def _is_counted(view: CallView) -> bool:
    rule = find_rule(view.kind)
    return rule is not None and rule.macs(view) is not None


def uncounted_layers(channel_map: ChannelMap) -> tuple[str, ...]:
    """Layers whose MACs no rule counts, or which work on a size that is unknown."""
    calls = enumerate(channel_map.graph.calls)
    unknown = [c.operation for index, c in calls if call_macs(channel_map, index) is None]
    return tuple(dict.fromkeys(unknown))


def sample_bytes(spec: TensorSpec, full: Shape, batch: int) -> int:
    """Bytes of one sample of a tensor, of which a sample may have several rows."""
    rows = full[0] if full and spec.shape[:1] == (None,) else None
    return replace(spec, shape=full).bytes_per_sample() * (rows or batch) // batch


def peak_bytes(channel_map: ChannelMap, keep: BoolMask | None = None) -> int:
    """The most bytes of tensors that are alive at once for one sample, while calls run in order.

    Args:
        channel_map: A graph with its channels.
        keep: For each channel, whether it stays; `None` keeps all.
    """
    _, live, sizes = live_tensors(channel_map, keep)
    return int((live @ sizes).max(initial=0.0))


def live_tensors(
    channel_map: ChannelMap, keep: BoolMask | None = None
) -> tuple[list[TensorRef], NDArray[np.float64], NDArray[np.float64]]:
    """The tensors of a graph, and which of them are alive while its calls run in order.

    Args:
        channel_map: A graph with its channels.
        keep: For each channel, whether it stays; `None` keeps all.

    Returns:
        The tensors; for each call and each tensor 1 if it is alive and else 0, `(calls, tensors)`;
        and the bytes of each tensor for one sample.
    """
    calls = channel_map.graph.calls
    same, last_use = _lifetimes(channel_map)
    every = [TensorRef(i, n) for i, call in enumerate(calls) for n in range(len(call.outputs))]
    refs = [ref for ref in every if ref not in same]
    live = np.zeros((len(calls), len(refs)))
    sizes = np.zeros(len(refs))
    for position, ref in enumerate(refs):
        spec, full = channel_map.graph.spec(ref), channel_map.full.shape(ref, keep)
        sizes[position] = sample_bytes(spec, full, channel_map.batch)
        live[ref.call : last_use.get(ref, ref.call) + 1, position] = 1.0
    return refs, live, sizes


def _lifetimes(
    channel_map: ChannelMap,
) -> tuple[dict[TensorRef, TensorRef], dict[TensorRef, int]]:
    """Tensors that are others with other axes, and for each of those the last call to read it."""
    graph = channel_map.graph
    # The ends of a `TimeDistributed` show a tensor with other axes, and hold none of their own.
    same: dict[TensorRef, TensorRef] = {}
    last_use: dict[TensorRef, int] = {}
    for index, call in enumerate(graph.calls):
        operation = graph.operations[call.operation]
        refs = [same.get(ref, ref) for ref in value_inputs(operation, call)]
        last_use.update(dict.fromkeys(refs, index))
        if operation.kind in (STEPS, JOINED):
            same[TensorRef(index, 0)] = refs[0]
    end = len(graph.calls)
    last_use.update({same.get(ref, ref): end for ref in graph.output_refs()})
    return same, last_use
