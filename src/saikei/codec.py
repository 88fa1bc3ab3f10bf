"""Frozen records from JSON and back, driven by their type hints."""

from __future__ import annotations

import math
import reprlib
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

from saikei.errors import InputError

Record = TypeVar("Record")

# What was logged while a model was trained may be infinite or NaN; other numbers are not.
Logged: TypeAlias = Annotated[float, "logged"]

# How deep values of any kind are nested at most, and how large whole numbers are: both far above
# what is ever written.
_DEEPEST = 64
_LARGEST = 2**63


def to_jsonable(value: Any) -> Any:
    """A record as dicts, lists and scalars that `json` can write.

    Args:
        value: a dataclass, a mapping with text keys, a sequence, a scalar or `None`.
    """
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
        kind: the dataclass to make; its fields may be scalars, `X | None`, `tuple[X, ...]`,
            `Mapping[str, X]`, `Any` and other such dataclasses.
        value: what `json` read.

    Raises:
        InputError: when a field is missing, unknown, or not of the kind's type.
    """
    made: Record = _read(kind, value, kind.__name__)
    return made


def _read(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        _check_depth(value, where)
        return value
    if is_dataclass(hint) and isinstance(hint, type):
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
    # JSON writes 1.0 as it was, but a hand-edited file may say 1.
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
    # JSON can name half a character, and no file can hold one.
    if kind is str and any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{where} is {reprlib.repr(value)}: expected whole characters.")
    return value
