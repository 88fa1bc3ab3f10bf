"""`ReplaceKernel`: convolutions with smaller or larger kernels, or with two in the place of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from saikei.edits.base import Option, RefittingEdit
from saikei.edits.replacing.convolutions import (
    CORRELATION,
    DEPTHWISE,
    PLAIN,
    RESIZABLE,
    one_after_another,
    resized,
)
from saikei.edits.replacing.poolings import as_sizes
from saikei.edits.replacing.selection import in_the_name_of
from saikei.errors import EditError, quoted
from saikei.graph import Graph, Operation, replace_operations

# Sizes of the kernels that are offered to the search.
SIZES = (1, 3, 5)

HOW = ("auto", "crop", "resample", "stack")

_FIX = "exclude that layer"


@dataclass(frozen=True)
class ReplaceKernel(RefittingEdit):
    """Give convolutions kernels of another size, with the weights carried over.

    What a layer gives keeps its shape and its place: where the padding cannot express that, a
    padding or cropping layer comes before. Strides, dilation, groups, bias and activation stay.
    Layers whose kernel has the new size already are left alone. In the others a number applies to
    the axes along which the kernel has more than one tap; a 1×1 kernel grows only when `layers` or
    `old` names it. Transposed convolutions are not changed. To write k×k as k×1 and 1×k, use
    `Factorize(scheme="spatial")`.

    A larger kernel starts as the same function. Otherwise the edit is approximate.

    Args:
        old: The size of the kernels to replace, a number or one for each axis; `"any"` for all.
        new: The new size, a number or one for each axis. With `how="stack"`, the size of the
            first of two kernels: 3 makes two 3×3 of a 5×5, and a 3×3 and a 5×5 of a 7×7.
        layers: The names of the layers to change; all that fit when empty.
        exclude: The names of layers that stay as they are.
        how: How the new weights are made:

            - `"crop"`: a smaller kernel is the middle of the old one;
            - `"resample"`, which is what `"auto"` does: the middle, with the taps that are lost
              added to it by least squares, for inputs whose neighbours correlate by 0.9;
            - `"stack"`: two kernels in a row, fitted by alternating least squares.

            A causal convolution keeps its last taps rather than the middle.
        middle: The number of channels between two stacked kernels, or a share of the layer's own
            filters (`float`); by default as many as the layer has filters. No more are made
            than the fit can use.
        compensate: Whether the layers are refitted afterwards, by least squares, to their outputs
            before the edit, if there is data.

    Raises:
        EditError: When an argument is out of range.

    Example:
        >>> edit = ReplaceKernel(5, 3, how="stack")
        >>> ReplaceKernel.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    method: ClassVar[str] = "kernel"
    old: int | Sequence[int] | str
    new: int | Sequence[int]
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    how: str = "auto"
    middle: int | float | None = None
    compensate: bool = True

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        _check_arguments(self)

    def change(self, graph: Graph, data: Any) -> Graph:
        """The graph with other kernels."""
        self.check_layers(graph)
        chains = {name: self._chain(graph, graph.operations[name]) for name in self._chosen(graph)}
        with in_the_name_of("ReplaceKernel", _FIX):
            return replace_operations(graph, chains)

    @classmethod
    def options(cls, graph: Graph, data: Any = None) -> tuple[Option, ...]:  # noqa: ARG003
        """For each convolution with more than one tap, kernels of other sizes."""
        options = []
        for name, operation in graph.operations.items():
            kernel = _kernel(operation) if operation.kind in RESIZABLE else (1,)
            if max(kernel) == 1:
                continue
            edits = {
                f"{_times(_fitted(n, kernel, False) or ())}": cls("any", n, (name,)) for n in SIZES
            }
            if operation.kind in PLAIN and min(kernel) > 3:
                edits["two of 3"] = cls("any", 3, (name,), how="stack")
            for size, edit in edits.items():
                if size != _times(kernel):
                    change = f"kernel {size} in place of {_times(kernel)}"
                    options.append(Option(f"layer:{name}", cls.method, change, edit, (name,)))
        return tuple(options)

    def _chosen(self, graph: Graph) -> list[str]:
        reasons = {
            name: self._unfit(operation)
            for name, operation in graph.operations.items()
            if "Conv" in operation.kind or name in self.layers
        }
        if self.layers:
            for name in self.layers:
                if reasons[name]:
                    kind = graph.operations[name].kind
                    raise EditError(f"ReplaceKernel: layer '{name}' ({kind}): {reasons[name]}.")
            return list(self.layers)
        chosen = [n for n, reason in reasons.items() if not reason and n not in self.exclude]
        if not chosen:
            parts = [f"{n}: {reason or 'excluded'}" for n, reason in reasons.items()]
            raise EditError(
                "ReplaceKernel would change nothing: "
                f"{quoted(parts) if parts else 'the model has no convolutions'}."
            )
        return chosen

    def _unfit(self, operation: Operation) -> str:
        """Why a layer is not changed; empty where it is."""
        kinds = PLAIN if self.how == "stack" else RESIZABLE
        if operation.kind not in kinds:
            return _wrong_kind(operation.kind, self.how)
        extra = set(operation.bare().weights) - {
            "kernel",
            "depthwise_kernel",
            "pointwise_kernel",
            "bias",
        }
        if extra:
            return f"its weights {quoted(sorted(extra))} (LoRA or quantised) cannot be carried over"
        kernel = _kernel(operation)
        if self.old != "any" and kernel != _fitted(self.old, kernel, everywhere=True):
            return f"its kernel is {_times(kernel)}, not {_times(as_sizes(self.old, len(kernel)))}"
        size = self._size(operation)
        if size is None:
            return f"new={self.new} has not one number for each of {len(kernel)} axes"
        if self.how == "stack":
            smaller = all(1 <= s <= k for s, k in zip(size, kernel, strict=True))
            fits = smaller and size != kernel and any(s > 1 for s in size)
            return "" if fits else f"no two kernels, one of {_times(size)}, make {_times(kernel)}"
        return "" if size != kernel else f"its kernel is {_times(kernel)} already"

    def _size(self, operation: Operation) -> tuple[int, ...] | None:
        kernel = _kernel(operation)
        named_one = operation.name in self.layers or self.old != "any"
        return _fitted(self.new, kernel, everywhere=named_one and set(kernel) == {1})

    def _chain(self, graph: Graph, operation: Operation) -> list[Operation]:
        try:
            size = self._size(operation) or ()
            if self.how == "stack":
                return one_after_another(graph, operation, size, self._middle(operation))
            correlation = 0.0 if self.how == "crop" else CORRELATION
            return resized(graph, operation, size, correlation)
        except ValueError as error:
            raise EditError(
                f"ReplaceKernel: layer '{operation.name}' ({operation.kind}): {error}, "
                "or exclude the layer."
            ) from error

    def _middle(self, operation: Operation) -> int:
        filters = int((operation.config or {})["filters"])
        if self.middle is None:
            return filters
        return (
            max(1, round(self.middle * filters)) if isinstance(self.middle, float) else self.middle
        )


def _kernel(operation: Operation) -> tuple[int, ...]:
    return as_sizes((operation.config or {})["kernel_size"], int(operation.kind[-2]))


def _fitted(
    size: int | Sequence[int] | str, kernel: tuple[int, ...], everywhere: bool
) -> tuple[int, ...] | None:
    """A size for a kernel: a number holds for the axes along which it has more than one tap."""
    if isinstance(size, int):
        return tuple(size if everywhere or taps > 1 else taps for taps in kernel)
    return tuple(int(taps) for taps in size) if len(size) == len(kernel) else None


def _times(kernel: Sequence[int]) -> str:
    return "×".join(map(str, kernel))


def _wrong_kind(kind: str, how: str) -> str:
    if kind in DEPTHWISE or kind.startswith("SeparableConv"):
        return f"how='{how}' is for plain convolutions; use 'resample' or 'crop'"
    if kind.endswith("Transpose"):
        return "transposed convolutions are not changed"
    return "it is no convolution with a kernel that can be replaced"


def _check_arguments(edit: ReplaceKernel) -> None:
    if edit.how not in HOW:
        raise EditError(f"ReplaceKernel(how={edit.how!r}): use one of {', '.join(HOW)}.")
    if edit.old != "any":
        _check_size("old", edit.old)
    _check_size("new", edit.new)
    if edit.middle is None:
        return
    if edit.how != "stack":
        raise EditError("ReplaceKernel(middle=…) is for how='stack'.")
    if not 0 < edit.middle < 1e9:
        raise EditError(f"ReplaceKernel(middle={edit.middle!r}): give a number or a share above 0.")


def _check_size(name: str, value: Any) -> None:
    sizes = value if isinstance(value, tuple) else (value,)
    if not sizes or any(isinstance(size, str) or size < 1 for size in sizes):
        raise EditError(
            f"ReplaceKernel({name}={value!r}): give a number of 1 or more, or one for each axis."
        )
