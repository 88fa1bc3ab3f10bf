"""`TopK`: of each prediction of a teacher only the likeliest classes are stored.

Tan et al., "Multilingual Neural Machine Translation with Knowledge Distillation", 2019, who learn
from the likeliest classes alone; Anshumann et al., "Sparse Logit Sampling: Accelerating Knowledge
Distillation in LLMs", 2025, on what the classes that are left out do to the student.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from keras import ops, tree

from saikei.arguments import Checked
from saikei.batches import Array
from saikei.errors import InputError
from saikei.scoring.outputs import read_outputs

# Less probability than this is rounding.
_LEAST = 1e-12


@dataclass(frozen=True)
class TopK(Checked):
    """That stored predictions are those of the likeliest classes.

    Each output of the teacher is then stored as two arrays `(n, …, k)`: the logarithms of the
    probabilities of the k likeliest classes at temperature 1, and the numbers of these classes.
    So a token takes 8 k bytes, whatever the vocabulary.

    Args:
        classes: The number of all classes V of each output, such as the size of the vocabulary.
        rest: What becomes of the probability r of the classes that are not stored. `"spread"`
            gives each of them r / (V - k). At temperature T the stored classes have the
            probabilities `p_i^(1/T) / Z` and the others `(r / (V - k))^(1/T) / Z`, with Z such
            that they sum to 1. `"renormalise"` takes the others for impossible,
            `p_i^(1/T) / Σ p_j^(1/T)`: a student then becomes surer than its teacher. For k = V
            both are the teacher's own distribution.
    """

    classes: tuple[int, ...]
    rest: Literal["spread", "renormalise"] = "spread"

    def shape(self, number: int, values: Array) -> tuple[int | None, ...]:
        """The shape of a whole output.

        Args:
            number: The number of the output, from 0.
            values: One of the two arrays that it is stored as.
        """
        return (None, *values.shape[1:-1], self.classes[number])

    def dense(self, outputs: Any) -> list[Array]:
        """The probabilities of all classes, for each output `(n, …, classes)`.

        Args:
            outputs: Both arrays for each output, nested in any way.
        """
        flat = tree.flatten(outputs)
        made = []
        for classes, log_p, numbers in zip(self.classes, flat[::2], flat[1::2], strict=True):
            p = np.exp(np.asarray(log_p, dtype=np.float64))
            left = classes - p.shape[-1]
            total = p.sum(axis=-1, keepdims=True)
            if self.rest == "renormalise" or left == 0:
                p, other = p / total, np.zeros_like(total)
            else:
                other = np.maximum(1 - total, _LEAST) / left
            whole = np.repeat(other, classes, axis=-1)
            np.put_along_axis(whole, np.asarray(numbers, dtype=np.int64), p, axis=-1)
            made.append((whole / whole.sum(axis=-1, keepdims=True)).astype(np.float32))
        return made

    def divergence(
        self, number: int, log_p: Any, numbers: Any, logits: Any, temperature: float
    ) -> Any:
        """`KL(teacher ‖ student)` for each position, both at a temperature; `(batch, …)`.

        No tensor is as large as the teacher's whole output.

        Args:
            number: The number of the output, from 0.
            log_p: Logarithms of the probabilities of the stored classes, `(batch, …, k)`.
            numbers: The numbers of these classes, of the same shape.
            logits: The student's logits, `(batch, …, classes)`.
            temperature: T.
        """
        scaled = ops.cast(log_p, "float32") / temperature
        student = ops.log_softmax(logits / temperature, axis=-1)
        ours = ops.take_along_axis(student, ops.cast(numbers, "int32"), axis=-1)
        left = self.classes[number] - log_p.shape[-1]
        if self.rest == "renormalise" or left == 0:
            log_q = ops.log_softmax(scaled, axis=-1)
            return ops.sum(ops.exp(log_q) * (log_q - ours), axis=-1)
        mass = 1 - ops.sum(ops.exp(scaled * temperature), axis=-1)
        log_left = float(np.log(left))
        other = (ops.log(ops.clip(mass, _LEAST, 1.0)) - log_left) / temperature
        total = ops.logaddexp(ops.logsumexp(scaled, axis=-1), other + log_left)
        log_q, other = scaled - ops.expand_dims(total, -1), other - total
        stored = ops.sum(ops.exp(log_q) * (log_q - ours), axis=-1)
        students = ops.sum(student, axis=-1) - ops.sum(ours, axis=-1)
        return stored + ops.exp(other) * (left * other - students)


def check_top_k(teacher: Any, k: int) -> TopK:
    """How the predictions of a teacher are stored.

    Args:
        teacher: A built model.
        k: The number of classes to keep.

    Raises:
        InputError: When an output is no distribution over more classes than that.
    """
    outputs = read_outputs(teacher).each
    if isinstance(k, bool) or k < 1:
        raise InputError(f"top_k={k!r}: give the number of classes to keep, such as 64.")
    for output in outputs:
        if output.activation == "sigmoid" or len(output.shape) < 2 or (output.shape[-1] or 0) < k:
            raise InputError(
                f"top_k={k} needs an output of at least {k} exclusive classes, and teacher "
                f"'{teacher.name}' has one of shape {output.shape} after "
                f"'{output.activation}': leave top_k out, or give a smaller one."
            )
    return TopK(tuple(int(output.shape[-1] or 0) for output in outputs))


def likeliest(k: int, logits: tuple[bool, ...]) -> Callable[[Any], Any]:
    """A function from whole outputs to the two arrays that are stored for each.

    Args:
        k: The number of classes to keep.
        logits: Whether each output is logits rather than probabilities.
    """

    def reduced(outputs: Any) -> Any:
        flat = tree.flatten(outputs)
        made = [_pair(output, k, one) for output, one in zip(flat, logits, strict=True)]
        return tree.pack_sequence_as(outputs, made)

    return reduced


def _pair(output: Array, k: int, logits: bool) -> tuple[Array, Array]:
    output = np.asarray(output, dtype=np.float32)
    numbers = np.argpartition(-output, k - 1, axis=-1)[..., :k]
    values = np.take_along_axis(output, numbers, axis=-1).astype(np.float64)
    if logits:
        highest = output.max(axis=-1, keepdims=True)
        sums = np.exp(output - highest).sum(axis=-1, keepdims=True, dtype=np.float64)
        log_p = values - highest - np.log(sums)
    else:
        log_p = np.log(np.maximum(values, np.finfo(np.float32).tiny))
    return log_p.astype(np.float32), numbers.astype(np.int32)
