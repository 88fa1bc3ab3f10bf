"""Whether models can be members of one fusion, and their copies side by side in one graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import keras
from keras import tree

from saikei.errors import FusionError
from saikei.fusion.fitting_inputs import how_to_fit
from saikei.fusion.masks import all_with_masks, called_with_masks
from saikei.graph import Graph, TensorRef, TensorSpec, build, read
from saikei.graph.compiling import Compiled, same_losses
from saikei.graph.finite import check_finite_weights
from saikei.hub import without_preprocessor
from saikei.scoring.outputs import Outputs, read_outputs
from saikei.training.cross_fit import CrossFit


@dataclass(frozen=True, eq=False)
class Members:
    """The members of a fusion, each read once: fusions pass this on instead of reading again.

    Args:
        models: The members as they were given; of `CrossFit` the model of the first fold for each
            name.
        graphs: The graph of each of these models.
        cross_fit: The `CrossFit` that the members come from; `None` for others.
        stored: The stored outputs of each member, if only the predictions are known; the models and
            graphs are empty then.
    """

    models: tuple[keras.Model, ...]
    graphs: tuple[Graph, ...] = field(repr=False)
    cross_fit: CrossFit | None = field(default=None, repr=False)
    stored: tuple[Outputs, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, given: AnyMembers) -> Members:
        """Read members, unless they were read already.

        Args:
            given: Models, what `cross_fit` gives, or `Members`, which are returned unchanged.

        Raises:
            FusionError: When something else than a model is among them, or a member's weights are
                NaN or infinite.
            ModelError: When a member cannot be read.
        """
        if isinstance(given, Members):
            return given
        if isinstance(given, CrossFit):
            models = tuple(folds[0] for folds in given.members.values())
            return cls(models, tuple(map(read, models)), given)
        check_models(given)
        models = (given,) if isinstance(given, keras.Model) else tuple(given)
        # Tasks of KerasHub would preprocess what they predict.
        models = tuple(without_preprocessor(models))
        graphs = tuple(map(read, models))
        for number, graph in enumerate(graphs, start=1):
            check_finite_weights(f"Member {number}", graph, FusionError)
        return cls(models, graphs)

    def __len__(self) -> int:
        return len(self.stored or self.models)

    @cached_property
    def outputs(self) -> tuple[Outputs, ...]:
        """The outputs of each member: their shapes, nesting and last activations."""
        return self.stored or tuple(map(read_outputs, self.graphs))

    @property
    def activations(self) -> tuple[str, ...]:
        """The last activation of each output; `check_alike` makes sure that members agree."""
        return tuple(output.activation for output in self.outputs[0].each)

    @property
    def widths(self) -> tuple[int | None, ...]:
        """The size of the last axis of each output."""
        return tuple(output.shape[-1] for output in self.outputs[0].each)

    @property
    def names(self) -> list[str]:
        """The names of the models, or those that `cross_fit` was given."""
        if self.cross_fit is not None:
            return list(self.cross_fit.members)
        if self.stored:
            return [f"member_{number}" for number in range(1, len(self) + 1)]
        return [model.name for model in self.models]

    @cached_property
    def deployed(self) -> Members:
        """The models that a fused model is made of.

        These are the members themselves; of `cross_fit` for each name the model that was trained
        on all rows, or otherwise the mean of the folds' models.
        """
        made = self.cross_fit
        if made is None:
            return self
        if made.refitted:
            return Members.of(tuple(made.refitted.values()))
        firsts = zip(made.members.values(), self.models, self.graphs, strict=True)
        return Members.of(
            [
                model if len(folds) == 1 else mean_model(_with_first(folds, graph))
                for folds, model, graph in firsts
            ]
        )

    def compile(self, model: keras.Model) -> keras.Model:
        """Compile a fused model as the members are, if they all have the same loss.

        Args:
            model: A model whose outputs have the meaning of the members' outputs, or others; then
                it stays uncompiled.

        Returns:
            The same model.
        """
        compiled = self.compiled
        if compiled is not None and read_outputs(read(model)).each == self.outputs[0].each:
            compiled.compile(model)
        return model

    @property
    def compiled(self) -> Compiled | None:
        """How the first member is compiled, if all members have the same loss."""
        marks = [mark for graph in self.graphs for mark in graph.marks]
        known = [mark for mark in marks if isinstance(mark, Compiled)]
        return known[0] if len(known) == len(self) and same_losses(known) else None

    def take(self, indices: Sequence[int]) -> Members:
        """Some of the members, by their indices."""
        return Members(
            tuple(self.models[index] for index in indices),
            tuple(self.graphs[index] for index in indices),
        )

    def check_several(self) -> None:
        """Check that there are two members or more.

        Raises:
            FusionError: When there are not.
        """
        if len(self) >= 2:
            return
        if self.cross_fit is not None:
            raise FusionError(
                "A fusion needs at least two members, got one from cross_fit: give it several, "
                "cross_fit({'a': …, 'b': …}, data)."
            )
        raise FusionError(
            f"A fusion needs at least two members, got {len(self)}: give a list of them."
        )

    def check_alike(self) -> None:
        """Check that there are several members with the same inputs and the same outputs.

        Members that take dictionaries of inputs share those of the same name and may have others
        besides, for example members for images and members for tables.

        Raises:
            FusionError: Naming the members that differ, and what to do.
        """
        self.check_several()
        interfaces = [_Interface(*each) for each in zip(self.graphs, self.outputs, strict=True)]
        for number, member in enumerate(self.models[1:], start=2):
            pair = f"Member 1 ('{self.models[0].name}') and member {number} ('{member.name}')"
            _compare(pair, interfaces[0], interfaces[number - 1])


AnyMembers: TypeAlias = Sequence[keras.Model] | CrossFit | Members


def _with_first(models: Sequence[keras.Model], first: Graph) -> Members:
    """Models of which the first one was read already."""
    return Members(tuple(models), (first, *map(read, models[1:])))


def check_models(members: Any) -> None:
    """Check that members are models: one, or a list of some."""
    if isinstance(members, keras.Model):
        return
    listed = isinstance(members, Sequence) and not isinstance(members, (str, bytes))
    wrong = [members] if not listed else [m for m in members if not isinstance(m, keras.Model)]
    if wrong:
        raise FusionError(
            f"A fusion got a {type(wrong[0]).__name__} where it needs a keras.Model: give a list "
            "of models, files by keras.saving.load_model first."
        )


@dataclass(frozen=True)
class _Interface:
    graph: Graph
    outputs: Outputs

    @property
    def inputs(self) -> list[TensorSpec]:
        return [self.graph.spec(ref) for ref in self.graph.input_refs()]

    @property
    def input_structure(self) -> Any:
        return self.graph.inputs


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
    members: Members, also: Callable[[Graph], list[TensorRef]] | None = None
) -> tuple[Any, list[list[Any]]]:
    """Copies of the members called on one set of new inputs.

    Args:
        members: Members with equal inputs and outputs; they are not changed.
        also: Names tensors inside a member's graph that are needed as well.

    Returns:
        The inputs, nested as the first member takes them, or a dictionary with those of all
        members, and for each member its outputs, flattened, as symbolic tensors, followed by the
        tensors that `also` names.
    """
    inputs = new_inputs(members.graphs[0])
    for graph in members.graphs[1:]:
        if isinstance(inputs, dict):
            inputs |= {n: one for n, one in new_inputs(graph).items() if n not in inputs}
    tensors = []
    for number, graph in enumerate(members.graphs, start=1):
        named = graph
        if also is not None:
            named = replace(graph, outputs=[*graph.output_refs(), *also(graph)])
        copy = build(named, f"member_{number}")
        tensors.append(called_with_masks(copy, inputs_of(graph, inputs)))
    return inputs, tensors


def inputs_of(graph: Graph, inputs: Any) -> Any:
    """The inputs of one member among those of all: those of its names, or all of them.

    Args:
        graph: The member's graph.
        inputs: Arrays or tensors, nested as `side_by_side` gives them.
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


def mean_model(members: Members) -> keras.Model:
    """One model that gives the mean of the members' outputs."""
    inputs, outputs = side_by_side(members)
    means = [
        keras.layers.Average(name=numbered_name("average", index, len(outputs[0])))(
            all_with_masks(parts, numbered_name("masked_{}", index, len(outputs[0])))
        )
        for index, parts in enumerate(zip(*outputs, strict=True))
    ]
    return keras.Model(inputs, members.outputs[0].pack(means), name="average")


def numbered_name(name: str, index: int, outputs: int) -> str:
    """The name of a layer for one of several outputs."""
    return name if outputs == 1 else f"{name}_output_{index + 1}"
