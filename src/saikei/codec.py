"""Frozen dataclasses to JSON and back, driven by the type hints of their fields.

Arguments (of an edit, a fusion, a budget) derive from `Jsonable`: their constructors check the
values, and what has a default may be left out. Results derive from `ToDict`. Records of a search
are read by `from_jsonable`, which checks every type and every field. NumPy is imported when it is
needed, so that the command line answers at once.
"""

from __future__ import annotations

import inspect
import math
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeAlias, TypeVar

from saikei.arguments import Checked, alternatives, hints_of
from saikei.errors import InputError

Record = TypeVar("Record")

# What was logged while a model was trained may be infinite or NaN; other numbers are not.
Logged: TypeAlias = Annotated[float, "logged"]

# How deep values of any kind are nested at most, and how large whole numbers are: both far above
# what is ever written.
_DEEPEST = 64
_LARGEST = 2**63


class ToDict:
    """Base of frozen dataclasses whose fields can be written as JSON.

    Attributes:
        error_class: What `to_dict` raises, and `from_dict` of a `Jsonable`.
        json_omits: Fields that `to_dict` leaves out, such as a model.
        json_adds: Properties that it writes beside the fields.
        json_omits_defaults: Whether it leaves out the fields that have their default.
    """

    error_class: ClassVar[type[InputError]] = InputError
    json_omits: ClassVar[tuple[str, ...]] = ()
    json_adds: ClassVar[tuple[str, ...]] = ()
    json_omits_defaults: ClassVar[bool] = False

    def to_dict(self) -> dict[str, Any]:
        """The fields as values that fit into JSON.

        Raises:
            InputError: When a value is something that JSON cannot hold.
        """
        keywords, hints = _keywords(type(self)), hints_of(type(self))
        written: dict[str, Any] = {}
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if f.name in self.json_omits or (self.json_omits_defaults and value == f.default):
                continue
            made = f.metadata.get("to_json", to_jsonable)(value)
            if not _is_json(made):
                fix = f.metadata.get("json", "give a value that JSON can hold")
                raise self.error_class(
                    f"{type(self).__name__}({f.name}={value!r:.80}) cannot be written as JSON: "
                    f"{fix}."
                )
            several = len(alternatives(hints[f.name])) > 1 and "to_json" not in f.metadata
            if isinstance(value, Jsonable) and several:
                made = {_tag(type(value)): made}
            written |= made if f.name == keywords else {f.name: made}
        return written | {name: to_jsonable(getattr(self, name)) for name in self.json_adds}


class Jsonable(Checked, ToDict):
    """Base of frozen dataclasses that are constructor arguments and go through JSON and back.

    A field whose value is a `Jsonable`, where other types are allowed too, is written under the
    name of its class: `keep=Budget(macs=0.5)` as `{"keep": {"budget": {"macs": 0.5}}}`. The
    entries of a field that the constructor takes as `**field` are written beside the others.

    The metadata of a field may hold functions "to_json" and "from_json" for its value, and, where
    the value may be something that JSON cannot hold, the fix for the message under "json".
    """

    @classmethod
    def from_dict(cls, arguments: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; arguments with a default may be missing.

        Raises:
            InputError: When an argument is missing or unknown, or the constructor refuses it.
        """
        if not isinstance(arguments, Mapping):
            raise cls.error_class(
                f"{cls.__name__} is {reprlib.repr(arguments)}: give an object with its arguments."
            )
        keywords, hints = _keywords(cls), hints_of(cls)
        known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
        for name in arguments:
            if name not in known and keywords is None:
                raise cls.error_class(
                    f"{cls.__name__} has no argument {reprlib.repr(name)}: it has "
                    f"{', '.join(known) or 'none'}."
                )
        for name, f in known.items():
            optional = f.default is not MISSING or f.default_factory is not MISSING
            if name not in arguments and not optional and name != keywords:
                raise cls.error_class(f"{cls.__name__} needs the argument '{name}'.")
        given = dict(arguments)
        for name, value in arguments.items():
            if name in known and "from_json" in known[name].metadata:
                given[name] = known[name].metadata["from_json"](value)
            elif name in hints:
                given[name] = _restored(hints[name], value)
        return cls(**given)


def _keywords(cls: type) -> str | None:
    """The name of the constructor's `**` argument."""
    parameters = inspect.signature(cls).parameters.values()
    return next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)


def _tag(kind: type) -> str:
    return kind.__name__.lower()


def _restored(hint: Any, value: Any) -> Any:
    """A value as it was before JSON made lists of tuples and dicts of dataclasses."""
    kinds = alternatives(hint)
    if isinstance(value, Mapping):
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, Jsonable):
                if len(kinds) == 1:
                    return kind.from_dict(value)
                if set(value) == {_tag(kind)}:
                    return kind.from_dict(value[_tag(kind)])
            if typing.get_origin(kind) is Mapping:
                of = typing.get_args(kind)[1]
                return {key: _restored(of, item) for key, item in value.items()}
    if isinstance(value, list):
        for kind in kinds:
            if typing.get_origin(kind) in (tuple, Sequence):
                return tuple(_restored(typing.get_args(kind)[0], item) for item in value)
    return value


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_json(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(_is_json(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def to_jsonable(value: Any) -> Any:
    """A record as dicts, lists and scalars that `json` can write.

    Args:
        value: A dataclass, a mapping with text keys, a sequence, an array, a path, a scalar or
            `None`.
    """
    import numpy as np

    if isinstance(value, ToDict):
        return value.to_dict()
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_jsonable(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_jsonable(item) for item in value]
    return value


def from_jsonable(kind: type[Record], value: Any) -> Record:
    """The inverse of `to_jsonable` for a dataclass.

    Args:
        kind: The dataclass to make; its fields may be scalars, `X | None`, `tuple[X, ...]`,
            `Mapping[str, X]`, `Any` and other such dataclasses.
        value: What `json` read.

    Raises:
        InputError: When a field is missing, unknown, or not of the kind's type.
    """
    made: Record = _read(kind, value, kind.__name__)
    return made


def _read(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        _check_depth(value, where)
        return value
    if is_dataclass(hint) and isinstance(hint, type):
        if issubclass(hint, Jsonable) and "from_dict" in vars(hint):
            return hint.from_dict(value)
        return _read_record(hint, value, where)
    if hint in (float, int):
        return _number(hint, value, where)
    if typing.get_origin(hint) is not None:
        return _read_generic(hint, value, where)
    return _expect(hint, value, where)


def _read_generic(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _number(arguments[0], value, where, finite=False)
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, value, where)
    if origin is tuple:
        items = _expect(list, value, where)
        return tuple(_read(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(items))
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(
                f"{where} is {reprlib.repr(value)}: expected one of {', '.join(arguments)}."
            )
        return value
    entries = _expect(dict, value, where)
    for key in entries:
        _expect(str, key, f"A name in {where}")
    return {key: _read(arguments[1], v, f"{where}['{key}']") for key, v in entries.items()}


def _read_record(kind: type[Any], value: Any, where: str) -> Any:
    entries = _expect(dict, value, where)
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [f.name for f in fields(kind)]
    wrong = sorted(set(entries).symmetric_difference(names))
    if wrong:
        state = "is missing" if wrong[0] in names else "is unknown"
        raise InputError(
            f"Field '{wrong[0]}' of {where} {state}: the record was written by another version "
            "of Saikei or was changed by hand; run the search again into a new folder."
        )
    return kind(**{n: _read(hints[n], entries[n], f"{where}.{n}") for n in names})


def _read_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    rest = [hint for hint in arguments if hint is not type(None)]
    exact = [hint for hint in rest if type(value) is hint]
    return _read((exact or rest)[0], value, where)


def _number(kind: type[float], value: Any, where: str, finite: bool = True) -> float:
    # Saikei writes 1.0, but a file that was edited by hand may have 1.
    given = _expect((float, int) if kind is float else int, value, where)
    if isinstance(given, int) and abs(given) > _LARGEST:
        raise InputError(f"{where} has more than {len(str(_LARGEST))} digits, as no record has.")
    if finite and not math.isfinite(given):
        raise InputError(f"{where} is {given}: expected a finite number.")
    return kind(given)


def _check_depth(value: Any, where: str) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        holders = [item for item in level if isinstance(item, (dict, list))]
        level = [
            item
            for holder in holders
            for item in (holder.values() if isinstance(holder, dict) else holder)
        ]
    if level:
        raise InputError(f"{where} is nested more than {_DEEPEST} deep, as no record is.")


def _expect(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        name = "float" if isinstance(kind, tuple) else kind.__name__
        raise InputError(f"{where} is {reprlib.repr(value)}: expected {name}.")
    # JSON can escape half of a surrogate pair, and no text file can hold one.
    if kind is str and any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{where} is {reprlib.repr(value)}: expected whole characters.")
    return value
