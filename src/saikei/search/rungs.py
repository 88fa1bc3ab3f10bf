"""`RungFolder`: results and states of trainings that are done in parts, stored whole or not at all.

`rungs/<candidate>/<epoch>/` holds `result.json`, `validation.npz` (the outputs) and `state.npz`
(weights, best weights and optimizer state); a failed part has only `result.json`.
"""

from __future__ import annotations

import json
import typing
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from types import GenericAlias
from typing import Any

import ml_dtypes  # noqa: F401  # np.dtype("bfloat16") needs it
import numpy as np

from saikei import errors
from saikei.batches import Array
from saikei.codec import Logged, from_jsonable, to_jsonable
from saikei.errors import InputError, SaikeiError, WorkError
from saikei.executors import TaskFailure
from saikei.npz import read_arrays
from saikei.reading import read_json
from saikei.search.race.plan import RungResult
from saikei.training.parts import TrainingState
from saikei.writing import refused_by_disk, write_whole

# States that are kept of each candidate. The last but one is needed where the last is damaged, and
# where another training branches off from it.
_KEPT_STATES = 2
_FIX = "delete the folder of this epoch, and it is made again"


@dataclass(frozen=True)
class RungFolder:
    """Results of parts of trainings, by the name of the candidate and its epoch.

    Args:
        path: Path of the folder; made when something is stored.
    """

    path: Path

    def store(self, name: str, epoch: int, outcome: RungResult | TaskFailure) -> None:
        """Store the result of a part, completely or not at all; old states are deleted.

        Args:
            name: Name of the candidate.
            epoch: Number of epochs that it is trained for after the part.
            outcome: The result, or why there is none.

        Raises:
            DiskError: If it cannot be written.
        """

        def write(draft: Path) -> None:
            draft.mkdir()
            if isinstance(outcome, RungResult):
                _write_result(outcome, draft)
            else:
                failure = {"kind": outcome.kind, "message": str(outcome.error)}
                failure["error"] = type(outcome.error).__name__
                _write_json({"failure": failure}, draft)

        with refused_by_disk(self.path):
            (self.path / name).mkdir(parents=True, exist_ok=True)
            # Before the new one is there: so a kill in between leaves none that is too old.
            earlier = [other for other in self._epochs(name) if other < epoch]
            for old in earlier[: -(_KEPT_STATES - 1)]:
                self._state(name, old).unlink(missing_ok=True)
        write_whole(self._part(name, epoch), write)

    def load(self, name: str, epoch: int) -> RungResult | TaskFailure | None:
        """The stored result of a part.

        It has no state if that was deleted, because the candidate has gone on. It counts as
        missing if it is damaged, or if its state would be needed since a later part is damaged.

        Args:
            name: Name of the candidate.
            epoch: Number of epochs that it is trained for after the part.
        """
        path = self._part(name, epoch)
        try:
            record = read_json(path / "result.json", "The result of a candidate")
            if isinstance(record, Mapping) and "failure" in record:
                return _failure(record["failure"])
            known = from_jsonable(_RESULT, record)
            outputs = read_arrays(path / "validation.npz", _FIX)
            state = self._read_state(name, epoch, known.state)
        except InputError:
            return None
        if state is None and not self._has_gone_on(name, epoch):
            return None
        return RungResult(**{**_fields(known), "state": state, "outputs": tuple(outputs.values())})

    def history(self, name: str) -> list[RungResult]:
        """The stored results of a candidate, part by part.

        Args:
            name: Name of the candidate.
        """
        found = [self.load(name, epoch) for epoch in self._epochs(name)]
        return [one for one in found if isinstance(one, RungResult)]

    def _read_state(self, name: str, epoch: int, known: Any) -> TrainingState | None:
        path = self._state(name, epoch)
        if not path.is_file():
            return None
        return TrainingState(**{**_fields(known), **_unpacked(read_arrays(path, _FIX))})

    def _has_gone_on(self, name: str, epoch: int) -> bool:
        """Whether the next part is stored and undamaged."""
        later = [other for other in self._epochs(name) if other > epoch]
        return bool(later) and self.load(name, later[0]) is not None

    def _epochs(self, name: str) -> list[int]:
        found = (self.path / name).glob("*")
        return sorted(int(path.name) for path in found if path.name.isdecimal())

    def _part(self, name: str, epoch: int) -> Path:
        return self.path / name / str(epoch)

    def _state(self, name: str, epoch: int) -> Path:
        return self._part(name, epoch) / "state.npz"


def _write_result(result: RungResult, draft: Path) -> None:
    assert result.state is not None, "only a part that was just trained is stored"
    state = _fields(result.state)
    arrays = {name: state.pop(name) for name in _ARRAYS}
    rest = {n: v for n, v in _fields(result).items() if n not in ("state", "outputs")}
    np.savez(draft / "state.npz", **_packed(arrays))  # type: ignore[arg-type]
    np.savez(draft / "validation.npz", *result.outputs)
    _write_json({**to_jsonable(rest), "state": to_jsonable(state)}, draft)


def _write_json(record: Mapping[str, Any], draft: Path) -> None:
    (draft / "result.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def _failure(record: Any) -> TaskFailure:
    known = from_jsonable(_Failure, record)
    kind = getattr(errors, known.error, WorkError)
    known_kind = isinstance(kind, type) and issubclass(kind, SaikeiError)
    return TaskFailure((kind if known_kind else WorkError)(known.message), known.kind)


@dataclass(frozen=True)
class _Failure:
    kind: str
    message: str
    error: str


def _packed(arrays: Mapping[str, tuple[Array, ...]]) -> dict[str, Array]:
    """Arrays under names that show field, position and type.

    NumPy's files know no bfloat16, so its bytes are stored as whole numbers.
    """
    packed = {}
    for name, values in arrays.items():
        for index, value in enumerate(map(np.asarray, values)):
            own = value.dtype.kind == "V"
            stored = value.view(f"u{value.dtype.itemsize}") if own else value
            packed[f"{name}.{index}.{value.dtype.name if own else ''}"] = stored
    return packed


def _unpacked(stored: Mapping[str, Array]) -> dict[str, tuple[Array, ...]]:
    found: dict[str, list[Array]] = defaultdict(list)
    for key, value in stored.items():
        name, _, own = key.split(".")
        found[name].append(value.view(np.dtype(own)) if own else value)
    return {name: tuple(found[name]) for name in _ARRAYS}


def _fields(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _logged(hint: Any) -> Any:
    """A type hint whose numbers may be infinite or NaN, as what is logged in a training."""
    if hint is float:
        return Logged
    if typing.get_origin(hint) is tuple:
        return GenericAlias(tuple, (_logged(typing.get_args(hint)[0]), ...))
    if typing.get_origin(hint) is Mapping:
        return GenericAlias(Mapping, (str, _logged(typing.get_args(hint)[1])))
    return hint


def _record_of(kind: type[Any], apart: tuple[str, ...], **more: Any) -> type[Any]:
    """A dataclass with the fields of another but those that are stored apart."""
    hints = {n: h for n, h in typing.get_type_hints(kind).items() if n not in apart}
    kept = {name: _logged(hint) for name, hint in hints.items()}
    return make_dataclass(kind.__name__, [*kept.items(), *more.items()], frozen=True)


_ARRAYS = ("weights", "optimizer", "best_weights")
_STATE = _record_of(TrainingState, _ARRAYS)
_RESULT = _record_of(RungResult, ("state", "outputs"), state=_STATE)
