"""The methods by name, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from saikei.errors import FusionError
from saikei.merging.methods import (
    Dare,
    Ema,
    Fisher,
    Greedy,
    Linear,
    Merge,
    ModelStock,
    Slerp,
    TaskArithmetic,
    Ties,
)

Method: TypeAlias = Merge | Fisher | Greedy

# Methods by the names that they have in papers and on the command line.
NAMED: Mapping[str, Method] = MappingProxyType(
    {
        "uniform": Linear(),
        "greedy": Greedy(),
        "fisher": Fisher(),
        "slerp": Slerp(),
        "ema": Ema(),
        "task_arithmetic": TaskArithmetic(),
        "ties": Ties(),
        "dare": Dare(),
        "model_stock": ModelStock(),
    }
)
# Methods by the names of their classes, for JSON and for calls on the command line.
METHODS: Mapping[str, type[Method]] = MappingProxyType(
    {type(method).__name__: type(method) for method in NAMED.values()}
)


def find_method(method: object) -> Method:
    """A method by its name; a method itself is returned as it is.

    Raises:
        FusionError: When it is unknown.
    """
    if isinstance(method, (Merge, Fisher, Greedy)):
        return method
    if isinstance(method, str) and method in NAMED:
        return NAMED[method]
    raise FusionError(
        f"method={method!r} is unknown: use one of {', '.join(NAMED)}, or a value such as "
        "Ties(density=0.3)."
    )


def method_from_dict(record: Mapping[str, Any]) -> Method:
    """The inverse of a method's `to_dict`.

    Raises:
        FusionError: When there is no such method.
    """
    kind = METHODS.get(str(record.get("method")))
    if kind is None:
        raise FusionError(
            f"There is no method {record.get('method')!r}: use one of {', '.join(METHODS)}."
        )
    return kind(**{key: value for key, value in record.items() if key != "method"})
