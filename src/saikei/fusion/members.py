"""Whether models can be members of one fusion, and their copies side by side in one graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import tree

from saikei.errors import FusionError
from saikei.fusion.fitting_inputs import how_to_fit
from saikei.graph import Graph, TensorRef, TensorSpec, build, copy_model, read
from saikei.scoring.outputs import Outputs, read_outputs


@dataclass(frozen=True)
class _Interface:
    inputs: list[TensorSpec]
    input_structure: Any
    outputs: Outputs


def check_several(members: Sequence[keras.Model]) -> None:
    """Check that there are two members or more.

    Raises:
        FusionError: when there are not.
    """
    check_models(members)
    if isinstance(members, keras.Model) or len(members) < 2:
        given = "one" if isinstance(members, keras.Model) else str(len(members))
        raise FusionError(f"A fusion needs at least two members, got {given}: give a list of them.")


def check_models(members: Any) -> None:
    """Check that members are models: one, or a list of some.

    Raises:
        FusionError: naming the first that is none.
    """
    if isinstance(members, keras.Model):
        return
    listed = isinstance(members, Sequence) and not isinstance(members, (str, bytes))
    wrong = [members] if not listed else [m for m in members if not isinstance(m, keras.Model)]
    if wrong:
        raise FusionError(
            f"A fusion got a {type(wrong[0]).__name__} where it needs a keras.Model: give a list "
            "of models, files by keras.saving.load_model first."
        )


def check_members(members: Sequence[keras.Model]) -> None:
    """Check that the members take the same inputs and give the same outputs.

    Members that take dictionaries of inputs share those of the same name and may have others
    besides: image, tabular and text models, say.

    Raises:
        FusionError: naming the members that differ, and the mend.
        ModelError: when a member cannot be read.
    """
    check_several(members)
    first = _interface(members[0])
    for number, member in enumerate(members[1:], start=2):
        pair = f"Member 1 ('{members[0].name}') and member {number} ('{member.name}')"
        _compare(pair, first, _interface(member))


def _interface(model: keras.Model) -> _Interface:
    graph = read(model)
    return _Interface(
        inputs=[graph.spec(ref) for ref in graph.input_refs()],
        input_structure=graph.inputs,
        outputs=read_outputs(model),
    )


def _compare(pair: str, a: _Interface, b: _Interface) -> None:
    if isinstance(a.input_structure, dict) and isinstance(b.input_structure, dict):
        _compare_named(pair, a, b)
    elif _nesting(a.input_structure) != _nesting(b.input_structure):
        raise FusionError(
            f"{pair} take {_nesting(a.input_structure)} and {_nesting(b.input_structure)}: "
            "rebuild one of them with the other's inputs, or use Multimodal."
        )
    else:
        _compare_specs(f"{pair} take inputs", a.inputs, b.inputs, alone=len(a.inputs) == 1)
    if _nesting(a.outputs.structure) != _nesting(b.outputs.structure):
        raise FusionError(
            f"{pair} give {_nesting(a.outputs.structure)} and {_nesting(b.outputs.structure)}: "
            "rebuild one of them with the other's outputs."
        )
    for ours_out, theirs_out in zip(a.outputs.each, b.outputs.each, strict=True):
        if ours_out.shape != theirs_out.shape:
            raise FusionError(
                f"{pair} give outputs {ours_out.shape} and {theirs_out.shape}: members need the "
                "same classes in the same order."
            )
        if ours_out.activation != theirs_out.activation:
            raise FusionError(
                f"{pair} end in {ours_out.activation} and {theirs_out.activation}, which do not "
                "average: add the missing activation, for example keras.layers.Softmax()."
            )


def _compare_named(pair: str, a: _Interface, b: _Interface) -> None:
    ours, theirs = (
        # Keras flattens dictionaries in the order of their sorted names.
        dict(zip(sorted(side.input_structure), side.inputs, strict=True))
        for side in (a, b)
    )
    for name in ours.keys() & theirs.keys():
        _compare_specs(f"{pair} take as '{name}'", [ours[name]], [theirs[name]], alone=False)


def _compare_specs(
    what: str, a: Sequence[TensorSpec], b: Sequence[TensorSpec], alone: bool
) -> None:
    ours, theirs = ([(spec.shape, spec.dtype) for spec in side] for side in (a, b))
    if ours != theirs:
        raise FusionError(f"{what} {_shown(ours)} and {_shown(theirs)}. {how_to_fit(a, b, alone)}.")


def _nesting(structure: Any) -> str:
    if isinstance(structure, dict):
        return f"a dict of {sorted(structure)}"
    if isinstance(structure, (list, tuple)):
        return f"a list of {len(structure)}"
    return "one tensor"


def _shown(specs: list[tuple[Any, str]]) -> str:
    return ", ".join(f"{shape} {dtype}" for shape, dtype in specs)


def side_by_side(
    members: Sequence[keras.Model], also: Callable[[Graph], list[TensorRef]] | None = None
) -> tuple[Any, list[list[Any]]]:
    """Copies of the members called on one set of new inputs.

    Args:
        members: as `check_members` has them; they are not changed.
        also: says of a member's graph which tensors inside it are wanted too.

    Returns:
        The inputs, nested as the first member takes them, or a dictionary with those of all
        members, and for each member its outputs, flattened, as symbolic tensors; behind them what
        `also` asked for.
    """
    graphs = [read(member) for member in members]
    inputs = new_inputs(graphs[0])
    for graph in graphs[1:]:
        if isinstance(inputs, dict):
            inputs |= {n: one for n, one in new_inputs(graph).items() if n not in inputs}
    numbered = enumerate(members, start=1)
    copies = [_copy(member, f"member_{number}", also) for number, member in numbered]
    own = [inputs_of(graph, inputs) for graph in graphs]
    called = zip(copies, own, strict=True)
    return inputs, [list(tree.flatten(copy(taken))) for copy, taken in called]


def inputs_of(graph: Graph, inputs: Any) -> Any:
    """What a member takes of the inputs of all: those of its names, or all of them.

    Args:
        graph: of the member.
        inputs: arrays or tensors, nested as `side_by_side` gives them.
    """
    return (
        {name: inputs[name] for name in graph.inputs} if isinstance(graph.inputs, dict) else inputs
    )


def new_inputs(graph: Graph) -> Any:
    """New symbolic inputs like those of a graph, nested and named as it has them."""

    def new_input(ref: TensorRef) -> Any:
        spec, name = graph.spec(ref), graph.calls[ref.call].operation
        return keras.Input(batch_shape=spec.shape, dtype=spec.dtype, name=name)

    return tree.map_structure(new_input, graph.inputs)


def _copy(
    member: keras.Model, name: str, also: Callable[[Graph], list[TensorRef]] | None
) -> keras.Model:
    if also is None:
        return copy_model(member, name)
    graph = read(member)
    return build(replace(graph, outputs=[*graph.output_refs(), *also(graph)]), name)


def mean_model(members: Sequence[keras.Model]) -> keras.Model:
    """One model that gives the mean of the members' outputs.

    Args:
        members: as `check_members` has them; they are not changed.
    """
    inputs, outputs = side_by_side(members)
    means = [
        keras.layers.Average(name=numbered_name("average", place, len(outputs[0])))([*parts])
        for place, parts in enumerate(zip(*outputs, strict=True))
    ]
    return keras.Model(inputs, read_outputs(members[0]).pack(means), name="average")


def numbered_name(name: str, place: int, outputs: int) -> str:
    """The name of a layer that belongs to one of several outputs."""
    return name if outputs == 1 else f"{name}_output_{place + 1}"
