"""Branches beside a shortcut."""

from __future__ import annotations

from saikei.edits.depth.dominators import NORMALISATIONS, ancestors, dominators, has_kernel
from saikei.edits.depth.units import Unit, make_unit
from saikei.edits.folding.no_ops import activation_name
from saikei.graph import Graph, TensorRef

_MERGES = {"Add", "ops.Add"}
# Of these, only the first input stays what it is when the others are left out.
_FROM_FIRST = {"CustomScaleLayer", "Subtract", "ops.Subtract"}
_POOLS = ("AveragePooling", "Cropping", "MaxPooling", "ZeroPadding")
# A shortcut may have one layer that mixes channels.
_SHORTCUT_KERNELS = 1


def residual_units(graph: Graph) -> list[Unit]:
    """Sums of a tensor and of what is computed from it: y = x + f(x).

    Either every path to the branch f passes x, or f reads x, perhaps normalised, and something
    else: attention over another sequence is a branch too.
    """
    before, passed = ancestors(graph), dominators(graph)
    units = []
    for index, call in enumerate(graph.calls):
        for ref in _shortcuts(graph, index):
            others = [other for other in call.inputs() if other != ref]
            if len(others) < len(call.inputs()) - 1:
                continue
            if not all(before[other.call] >> ref.call & 1 for other in others):
                continue
            unit = make_unit(graph, call.operation, "residual", {TensorRef(index, 0): ref})
            if unit is not None and _kernels(graph, unit):
                within = all(passed[other.call] >> ref.call & 1 for other in others)
                if within or _begins(graph, unit, index):
                    units.append(unit)
            break
    return units


def projection_units(graph: Graph) -> list[Unit]:
    """Sums of a branch and of a linear layer or pooling of what it reads: y = Wx + f(x).

    Without the branch, the linear layer stays.
    """
    before = ancestors(graph)
    units = []
    for index, call in enumerate(graph.calls):
        refs = call.inputs()
        for ref in _shortcuts(graph, index):
            others = [other for other in refs if other != ref]
            if len(refs) != 2 or len(others) != 1:
                continue
            kernels = _linear_from(graph, ref, before[others[0].call])
            unit = make_unit(graph, call.operation, "projection", {TensorRef(index, 0): ref})
            if kernels is None or unit is None or _kernels(graph, unit) <= kernels:
                continue
            units.append(unit)
            break
    return units


def _shortcuts(graph: Graph, index: int) -> list[TensorRef]:
    """The inputs of a call that it could be replaced by; none where it is no merge."""
    call = graph.calls[index]
    kind = graph.operations[call.operation].kind
    refs = call.inputs()
    if len(refs) < 2 or len(refs) != len([leaf for leaf in call.leaves() if leaf is not None]):
        return []
    if kind in _FROM_FIRST:
        return refs[:1]
    return refs if kind in _MERGES else []


def _kernels(graph: Graph, unit: Unit) -> int:
    return sum(has_kernel(graph.operations[graph.calls[i].operation]) for i in unit.calls)


def _begins(graph: Graph, unit: Unit, merge: int) -> bool:
    """Whether the branch reads the shortcut, or what comes of it without another layer.

    Attention scores, for example, to which a bias is added that earlier layers added too, depend
    on that bias without being a branch of it.
    """
    (shortcut,) = unit.around.values()
    pending = [ref for i in unit.calls - {merge} for ref in graph.calls[i].inputs()]
    seen = set(pending)
    while pending:
        ref = pending.pop()
        if ref == shortcut:
            return True
        call = graph.calls[ref.call]
        if ref.call < shortcut.call or has_kernel(graph.operations[call.operation]):
            continue
        fresh = [given for given in call.inputs() if given not in seen]
        seen.update(fresh)
        pending.extend(fresh)
    return False


def _linear_from(graph: Graph, ref: TensorRef, others: int) -> int | None:
    """The number of kernels between a tensor and the first that the other branch reads too.

    `None` where there is more than a linear layer and pooling, or nothing.
    """
    if others >> ref.call & 1:
        return None
    kernels = 0
    while not others >> ref.call & 1:
        call = graph.calls[ref.call]
        operation = graph.operations[call.operation]
        mixes = has_kernel(operation)
        passes = operation.kind in NORMALISATIONS or operation.kind.startswith(_POOLS)
        linear = activation_name(operation) in (None, "linear")
        if len(call.inputs()) != 1 or not linear or not (mixes or passes):
            return None
        kernels += mixes
        ref = call.inputs()[0]
    return kernels if kernels <= _SHORTCUT_KERNELS else None


def block_units(graph: Graph, residual: list[Unit]) -> list[Unit]:
    """Residual units that follow each other and belong together: attention and feed-forward.

    A block begins with attention and ends before the next attention that does not follow
    attention at once, so that a decoder's attention to itself and to the encoder stay together.

    Args:
        graph: The graph that the units are in.
        residual: Its residual units.
    """
    by_output = {next(iter(unit.around)): unit for unit in residual}
    follows: dict[str, Unit] = {}
    for unit in residual:
        ref = _before_norms(graph, next(iter(unit.around.values())))
        if ref in by_output:
            follows[by_output[ref].name] = unit
    later = {unit.name for unit in follows.values()}
    blocks = []
    for first in residual:
        if first.name in later:
            continue
        chain = [first]
        while chain[-1].name in follows:
            chain.append(follows[chain[-1].name])
        blocks += [_block(graph, part) for part in _parts(graph, chain)]
    return [block for block in blocks if block is not None]


def _before_norms(graph: Graph, ref: TensorRef) -> TensorRef:
    """The tensor before normalisations, which are between blocks that normalise last."""
    while graph.operations[graph.calls[ref.call].operation].kind in NORMALISATIONS:
        ref = graph.calls[ref.call].inputs()[0]
    return ref


def _parts(graph: Graph, chain: list[Unit]) -> list[list[Unit]]:
    parts: list[list[Unit]] = []
    attended = True
    for unit in chain:
        attends = _attends(graph, unit)
        if (attends and not attended) or not parts:
            parts.append([])
        parts[-1].append(unit)
        attended = attends
    return [part for part in parts if len(part) > 1 and _attends(graph, part[0])]


def _block(graph: Graph, part: list[Unit]) -> Unit | None:
    around = {given: taken for unit in part for given, taken in unit.around.items()}
    return make_unit(graph, "+".join(unit.name for unit in part), "block", around)


def _attends(graph: Graph, unit: Unit) -> bool:
    kinds = {graph.operations[graph.calls[i].operation].kind for i in unit.calls}
    if any(kind.endswith("Attention") for kind in kinds):
        return True
    # Attention written out: a softmax and products of two tensors.
    return bool(kinds & {"Softmax", "ops.Softmax"}) and bool(
        kinds & {"Dot", "ops.Dot", "ops.Einsum", "ops.Matmul"}
    )
