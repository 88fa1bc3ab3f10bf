"""Parse calls typed as in Python, `PruneChannels(0.5, scope="layer")`, without running code."""

from __future__ import annotations

import ast
import inspect
import types
import typing
import warnings
from collections.abc import Mapping
from typing import Any

from saikei.errors import InputError, SaikeiError, in_one_line

_LONGEST = 200


def parse_call(text: str, classes: Mapping[str, Any], option: str) -> Any:
    """Make one value from its text.

    Only a call of a known class with literal arguments is accepted; nothing else is evaluated.

    Args:
        text: The call, for example `RemoveLayers(0.25)` or `PruneChannels(keep=Budget(macs=0.25))`.
        classes: Classes that may be called, by name; also in each other's arguments.
        option: Option of the command line that the text was typed for, for messages.

    Raises:
        InputError: If the text is not such a call, or its arguments do not fit.
    """
    where = f"{option} {shown(text)}"
    try:
        with warnings.catch_warnings():
            # The text is parsed, not run.
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(text.strip(), mode="eval").body
        if isinstance(tree, ast.Call):
            return _value(tree, classes, where)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, SaikeiError):
            raise
        raise InputError(
            f'{where} cannot be read: write it as in Python, "{next(iter(classes))}(…)".'
        ) from error
    name = text.strip() if text.strip() in classes else next(iter(classes))
    raise InputError(f'{where} is no call: write it as in Python, "{name}(…)".')


def shown(text: str) -> str:
    """The text in quotes, shortened if it is very long."""
    return repr(text) if len(text) <= _LONGEST else f"{text[:_LONGEST]!r}…"


def _value(node: ast.expr, classes: Mapping[str, Any], typed: str) -> Any:
    if isinstance(node, ast.Call):
        return _call(node, classes, typed)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise InputError(
            f"{typed}: {shown(ast.unparse(node))} is no number, text, list or dictionary "
            "(put text in quotes)."
        ) from error


def _call(node: ast.Call, classes: Mapping[str, Any], typed: str) -> Any:
    name = ast.unparse(node.func).removeprefix("sk.")
    if name not in classes:
        raise InputError(f"{typed}: unknown {shown(name)}; use one of {', '.join(classes)}.")
    if any(isinstance(a, ast.Starred) for a in node.args) or not all(k.arg for k in node.keywords):
        raise InputError(f"{typed}: write each argument out, without * or **.")
    args = [_value(argument, classes, typed) for argument in node.args]
    kwargs = {str(k.arg): _value(k.value, classes, typed) for k in node.keywords}
    try:
        bound = inspect.signature(classes[name]).bind(*args, **kwargs)
    except TypeError as error:
        known = ", ".join(inspect.signature(classes[name]).parameters) or "no arguments"
        raise InputError(f"{typed}: {error}; {name} takes {known}.") from error
    try:
        made = classes[name](*args, **kwargs)
    except SaikeiError as error:
        raise InputError(f"{typed}: {error}") from error
    # Arbitrary values may raise anything.
    except Exception as error:
        raise InputError(f"{typed}: {in_one_line(error)}.") from error
    _check_types(classes[name], bound.arguments, typed)
    return made


def _check_types(kind: Any, arguments: Mapping[str, Any], typed: str) -> None:
    """Refuse values of a wrong type that the class does not check itself."""
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, TypeError):
        # Some hints cannot be evaluated.
        return
    for name, value in arguments.items():
        hint = hints.get(name, Any)
        if not _fits(hint, value) or (name == "seed" and value < 0):
            wanted = "a whole number of at least 0" if name == "seed" else _named(hint)
            raise InputError(
                f"{typed}: {name}={shown(repr(value))}: {kind.__name__} takes {wanted}."
            )


def _fits(hint: Any, value: Any) -> bool:
    """Whether a literal value is of a type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(argument, value) for argument in arguments)
    if origin is typing.Literal:
        return any(value == known and type(value) is type(known) for known in arguments)
    if origin is tuple and arguments[1:] == (...,):
        whole = isinstance(value, (tuple, list))
        return whole and all(_fits(arguments[0], item) for item in value)
    if hint in (int, float):
        number = (int, float) if hint is float else int
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in (str, bool, type(None)) else True


def _named(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
