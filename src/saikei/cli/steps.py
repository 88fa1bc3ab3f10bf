"""Values that are typed as in Python, `PruneChannels(0.5, scope="layer")`, without running any."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from typing import Any

from saikei.errors import InputError, SaikeiError


def parse_call(text: str, classes: Mapping[str, Any], option: str) -> Any:
    """Make one value from its text.

    Only a call of a known class with literal arguments is accepted; nothing else is evaluated.

    Args:
        text: for example `RemoveLayers(0.25)` or `PruneChannels(keep=Budget(macs=0.25))`.
        classes: what may be called, by name; they may stand in each other's arguments.
        option: of the command line that it came by, for messages.

    Raises:
        InputError: when the text is no such call, or its arguments do not fit.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(
            f'{option} {text!r} cannot be read: write it as in Python, "{next(iter(classes))}(…)".'
        ) from error
    if not isinstance(tree, ast.Call):
        raise InputError(f'{option} {text!r} is no call: write it as in Python, "{text}(…)".')
    return _value(tree, classes, f"{option} {text!r}")


def _value(node: ast.expr, classes: Mapping[str, Any], said: str) -> Any:
    if isinstance(node, ast.Call):
        return _call(node, classes, said)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise InputError(
            f"{said}: {ast.unparse(node)!r} is no number, text, list or dictionary "
            "(text stands in quotes)."
        ) from error


def _call(node: ast.Call, classes: Mapping[str, Any], said: str) -> Any:
    name = ast.unparse(node.func).removeprefix("sk.")
    if name not in classes:
        raise InputError(f"{said}: unknown '{name}'; use one of {', '.join(classes)}.")
    if any(isinstance(a, ast.Starred) for a in node.args) or not all(k.arg for k in node.keywords):
        raise InputError(f"{said}: write the arguments out.")
    args = [_value(argument, classes, said) for argument in node.args]
    kwargs = {str(k.arg): _value(k.value, classes, said) for k in node.keywords}
    try:
        inspect.signature(classes[name]).bind(*args, **kwargs)
    except TypeError as error:
        known = ", ".join(inspect.signature(classes[name]).parameters) or "no arguments"
        raise InputError(f"{said}: {error}; {name} takes {known}.") from error
    try:
        return classes[name](*args, **kwargs)
    except TypeError as error:
        raise InputError(f"{said}: {error}.") from error
    except SaikeiError as error:
        raise InputError(f"{said}: {error}") from error
