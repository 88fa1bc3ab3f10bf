"""Dense, EinsumDense and Embedding layers as products of two thinner ones."""

from __future__ import annotations

import re
from dataclasses import dataclass

import keras
import numpy as np

from saikei.edits.lowrank.spectrum import Spectrum
from saikei.edits.lowrank.split import (
    Chain,
    Split,
    Splits,
    changed,
    linear_settings,
    positions,
    shapes_of_calls,
    why_not_split,
)
from saikei.graph import Graph, Operation
from saikei.rules.base import Shape, product


def split_dense(graph: Graph, operation: Operation) -> Splits | str:
    """`x W` as `(x A) B`, with A of shape (in, rank) and B of shape (rank, out)."""
    reason = why_not_split(graph, operation, "kernel")
    if reason is not None:
        return reason
    config = dict(operation.config or {})
    kernel = operation.weights["kernel"].numpy()
    spectrum = Spectrum(kernel[None])

    def chain(first: str, rank: int) -> Chain:
        left, right = spectrum.factors(rank)
        basis = {**linear_settings(config), "units": rank}
        return (
            changed(operation, first, basis, {"kernel": left[0]}),
            changed(operation, operation.name, config, {"kernel": right[0]}),
        )

    times = sum(positions(call, -1) for call in shapes_of_calls(graph, operation.name))
    thin = sum(kernel.shape)
    split = Split("svd", spectrum, thin, times * thin, chain)
    return Splits(operation.name, kernel.size, times * kernel.size, (split,))


def split_embedding(graph: Graph, operation: Operation) -> Splits | str:
    """A table (words, size) as a table (words, rank) and a Dense layer without bias."""
    reason = why_not_split(graph, operation, "embeddings")
    if reason is not None:
        return reason
    config = dict(operation.config or {})
    table = operation.weights["embeddings"].numpy()
    spectrum = Spectrum(table[None])

    def chain(first: str, rank: int) -> Chain:
        left, right = spectrum.factors(rank)
        thin = {**linear_settings(config), "output_dim": rank}
        dense = {
            "units": table.shape[1],
            "use_bias": False,
            "dtype": config["dtype"],
            "kernel_regularizer": config.get("embeddings_regularizer"),
            "activity_regularizer": config.get("activity_regularizer"),
        }
        return (
            changed(operation, first, thin, {"embeddings": left[0]}),
            changed(operation, operation.name, dense, {"kernel": right[0]}, keras.layers.Dense),
        )

    times = sum(positions(call, -1) for call in shapes_of_calls(graph, operation.name))
    split = Split("svd", spectrum, sum(table.shape), times * table.shape[1], chain)
    return Splits(operation.name, table.size, 0, (split,))


@dataclass(frozen=True)
class _Product:
    """An einsum equation that is a plain matrix product over some axes.

    Args:
        given: The labels of the input's axes; `...` stands for more axes.
        kernel: The labels of the kernel's axes.
        made: The labels of the output's axes.
        contracted: Labels of the kernel that are summed over, in the kernel's order.
        free: The letters of the axes that are not summed over.
    """

    given: str
    kernel: str
    made: str
    contracted: str
    free: str

    @classmethod
    def parse(cls, equation: str) -> _Product | None:
        match = re.fullmatch(r"([a-zA-Z.]+),([a-zA-Z]+)->([a-zA-Z.]+)", equation.replace(" ", ""))
        if match is None:
            return None
        given, kernel, made = match.groups()
        contracted = "".join(label for label in kernel if label not in made)
        free = "".join(label for label in kernel if label not in given)
        plain = contracted and free and len(contracted) + len(free) == len(kernel)
        # A label of the input that is summed over without the kernel is no product.
        kept = all(label in made or label in contracted for label in given)
        return cls(given, kernel, made, contracted, free) if plain and kept else None

    def equations(self) -> tuple[str, str]:
        """The equations of the two factors, with one new label for the rank."""
        rank = next(c for c in "rstuvwxyzabcdefghijklmnopq" if c not in self.given + self.kernel)
        middle = self.given.replace(self.contracted[0], rank)
        middle = "".join(label for label in middle if label not in self.contracted)
        return (
            f"{self.given},{self.contracted}{rank}->{middle}",
            f"{middle},{rank}{self.free}->{self.made}",
        )


def split_einsum(graph: Graph, operation: Operation) -> Splits | str:
    """An EinsumDense layer that multiplies by one matrix, as two such layers."""
    reason = why_not_split(graph, operation, "kernel")
    if reason is not None:
        return reason
    config = dict(operation.config or {})
    parsed = _Product.parse(str(config["equation"]))
    if parsed is None:
        return f"computes '{config['equation']}', which is no plain matrix product"
    kernel = operation.weights["kernel"].numpy()
    sizes = dict(zip(parsed.kernel, kernel.shape, strict=True))
    order = [parsed.kernel.index(label) for label in parsed.contracted + parsed.free]
    rows = product(tuple(sizes[label] for label in parsed.contracted))
    spectrum = Spectrum(np.transpose(kernel, order).reshape(1, rows, -1))
    calls = shapes_of_calls(graph, operation.name)
    given = [graph.spec(c.inputs()[0]).shape for c in graph.calls if c.operation == operation.name]
    first_equation, last_equation = parsed.equations()

    def chain(first: str, rank: int) -> Chain:
        left, right = spectrum.factors(rank)
        into = left[0].reshape(*(sizes[label] for label in parsed.contracted), rank)
        out = right[0].reshape(rank, *(sizes[label] for label in parsed.free))
        basis = {
            **linear_settings(config),
            "equation": first_equation,
            "output_shape": _middle_shape(first_equation, given, rank),
        }
        last = {**config, "equation": last_equation}
        return (
            changed(operation, first, basis, {"kernel": into}),
            changed(operation, operation.name, last, {"kernel": out}),
        )

    times = sum(call.rows * product(call.given.shape[1:]) for call in calls) // rows
    thin = rows + kernel.size // rows
    split = Split("svd", spectrum, thin, times * thin, chain)
    return Splits(operation.name, kernel.size, times * kernel.size, (split,))


def _middle_shape(equation: str, given: list[Shape], rank: int) -> tuple[int | None, ...]:
    """The `output_shape` of a first factor for Keras: without the batch and the ellipsis."""
    read, made = re.fullmatch(r"(.*),.*->(.*)", equation).groups()  # type: ignore[union-attr]
    sizes: dict[str, int | None] = {}
    for shape in given:
        labels = read.replace(".", "")
        named = shape[len(shape) - len(labels) :] if read.startswith(".") else shape
        for label, size in zip(labels, named, strict=False):
            # Calls of a shared layer may differ in length; Keras takes the size from the input.
            sizes[label] = size if sizes.setdefault(label, size) == size else None
    elided = len(given[0]) > len(read.replace(".", ""))
    labels = made.replace(".", "")
    if not (made.startswith(".") and elided):
        labels = labels[1:]
    return tuple(sizes.get(label, rank) for label in labels)
