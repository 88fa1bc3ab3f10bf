"""`ReplacePooling`: other pooling in a trained model, or a convolution in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import keras

from saikei.edits.base import Option, RefittingEdit
from saikei.edits.replacing.averaging import averaging_convolution
from saikei.edits.replacing.poolings import (
    Pooling,
    as_sizes,
    channels,
    pooling_of,
    spatial,
)
from saikei.edits.replacing.selection import (
    calls_of,
    in_the_name_of,
    policy_of,
)
from saikei.errors import EditError, quoted
from saikei.graph import Graph, Operation, new_operation, replace_operations, unused_name

_REDUCTIONS = ("max", "average")
_FORMS = ("adaptive", "global")
_BOTH = tuple(f"{form}_{reduction}" for form in _FORMS for reduction in _REDUCTIONS)
NEW = (*_REDUCTIONS, *_FORMS, *_BOTH, "depthwise_conv", "conv")
OLD = (*_REDUCTIONS, *_FORMS, *_BOTH, "any")

_FIX = "keep the size of its input (size=…), or choose other layers"


@dataclass(frozen=True)
class ReplacePooling(RefittingEdit):
    """Replace pooling layers and operations by others, or by convolutions.

    The shapes after it are computed again; where a layer cannot take its new input (for example a
    `Dense` after a `Flatten`), the edit is refused and nothing is changed.

    The edit is approximate, except for `"conv"` and `"depthwise_conv"` in the place of an
    average pooling without padding: they start as the same function. With padding `"same"` they
    differ from it at the border, where the average does not count the padding.

    Args:
        old: The kind of the poolings to replace: `"max"`, `"average"`, `"adaptive"`, `"global"`,
            `"global_average"` and so on, or `"any"`. Global poolings, which squeeze-and-excite
            has too, stay as they are unless `old` begins with `"global"` or `layers` names them.
        new: What they become:

            - `"max"`, `"average"`: the same windows (or output size, or everything), reduced
              otherwise;
            - `"adaptive"`, `"adaptive_max"`, `"adaptive_average"`: as many windows as give the
              output size `size`, the present one by default. Where Keras has no such layer,
              windows of one size are used;
            - `"global"`, `"global_max"`, `"global_average"`: over all of space, with spatial
              axes of size 1 in the place of a pooling that has some;
            - `"depthwise_conv"`, `"conv"`: a convolution with the windows and strides of the
              pooling and without bias, which starts as the average: one kernel for each channel,
              or a full kernel with a diagonal. A global pooling's window is the whole input.
        layers: The names of the layers to change; all that fit when empty.
        exclude: The names of layers that stay as they are.
        size: The size of the windows (their strides stay), or the output size of an adaptive
            pooling: a number for all axes, or one for each; by default as before.
        compensate: Whether the layers are refitted afterwards, by least squares, to their outputs
            before the edit, if there is data.

    Raises:
        EditError: When an argument is out of range.

    Example:
        >>> edit = ReplacePooling("max", "average")
        >>> ReplacePooling.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    method: ClassVar[str] = "pooling"
    stage: ClassVar[int] = 3
    old: str
    new: str
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    size: int | Sequence[int] | None = None
    compensate: bool = True

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        _check_arguments(self)

    @classmethod
    def options(cls, graph: Graph, data: Any = None) -> tuple[Option, ...]:  # noqa: ARG003
        """For each pooling, the other reduction, a convolution, and one over all of space."""
        options = []
        for name, operation in graph.operations.items():
            pooling = pooling_of(graph, operation)
            if pooling is None:
                continue
            other = "average" if pooling.reduction == "max" else "max"
            offered = ("global_average", "depthwise_conv") if pooling.form != "global" else ()
            for new in (other, *offered):
                change = f"{new.replace('_', ' ')} in place of {pooling}"
                edit = cls("any", new, (name,))
                options.append(Option(f"pooling:{name}", cls.method, change, edit, (name,)))
        return tuple(options)

    def change(self, graph: Graph, data: Any) -> Graph:
        """The graph with other pooling."""
        self.check_layers(graph)
        chains = {}
        for name, pooling in self._chosen(graph).items():
            chain = self._chain(graph, graph.operations[name], pooling)
            if chain:
                chains[name] = chain
        if not chains:
            raise EditError(
                "ReplacePooling would change nothing: every chosen layer is as asked already."
            )
        with in_the_name_of("ReplacePooling", _FIX):
            return replace_operations(graph, chains)

    def _chosen(self, graph: Graph) -> dict[str, Pooling]:
        found = {}
        for name, operation in graph.operations.items():
            pooling = pooling_of(graph, operation)
            if pooling is not None:
                found[name] = pooling
        if self.layers:
            return {name: self._named(graph, found, name) for name in self.layers}
        asked = {n: p for n, p in found.items() if self._matches(p)}
        if "global" not in self.old:
            asked = {n: p for n, p in asked.items() if p.form != "global"}
        chosen = {n: p for n, p in asked.items() if n not in self.exclude}
        if not chosen:
            has = quoted(f"{name}: {pooling}" for name, pooling in found.items())
            which = "pooling" if self.old == "any" else f"'{self.old}' pooling"
            if "global" not in which:
                which += ", other than global,"
            raise EditError(
                f"ReplacePooling finds no {which} to replace: the model has {has or 'none'}"
                f"{', all excluded' if asked else ''}."
            )
        return chosen

    def _named(self, graph: Graph, found: Mapping[str, Pooling], name: str) -> Pooling:
        if name not in found:
            kind = graph.operations[name].kind
            raise EditError(
                f"ReplacePooling: layer '{name}' ({kind}) does not pool; leave it out of layers."
            )
        if not self._matches(found[name]):
            raise EditError(
                f"ReplacePooling: layer '{name}' pools by {found[name]}, not '{self.old}': use "
                "old='any', or leave the layer out."
            )
        return found[name]

    def _matches(self, pooling: Pooling) -> bool:
        asked = self.old.split("_")
        return self.old == "any" or set(asked) <= {pooling.form, pooling.reduction}

    def _chain(self, graph: Graph, operation: Operation, old: Pooling) -> list[Operation]:
        """The replacement of an operation; empty where it is as asked already."""
        call = calls_of(graph, operation.name)[0]
        shape = graph.spec(call.inputs()[0]).shape
        settings = {
            "dtype": policy_of(operation, call.outputs[0].dtype, self.new.endswith("conv")),
            "trainable": bool(getattr(operation.source, "trainable", True)),
        }
        space = spatial(shape, old.data_format)
        try:
            if self.new.endswith("conv"):
                return self._convolution(graph, operation, old, shape, settings)
            new = self._pooling(old, spatial(call.outputs[0].shape, old.data_format))
            if new == old:
                return []
            if new.form == "adaptive":
                _check_output_size(new, space)
            layer = new.layer(space, name=operation.name, **settings)
        except ValueError as error:
            raise EditError(
                f"ReplacePooling: layer '{operation.name}' ({operation.kind}): {error}."
            ) from error
        return [new_operation(operation.name, layer)]

    def _pooling(self, old: Pooling, output_size: tuple[int | None, ...]) -> Pooling:
        """The pooling that replaces an old one."""
        form, reduction = old.form, old.reduction
        for part in self.new.split("_"):
            if part in _FORMS:
                form = part  # type: ignore[assignment]
            else:
                reduction = part  # type: ignore[assignment]
        new = replace(old, form=form, reduction=reduction)
        if form == "global":
            if self.size is not None:
                raise ValueError("it is global, so it has no size; leave out size")
            keepdims = old.keepdims if old.form == "global" else True
            return Pooling(reduction, form, old.rank, old.data_format, keepdims=keepdims)
        if old.form == "global" and not old.keepdims:
            raise ValueError("it leaves no spatial axes, so it can only become another global one")
        if form == "adaptive":
            size = self._sizes(old) or output_size
            known = tuple(s for s in size if s is not None)
            if len(known) < old.rank:
                raise ValueError(f"its output size {output_size} is not known: give size")
            return Pooling(reduction, form, old.rank, old.data_format, known)
        return replace(new, size=self._sizes(old) or old.size)

    def _sizes(self, old: Pooling) -> tuple[int, ...] | None:
        if self.size is None:
            return None
        sizes = as_sizes(self.size, old.rank)
        if len(sizes) != old.rank:
            raise ValueError(f"size={self.size} has not one number for each of {old.rank} axes")
        return sizes

    def _convolution(
        self,
        graph: Graph,
        operation: Operation,
        old: Pooling,
        shape: tuple[int | None, ...],
        settings: dict[str, Any],
    ) -> list[Operation]:
        count = channels(shape, old.data_format)
        if count is None:
            raise ValueError("the number of its channels is not known")
        if self.size is not None and old.form != "window":
            raise ValueError(f"it is {old.form}, so its windows follow from its input; no size")
        window = old.as_window(spatial(shape, old.data_format))
        if not _divides(old, spatial(shape, old.data_format)):
            raise ValueError("its windows are not of one size, so no convolution does the same")
        window = replace(window, size=self._sizes(old) or window.size)
        flat = old.form == "global" and not old.keepdims
        name = unused_name(graph, f"{operation.name}_conv") if flat else operation.name
        depthwise = self.new == "depthwise_conv"
        chain = [averaging_convolution(window, count, depthwise, name, **settings)]
        if flat:
            reshape = keras.layers.Reshape((count,), name=operation.name, dtype=settings["dtype"])
            chain.append(new_operation(operation.name, reshape))
        return chain


def _check_arguments(edit: ReplacePooling) -> None:
    if edit.new not in NEW:
        raise EditError(f"Unknown pooling {edit.new!r}: use one of {', '.join(NEW)}.")
    if edit.old not in OLD:
        raise EditError(f"Unknown old pooling {edit.old!r}: use one of {', '.join(OLD)}.")
    if edit.size is None:
        return
    sizes = edit.size if isinstance(edit.size, Sequence) else (edit.size,)
    if not sizes or any(size < 1 for size in sizes):
        raise EditError(f"ReplacePooling(size={edit.size!r}): give a number of 1 or more, or some.")
    if edit.new.startswith("global"):
        raise EditError(f"ReplacePooling(new='{edit.new}', size=…): a global pooling has no size.")


def _check_output_size(new: Pooling, space: tuple[int | None, ...]) -> None:
    if any(s is not None and out > s for out, s in zip(new.size, space, strict=True)):
        raise ValueError(f"its output size {new.size} is above its input size {space}")


def _divides(old: Pooling, space: tuple[int | None, ...]) -> bool:
    """Whether an adaptive pooling's windows are all of one size."""
    if old.form != "adaptive":
        return True
    return all(s is not None and s % out == 0 for out, s in zip(old.size, space, strict=True))
