"""`ReplaceHead`: cut a model at a layer, and put a new head on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, cast

import keras

from saikei.edits.base import Edit, Option
from saikei.edits.heads.flattened import flattened_head
from saikei.edits.heads.given import layer_from, normalised
from saikei.edits.heads.new_head import POOLINGS, HeadRequest, built_on, of_classes, put_behind
from saikei.edits.heads.places import cut_at, old_head, output_number, replaced_head
from saikei.edits.replacing.functions import asked_function
from saikei.errors import EditError
from saikei.graph import Graph, TensorRef
from saikei.graph.compiling import uncompiled
from saikei.graph.instantiate import seeded
from saikei.limits import check_seed, check_whole
from saikei.scoring.outputs import read_outputs

Head: TypeAlias = keras.Model | keras.Layer | Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True)
class ReplaceHead(Edit):
    """Cut a model at a layer, and put a new head there, or none.

    The outputs of the layers that are left stay exactly the same. The weights of a new head are
    fresh, except those of a model that is given as the head.

    Args:
        at: The layer, or the model within the model, whose output the new head reads. By default
            it reads what the last layer with weights before the output reads, so that the old head
            is taken off.
        classes: How many numbers the new head gives: a layer of the kind of the old head's, or a
            Dense layer.
        activation: What a head of `classes` ends in; by default what the old head ends in.
        head: The new head instead: a layer of Keras or a list of them (or of their configs, as
            `{"class_name": "Dense", "config": {"units": 3}}`), or a model. Without `classes` and
            `head` the model ends where it is cut.
        output: The output that gets the new head, by name or number from 0; the others stay. By
            default `at` cuts all of them off.
        pooling: How a head of `classes` makes vectors of maps and sequences: `"avg"` or `"max"`.
        call: The number of the call, from 0, of a layer that is called several times.
        seed: Seed of the new weights.

    Raises:
        EditError: When an argument is out of range, or arguments contradict each other.

    Example:
        >>> edit = ReplaceHead(at="pool", classes=3, activation="softmax")
        >>> ReplaceHead.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    method: ClassVar[str] = "head"
    stage: ClassVar[int] = 0
    replaces: ClassVar[bool] = True
    computes: ClassVar[bool] = False
    at: str | None = None
    classes: int | None = None
    activation: str | None = None
    head: Head | None = field(
        default=None,
        metadata={"json": "give the layers of the model as a list, which get fresh weights"},
    )
    output: int | str | None = None
    pooling: str | None = None
    call: int | None = None
    seed: int = 0

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        object.__setattr__(self, "head", normalised(self.head))
        _check_arguments(self)

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph with the new head; `data` is not used."""
        refs = graph.output_refs()
        number = None if self.output is None else output_number(graph, self.output)
        if number is None and self.at is None:
            if len(refs) > 1:
                shown = ", ".join(f"'{graph.calls[ref.call].operation}'" for ref in refs)
                raise EditError(
                    f"Model '{graph.name}' has {len(refs)} outputs ({shown}): name the "
                    "output that gets the new head, as in output=0, or cut all of them off, "
                    "at=…."
                )
            number = 0
        old_output = refs[number or 0]
        ref = self._ref(graph, old_output)
        if self.classes is None and self.head is None and ref == old_output:
            raise EditError(
                f"ReplaceHead(at='{self.at}') would change nothing: that is what model "
                f"'{graph.name}' gives already. Cut at a layer before it, or give a new head."
            )
        where = f"layer '{self.at or graph.calls[ref.call].operation}' of model '{graph.name}'"
        with seeded(self.seed):
            head = built_on(graph.spec(ref), self._layers(graph, ref, where), where)
        changed = put_behind(graph, ref, head, number)
        alike = read_outputs(changed).each == read_outputs(graph).each
        return changed if alike else uncompiled(changed)

    @classmethod
    def options(cls, graph: Graph, data: Any = None) -> tuple[Option, ...]:  # noqa: ARG003
        """For each flattened map that dense layers read, its mean or maximum instead.

        The dense layers are new ones of the same names, which a refit fits to the old ones.
        """
        options = []
        for number, output in enumerate(graph.output_refs()):
            head = flattened_head(graph, output)
            if head is None:
                continue
            several = len(graph.output_refs()) > 1
            for pooling in POOLINGS:
                edit = cls(
                    at=head.at, head=head.pooled(pooling), output=number if several else None
                )
                change = f"global {pooling} pooling in place of '{head.layers[0]}'"
                site = f"head:{head.layers[0]}"
                options.append(Option(site, cls.method, change, edit, head.layers))
        return tuple(options)

    def _ref(self, graph: Graph, output: TensorRef) -> TensorRef:
        if self.at is None:
            return old_head(graph, output).reads
        return cut_at(graph, self.at, self.call)

    def _layers(self, graph: Graph, ref: TensorRef, where: str) -> keras.Model | list[keras.Layer]:
        if isinstance(self.head, keras.Model):
            return self.head
        if self.head is not None:
            return [layer_from(config) for config in cast(Sequence[Any], self.head)]
        if self.classes is None:
            return []
        given = graph.output_refs()
        outputs = given if self.output is None else [given[output_number(graph, self.output)]]
        old = replaced_head(graph, outputs) if self.at else old_head(graph, outputs[0])
        asked = HeadRequest(self.classes, self.activation, self.pooling)
        return of_classes(graph.spec(ref), where, old, self.at is not None, asked)


def _check_arguments(edit: ReplaceHead) -> None:
    if edit.classes is not None and edit.head is not None:
        raise EditError("ReplaceHead: give classes or head, not both.")
    for name, other in (("activation", "classes"), ("pooling", "classes"), ("call", "at")):
        if getattr(edit, name) is not None and getattr(edit, other) is None:
            raise EditError(
                f"ReplaceHead({name}={getattr(edit, name)!r}) goes with {other}=…: give both."
            )
    for name in ("classes", "call"):
        if getattr(edit, name) is not None:
            least = int(name == "classes")
            check_whole(f"ReplaceHead: {name}", getattr(edit, name), least, kind=EditError)
    check_seed(edit.seed, EditError, "ReplaceHead: seed")
    _check_names(edit)


def _check_names(edit: ReplaceHead) -> None:
    if edit.pooling not in (None, *POOLINGS):
        raise EditError(f"ReplaceHead(pooling={edit.pooling!r}): use 'avg' or 'max'.")
    if edit.activation is not None:
        asked_function("ReplaceHead", edit.activation, {})
