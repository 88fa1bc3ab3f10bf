"""Along which axes of a kernel the inputs are summed: for hardware that needs n of every m kept."""

from __future__ import annotations

import re

from saikei.graph import Operation


def input_axes(operation: Operation, name: str, rank: int) -> tuple[int, ...] | None:
    """The axes that a kernel's products are summed over, but those of a convolution's window.

    Returns:
        Positions, or `None` where there is no such axis (a depthwise kernel) or none is known.
    """
    last = name.split("/")[-1].split("#")[0]
    if last == "depthwise_kernel" or operation.kind.startswith("DepthwiseConv"):
        return None
    if re.fullmatch(r"Conv[123]DTranspose", operation.kind):
        return (rank - 1,)
    if re.fullmatch(r"(Separable)?Conv[123]D", operation.kind):
        return (rank - 2,)
    if operation.kind == "EinsumDense":
        return _contracted(str((operation.config or {}).get("equation", "")))
    if operation.kind in ("MultiHeadAttention", "GroupedQueryAttention") and rank == 3:
        return (0, 1) if "output" in name else (0,)
    # Keras keeps matrices with the inputs on their rows, recurrent ones too.
    return (0,) if rank == 2 else None


def _contracted(equation: str) -> tuple[int, ...] | None:
    match = re.fullmatch(r"[^,]*,([a-zA-Z]+)->(.*)", equation.replace(" ", ""))
    if match is None:
        return None
    kernel, made = match.groups()
    return tuple(axis for axis, label in enumerate(kernel) if label not in made) or None
