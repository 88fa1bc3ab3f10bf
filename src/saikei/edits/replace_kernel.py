"""`ReplaceKernel`: convolutions with smaller or larger kernels, or with two in the place of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from saikei.calibration.refit import refit
from saikei.edits.base import Edit
from saikei.edits.finite import check_finite_weights
from saikei.edits.replacing.convolutions import (
    CORRELATION,
    DEPTHWISE,
    PLAIN,
    RESIZABLE,
    in_two_directions,
    one_after_another,
    resized,
)
from saikei.edits.replacing.poolings import as_sizes
from saikei.edits.replacing.selection import check_selection, in_the_name_of, named
from saikei.errors import EditError
from saikei.graph import Graph, Operation, replace_operations

HOW = ("auto", "crop", "resample", "stack", "separate")

_MEND = "exclude that layer"


@dataclass(frozen=True)
class ReplaceKernel(Edit):
    """Give convolutions kernels of another size, with the weights carried over.

    What a layer gives keeps its shape and its place: where the padding cannot express that, a
    padding or cropping layer comes before. Strides, dilation, groups, bias and activation stay.
    Layers whose kernel has the size already are left alone, and of the other ones an `int` means
    the axes along which a kernel has more than one tap; a 1×1 kernel grows only when `layers` or
    `old` names it. Transposed convolutions are not changed.

    A larger kernel starts as the same function. Otherwise the edit is approximate.

    Args:
        size: the new size, a number or one for each axis. With `how="stack"`, that of the first
            of two kernels: 3 makes two 3×3 of a 5×5, and a 3×3 and a 5×5 of a 7×7. Not given
            with `how="separate"`.
        layers: only these, by name.
        exclude: not these.
        old: only kernels of this size, a number or one for each axis.
        how: the way the weights go:

            - `"crop"`: a smaller kernel is the middle of the old one;
            - `"resample"`, and so does `"auto"`: as well, and what is lost is made good by
              least squares, for inputs whose neighbours correlate by 0.9;
            - `"stack"`: two kernels in a row, fitted by alternating least squares;
            - `"separate"`: k×k as k×1 and 1×k (k×k×k as k×1×1 and 1×k×k), by singular values as
              in Jaderberg et al. (2014), https://arxiv.org/abs/1405.3866.

            A causal convolution keeps its last taps rather than the middle.
        middle: channels between two kernels in a row: a number, a share of the layer's own
            filters (`float`), or as many as it has filters. More than the fit can use are
            not made; with all of them, `"separate"` keeps the function.
        compensate: with data, whether the layers are then refitted, by least squares, to what
            they gave before.

    Raises:
        EditError: when an argument is out of range.

    Example:
        >>> edit = ReplaceKernel(3, old=5, how="stack")
        >>> ReplaceKernel.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    size: int | Sequence[int] | None = None
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    old: int | Sequence[int] | None = None
    how: str = "auto"
    middle: int | float | None = None
    compensate: bool = True

    def __post_init__(self) -> None:
        for name in ("layers", "exclude"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("size", "old"):
            value = getattr(self, name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
        _check_arguments(self)

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph with other kernels."""
        check_selection("ReplaceKernel", graph, self.layers, self.exclude)
        check_finite_weights("ReplaceKernel", graph)
        chains = {name: self._chain(graph, graph.operations[name]) for name in self._chosen(graph)}
        with in_the_name_of("ReplaceKernel", _MEND):
            changed = replace_operations(graph, chains)
        return refit(graph, changed, data) if self.compensate and data is not None else changed

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
            said = [f"{n}: {reason or 'excluded'}" for n, reason in reasons.items()]
            raise EditError(
                "ReplaceKernel would change nothing: "
                f"{named(said) if said else 'the model has no convolutions'}."
            )
        return chosen

    def _unfit(self, operation: Operation) -> str:
        """Why a layer is not changed; empty where it is."""
        kinds = PLAIN if self.how in ("stack", "separate") else RESIZABLE
        if operation.kind not in kinds:
            return _wrong_kind(operation.kind, self.how)
        extra = set(operation.bare().weights) - {
            "kernel",
            "depthwise_kernel",
            "pointwise_kernel",
            "bias",
        }
        if extra:
            return f"its weights {named(sorted(extra))} (LoRA or quantised) do not go along"
        kernel = _kernel(operation)
        if self.old is not None and kernel != _fitted(self.old, kernel, everywhere=True):
            return f"its kernel is {_times(kernel)}, not {_times(as_sizes(self.old, len(kernel)))}"
        if self.how == "separate":
            return "" if _is_separable(kernel) else f"a kernel of {_times(kernel)} is separate"
        size = self._size(operation)
        if size is None:
            return f"size={self.size} has not one number for each of {len(kernel)} axes"
        if self.how == "stack":
            smaller = all(1 <= s <= k for s, k in zip(size, kernel, strict=True))
            fits = smaller and size != kernel and any(s > 1 for s in size)
            return "" if fits else f"no two kernels, one of {_times(size)}, make {_times(kernel)}"
        return "" if size != kernel else f"its kernel is {_times(kernel)} already"

    def _size(self, operation: Operation) -> tuple[int, ...] | None:
        kernel = _kernel(operation)
        named_one = operation.name in self.layers or self.old is not None
        everywhere = named_one and set(kernel) == {1}
        return None if self.size is None else _fitted(self.size, kernel, everywhere)

    def _chain(self, graph: Graph, operation: Operation) -> list[Operation]:
        try:
            if self.how == "separate":
                return in_two_directions(graph, operation, self._middle(operation))
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

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready arguments."""
        return {
            "size": list(self.size) if isinstance(self.size, tuple) else self.size,
            "layers": list(self.layers),
            "exclude": list(self.exclude),
            "old": list(self.old) if isinstance(self.old, tuple) else self.old,
            "how": self.how,
            "middle": self.middle,
            "compensate": self.compensate,
        }

    @classmethod
    def from_dict(cls, arguments: Mapping[str, Any]) -> ReplaceKernel:
        """The inverse of `to_dict`."""
        return cls(**arguments)


def _kernel(operation: Operation) -> tuple[int, ...]:
    return as_sizes((operation.config or {})["kernel_size"], int(operation.kind[-2]))


def _fitted(
    size: int | Sequence[int], kernel: tuple[int, ...], everywhere: bool
) -> tuple[int, ...] | None:
    """A size for a kernel: a number holds for the axes along which it has more than one tap."""
    if isinstance(size, int):
        return tuple(size if everywhere or taps > 1 else taps for taps in kernel)
    return tuple(size) if len(size) == len(kernel) else None


def _is_separable(kernel: tuple[int, ...]) -> bool:
    return kernel[0] > 1 and any(taps > 1 for taps in kernel[1:])


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
    for name in ("size", "old"):
        _check_size(name, getattr(edit, name))
    pair = edit.how in ("stack", "separate")
    if edit.how == "separate" and edit.size is not None:
        raise EditError(
            "ReplaceKernel(how='separate') keeps the size of the kernel: leave out size."
        )
    if edit.how != "separate" and edit.size is None:
        raise EditError(f"ReplaceKernel(how='{edit.how}') needs the new size.")
    if edit.middle is None:
        return
    if not pair:
        raise EditError("ReplaceKernel(middle=…) is for how='stack' and how='separate'.")
    middle: Any = edit.middle
    if isinstance(middle, bool) or not isinstance(middle, (int, float)) or not 0 < middle < 1e9:
        raise EditError(f"ReplaceKernel(middle={middle!r}): give a number or a share above 0.")


def _check_size(name: str, value: Any) -> None:
    sizes = value if isinstance(value, tuple) else (value,)
    if value is None:
        return
    if not sizes or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sizes):
        raise EditError(
            f"ReplaceKernel({name}={value!r}): give a number of 1 or more, or one for each axis."
        )
