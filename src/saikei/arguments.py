"""Arguments are checked against the type hints of the function or class that takes them.

Only types are checked. Which values are allowed is checked where they are used, and so are models
and data, which come in many forms. NumPy is imported when it is needed, so that the command line
answers at once.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, Literal, ParamSpec, TypeVar

from saikei.errors import InputError

_P = ParamSpec("_P")
_R = TypeVar("_R")

_SHOWN = 60
# `fit` and `distill` take class weights; all else takes data with weights.
_WEIGHTED = ": give the data that saikei.scoring.weigh_classes(model, data, 'balanced') returns"
_NAMES: Mapping[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Any: "anything",
    type(None): "None",
}


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A function that refuses arguments whose type is not the one of its type hints.

    Args:
        function: Any function with type hints.

    Returns:
        The same function, which raises an `InputError` that names the argument, its value and
        what to give.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            hint = _WEIGHTED if "class_weight" in kwargs else ""
            raise TypeError(f"{function.__name__}() {error}{hint}") from None
        for name, value in given.items():
            if name in hints_of(function) and not fits(hints_of(function)[name], value):
                hint = hints_of(function)[name]
                raise InputError(f"{name}={_wrong(hint, value)}: give {_asked(hint, value)}.")
        return function(*args, **kwargs)

    return call


class Checked:
    """Base of frozen dataclasses whose fields are arguments of a user.

    Numbers of NumPy become those of Python, and lists, sets and arrays become tuples where the
    type hint has a tuple.

    Attributes:
        error_class: What is raised where an argument is refused.
    """

    error_class: ClassVar[type[InputError]] = InputError

    def __post_init__(self) -> None:
        hints = hints_of(type(self))
        for f in fields(self):  # type: ignore[arg-type]
            value = plain(getattr(self, f.name), hints[f.name])
            if not fits(hints[f.name], value):
                argument = f"{type(self).__name__}({f.name}={_wrong(hints[f.name], value)})"
                raise self.error_class(f"{argument}: give {_asked(hints[f.name], value)}.")
            object.__setattr__(self, f.name, value)
        self.check_arguments()

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range; their types are checked already."""


def hints_of(of: Any) -> Mapping[str, Any]:
    """The type hints of a function or class, by name.

    Args:
        of: A function or class whose type hints can be resolved when it is called.
    """
    return _resolved(of)


@functools.cache
def _resolved(of: Any) -> Mapping[str, Any]:
    hints = typing.get_type_hints(of)
    parameters = {} if isinstance(of, type) else inspect.signature(of).parameters
    # The hint of `*args` and `**kwargs` is that of each.
    packed = [p.name for p in parameters.values() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {name: hint for name, hint in hints.items() if name not in packed}


def shown(value: object) -> str:
    """A value in a message: its start, on one line.

    Args:
        value: Any object.
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def plain(value: Any, hint: Any) -> Any:
    """A value with numbers of NumPy as those of Python, and a tuple where the hint has one.

    Args:
        value: The value of an argument.
        hint: Its type hint.
    """
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    for kind in alternatives(hint):
        if typing.get_origin(kind) is Mapping and isinstance(value, Mapping):
            return {key: plain(one, typing.get_args(kind)[1]) for key, one in value.items()}
    if not _takes_several(hint) or isinstance(value, (str, bytes, Mapping, tuple)):
        return value
    if isinstance(value, np.ndarray):
        return tuple(value.tolist()) if value.ndim else value
    is_several = isinstance(value, Iterable) and not isinstance(value, type)
    kinds = [kind for kind in alternatives(hint) if isinstance(kind, type)]
    return tuple(value) if is_several and not isinstance(value, tuple(kinds)) else value


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union without `None`, or the one type that a hint is.

    Args:
        hint: Any type hint.
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(kind for kind in typing.get_args(hint) if kind is not type(None))
    return (hint,)


def _takes_several(hint: Any) -> bool:
    return any(typing.get_origin(kind) in (tuple, Sequence) for kind in alternatives(hint))


def fits(hint: Any, value: object) -> bool:
    """Whether a value is of the type of a hint.

    A number of NumPy is a number, and 0 and 1 are true and false. Models, layers and protocols
    fit always, and so do texts where the hint has certain texts.

    Args:
        hint: A type hint that is resolved.
        value: Any object.
    """
    import numpy as np

    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(one, value) for one in inner)
    if origin is Annotated:
        return fits(inner[0], value)
    if origin is Literal:
        return type(value) in {type(one) for one in inner}
    if origin in (tuple, Sequence):
        if _of_keras(inner[0]):
            return not isinstance(value, np.ndarray)
        return isinstance(value, (tuple, list)) and all(fits(inner[0], one) for one in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            fits(inner[0], key) and fits(inner[1], one) for key, one in value.items()
        )
    return _is_of(origin or hint, value)


def _is_of(kind: Any, value: object) -> bool:
    import numpy as np

    if kind is bool:
        return isinstance(value, (bool, np.bool_)) or (type(value) is int and value in (0, 1))
    if kind in (int, float):
        number = Integral if kind is int else Real
        return isinstance(value, number) and not isinstance(value, (bool, np.bool_))
    if kind is Callable:
        return callable(value)
    if not isinstance(kind, type) or kind is Any or getattr(kind, "_is_protocol", False):
        return True
    return _of_keras(kind) or isinstance(value, kind)


def _of_keras(kind: Any) -> bool:
    return str(getattr(kind, "__module__", "")).startswith("keras.")


def _wrong(hint: Any, value: object) -> str:
    """A value in a message; of several in a tuple the first that does not fit."""
    if isinstance(value, (tuple, list)) and len(value) > 1:
        of = [typing.get_args(kind)[0] for kind in alternatives(hint) if _takes_several(kind)]
        bad = [one for one in value if not any(fits(each, one) for each in of)]
        if of and bad:
            return f"(…, {shown(bad[0])}, …)"
    return shown(value)


def _asked(hint: Any, value: object) -> str:
    """The fix for a value of a wrong type."""
    names = any(typing.get_args(kind)[:1] == (str,) for kind in alternatives(hint))
    example = f", ({value!r},)" if isinstance(value, str) and names else ""
    return f"{_described(hint)}{example}"


def _described(hint: Any) -> str:
    kinds = [one for kind in alternatives(hint) for one in _each(kind)]
    if float in alternatives(hint):
        kinds = [one for one in kinds if one != _NAMES[int]]
    if fits(hint, None):
        kinds.append("None")
    kinds = list(dict.fromkeys(kinds))
    return kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} or {kinds[-1]}"


def _each(kind: Any) -> list[str]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return [repr(one) for one in inner if one is not None]
    if origin in (tuple, Sequence):
        of: dict[Any, str] = {str: "names", int: "whole numbers", float: "numbers"}
        each = alternatives(inner[0] if inner else Any)
        kinds = [of.get(one, f"{getattr(one, '__name__', one)}s") for one in each]
        return ["a tuple" if each == (Any,) else f"a tuple of {' or '.join(kinds)}"]
    if origin is Mapping:
        return [f"a dictionary from {_described(inner[0])} to {_described(inner[1])}"]
    if (origin or kind) is Callable:
        return ["a function"]
    name = getattr(kind, "__name__", str(kind))
    article = "an" if name[:1] in "AEIOU" else "a"
    return [_NAMES.get(kind, f"{article} {name}")]
