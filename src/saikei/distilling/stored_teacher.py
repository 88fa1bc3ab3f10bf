"""`StoredTeacher`: the predictions of a teacher, without the teacher."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, ArrayData, as_arrays, as_numpy
from saikei.checks import check_inputs, input_count
from saikei.codec import from_jsonable, to_jsonable
from saikei.distilling.teacher_batches import Lookup, check_finite, outputs_for, outputs_for_dataset
from saikei.distilling.top_k import TopK, check_top_k, likeliest
from saikei.errors import DataError, InputError
from saikei.hub import task_data, without_preprocessor
from saikei.reading import read_json
from saikei.scoring.outputs import read_outputs
from saikei.scoring.task import Task
from saikei.training.digests import Digests, digest_rows
from saikei.training.provenance import TrainingRows, training_rows
from saikei.writing import check_target, write_whole

# How far from 1 the probabilities of a row may sum up to, as in float16.
_SLACK = 1e-2


# Files of a stored teacher besides its arrays.
_ABOUT, _DIGESTS = "teacher.json", "digests.npy"


@dataclass(frozen=True)
class _About:
    """What a folder holds: the number of arrays, and fields of `StoredTeacher`."""

    arrays: int
    from_logits: tuple[bool, ...]
    top_k: TopK | None


@dataclass(frozen=True, eq=False)
class StoredTeacher:
    """Predictions that take the place of a teacher in `distill`.

    Made by `of`, they carry digests of the rows that they belong to: a student may learn from
    them on any part of the data, in any order, also from a dataset. Given as arrays, or by `load`,
    they are one row for each row of the training arrays. `save` writes a folder of them.

    Args:
        outputs: An array `(n, …)`, or arrays nested as the student's outputs.
        from_logits: Whether they are logits rather than probabilities, for all outputs or each;
            unused for regression.
        digests: The digests of the inputs that they belong to, uint64 `(n,)`; `None` for rows in
            the order of the training arrays.
        past: The rows that the teacher was trained on, as far as they are known.
        top_k: That only the likeliest classes are stored, as two arrays in a tuple for each output;
            `None` for whole outputs. See `saikei.distilling.TopK`.

    Raises:
        DataError: When there are no rows, or numbers of them that differ.

    Example:
        >>> import numpy as np
        >>> len(StoredTeacher(np.full((8, 2), 0.5)))
        8
    """

    outputs: Any
    from_logits: bool | tuple[bool, ...] = False
    digests: Digests | None = None
    past: tuple[TrainingRows, ...] = ()
    top_k: TopK | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", tree.map_structure(as_numpy, self.outputs))
        lengths = {len(output) if output.ndim else 0 for output in tree.flatten(self.outputs)}
        lengths |= set() if self.digests is None else {len(self.digests)}
        if len(lengths) != 1 or 0 in lengths:
            raise DataError(
                f"Stored predictions have {sorted(lengths)} rows: give one row for each sample."
            )
        if self.top_k is not None:
            _check_pairs(self.top_k, tree.flatten(self.outputs))

    @classmethod
    def of(
        cls,
        teacher: keras.Model,
        data: Any,
        top_k: int | None = None,
        rest: Literal["spread", "renormalise"] = "spread",
    ) -> StoredTeacher:
        """Run a teacher once over data and keep its predictions.

        Args:
            teacher: A built model, such as a fused one, or a task of KerasHub.
            data: `(x, y)` arrays, or a dataset, read once; labels are not used. For a task also
                what its preprocessor takes, such as strings.
            top_k: The number of likeliest classes to keep of each prediction, for outputs of many
                classes, such as the tokens of a language model; `None` keeps all of them.
            rest: What becomes of the probability of the others; see `TopK`.

        Raises:
            DataError: When the data is empty or endless, or an output is not finite.
            InputError: When an output does not have so many exclusive classes.
            ModelError: When the teacher is no built model.
        """
        data, teacher = task_data(teacher, data), without_preprocessor(teacher)
        logits = tuple(
            output.activation not in ("softmax", "sigmoid") for output in read_outputs(teacher).each
        )
        kept = None if top_k is None else replace(check_top_k(teacher, top_k), rest=rest)
        reduce = None if top_k is None else likeliest(top_k, logits)
        arrays = as_arrays(data, "given", labels=False, inputs=input_count(teacher))
        if arrays is None:
            outputs, digests, _ = outputs_for_dataset(teacher, data, reduce)
        else:
            check_inputs(teacher, arrays.x, "given")
            outputs, digests = outputs_for(teacher, arrays.x, reduce=reduce), digest_rows(arrays.x)
        return cls(outputs, logits, digests, training_rows(teacher), kept)

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the predictions to a folder, with the digests of the rows that they belong to.

        Args:
            path: The new folder.
            overwrite: Whether an existing folder may be replaced.

        Raises:
            InputError: When the path cannot be written to.
            DiskError: When the folder cannot be written.
        """

        def write(draft: Path) -> None:
            draft.mkdir()
            arrays = [np.asarray(array) for array in tree.flatten(self.outputs)]
            for number, array in enumerate(arrays):
                np.save(draft / f"{number}.npy", array)
            if self.digests is not None:
                np.save(draft / _DIGESTS, self.digests)
            given = self.from_logits
            logits = (given,) * len(arrays) if isinstance(given, bool) else given
            about = _About(len(arrays), logits, self.top_k)
            (draft / _ABOUT).write_text(json.dumps(to_jsonable(about)), encoding="utf-8")

        return write_whole(check_target(path, "", overwrite), write)

    @classmethod
    def load(
        cls, *paths: str | Path, from_logits: bool | tuple[bool, ...] = False
    ) -> StoredTeacher:
        """Predictions in a folder or in `.npy` files, which stay on the disk; nothing is unpickled.

        Args:
            paths: A folder that `save` wrote; or a file for each output, in the order of the
                student's flattened outputs, with a row for each row of the training arrays.
            from_logits: As for the class; a folder has its own.

        Raises:
            DataError: When a file cannot be read or holds anything but numbers.
        """
        if len(paths) == 1 and Path(paths[0]).is_dir():
            return cls._of_folder(Path(paths[0]))
        files: list[Any] = [_mapped(Path(path)) for path in paths]
        return cls(files[0] if len(files) == 1 else files, from_logits)

    @classmethod
    def _of_folder(cls, folder: Path) -> StoredTeacher:
        about = from_jsonable(_About, read_json(folder / _ABOUT, "The stored teacher"))
        files: list[Any] = [_mapped(folder / f"{number}.npy") for number in range(about.arrays)]
        digests = _mapped(folder / _DIGESTS) if (folder / _DIGESTS).is_file() else None
        if about.top_k is not None:
            files = list(zip(files[::2], files[1::2], strict=True))
        outputs = files[0] if len(files) == 1 else files
        return cls(outputs, about.from_logits, digests, top_k=about.top_k)

    def __len__(self) -> int:
        return len(tree.flatten(self.outputs)[0])

    def tasks(self, tasks: Sequence[Task]) -> tuple[Task, ...]:
        """The student's tasks as these predictions have them, after a look at their values.

        Args:
            tasks: What each output of the student learns.

        Raises:
            DataError: When they are not finite, or are to be probabilities and are not.
        """
        check_finite(self.outputs, "The stored teacher")
        if self.top_k is not None:
            if any(task.kind != "multiclass" for task in tasks):
                raise DataError("The likeliest classes are stored, and the labels are no classes.")
            return tuple(tasks)
        outputs = tree.flatten(self.outputs)
        logits = self.logits(len(tasks))
        for task, output, is_logits in zip(tasks, outputs, logits, strict=True):
            if task.kind != "regression" and not is_logits:
                _check_probabilities(task, output)
        return tuple(
            task if task.kind == "regression" else replace(task, from_logits=is_logits)
            for task, is_logits in zip(tasks, logits, strict=True)
        )

    def lookup(self) -> Lookup | None:
        """Finds predictions by inputs; `None` where their rows are not known."""
        return None if self.digests is None else Lookup(self.digests, self.outputs)

    def beside(self, arrays: ArrayData) -> Any:
        """The predictions for the rows of training arrays, nested as the outputs.

        Raises:
            DataError: When there are not as many, or none for one of the rows.
        """
        found = self.lookup()
        if found is not None:
            return found(arrays.x)
        if len(self) != len(arrays):
            raise DataError(
                f"There are {len(self):,} stored predictions for {len(arrays):,} training rows: "
                "give one row for each, in the order of the data."
            )
        return self.outputs

    def of_rows(self, x: Any) -> Any:
        """The predictions for some inputs, nested as the outputs.

        Raises:
            DataError: When it is not known which rows they belong to, or there are none for one.
        """
        found = self.lookup()
        if found is None:
            raise DataError(
                "Stored predictions without their inputs cannot take the place of labels: make "
                "them with StoredTeacher.of(teacher, data), or give (x, y)."
            )
        if self.top_k is not None:
            return self.top_k.dense(found(x))
        return found(x)

    def shapes(self) -> list[tuple[int | None, ...]]:
        """The shape of each whole output, with `None` for the number of rows."""
        flat = tree.flatten(self.outputs)
        if self.top_k is None:
            return [(None, *output.shape[1:]) for output in flat]
        return [self.top_k.shape(number, values) for number, values in enumerate(flat[::2])]

    def logits(self, count: int) -> tuple[bool, ...]:
        """Whether the predictions for each of so many outputs are logits.

        Raises:
            InputError: When that is given for another number of outputs.
        """
        given = False if self.top_k is not None else self.from_logits
        logits = (given,) * count if isinstance(given, bool) else tuple(given)
        if len(logits) != count:
            raise InputError(
                f"from_logits={given!r} for {count} outputs: give one for each, or one for all."
            )
        return logits


def _check_pairs(top_k: TopK, flat: Sequence[Array]) -> None:
    pairs = list(zip(flat[::2], flat[1::2], strict=False))
    fits = len(flat) == 2 * len(top_k.classes) and all(
        values.shape == numbers.shape and numbers.dtype.kind in "iu" for values, numbers in pairs
    )
    if not fits:
        raise DataError(
            f"top_k for {len(top_k.classes)} outputs needs a tuple of two arrays for each, the "
            "logarithms of probabilities and the numbers of classes, of one shape."
        )
    for (values, numbers), classes in zip(pairs, top_k.classes, strict=True):
        if values.shape[-1] > classes or numbers.min() < 0 or numbers.max() >= classes:
            raise DataError(
                f"Stored classes are numbered from {numbers.min()} to {numbers.max()}, and the "
                f"output has {classes}: give classes= as the teacher had them."
            )


def _mapped(path: Path) -> Array:
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"'{path}' is no NumPy file of numbers ({error}): save predictions with numpy.save."
        ) from error
    if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "biuf":
        raise DataError(
            f"'{path}' does not hold one array of numbers: save predictions with numpy.save."
        )
    return stored


def _check_probabilities(task: Task, output: Array) -> None:
    for start in range(0, len(output), 4096):
        part = np.asarray(output[start : start + 4096], dtype=np.float32)
        sums = part.sum(axis=-1) if task.kind == "multiclass" else np.ones(1)
        if part.min() < 0 or part.max() > 1 + _SLACK or np.abs(sums - 1).max() > _SLACK:
            raise DataError(
                "Stored predictions are no probabilities (numbers from 0 to 1, which sum up to 1 "
                "over classes): if they are logits, give "
                "StoredTeacher(predictions, from_logits=True)."
            )
