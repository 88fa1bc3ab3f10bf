"""The kind of a layer or operation: the name under which rules are looked up.

A subclass that computes what a layer of Keras computes (`class Hidden(keras.layers.Dense)` with an
`__init__` of its own) is of the kind of that layer, unless a rule is registered for the subclass.
"""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import keras

from saikei.rules import find_rule

# What a subclass may define anew without computing anything else than its base.
_HARMLESS_NAMES = (
    "__init__ __doc__ __module__ __qualname__ __dict__ __weakref__ __annotations__ __slots__ "
    "__annotate__ __annotate_func__ __annotations_cache__ __firstlineno__ __static_attributes__ "
    "__repr__ __str__ get_config from_config"
)
_HARMLESS = frozenset(_HARMLESS_NAMES.split())
# What Keras or Python calls where a class defines it.
_HOOKS = ("__getattr__", "save_assets", "load_assets")


def kind_of(operation: Any) -> str:
    """The name under which rules know the class of a layer or operation."""
    cls = type(operation)
    own = f"{cls.__module__}.{cls.__qualname__}"
    base = cls if _is_keras(cls) else None
    if base is None and find_rule(own) is None:
        base = keras_class(operation)
    if base is None:
        return own
    name: str = base.__name__
    return name if isinstance(operation, keras.Layer) else f"ops.{name}"


def keras_class(layer: Any) -> type | None:
    """The class of Keras that computes what a layer computes.

    Args:
        layer: A layer, perhaps of a subclass.

    Returns:
        The layer's own class if it is Keras's; for a subclass its base in Keras, if the subclass
        changes nothing but `__init__` and adds to `get_config()` only; otherwise `None`.
    """
    cls = type(layer)
    if not isinstance(layer, keras.Layer) or isinstance(layer, keras.Model):
        return None
    if _is_keras(cls):
        return cls
    base = next(one for one in cls.__mro__ if _is_keras(one))
    if base is keras.Layer or not _computes_the_same(cls, base):
        return None
    return base if _has_settings_of(layer, base) else None


def _is_keras(cls: type) -> bool:
    return cls.__module__.startswith("keras.")


def _computes_the_same(cls: type, base: type) -> bool:
    own = [one for one in cls.__mro__ if one not in base.__mro__]
    names = {name for one in own for name in vars(one) if name not in _HARMLESS}
    return not names.intersection(_HOOKS) and all(
        inspect.getattr_static(cls, name) is inspect.getattr_static(base, name)
        for name in names
        if hasattr(base, name)
    )


def _has_settings_of(layer: Any, base: Any) -> bool:
    """Whether the layer's config has all settings of its base, with the same values."""
    try:
        with warnings.catch_warnings():
            # Of lambdas, which nothing is saved of here.
            warnings.simplefilter("ignore", UserWarning)
            expected, config = base.get_config(layer), layer.get_config()
    except (NotImplementedError, AttributeError, KeyError, TypeError, ValueError):
        return False
    return all(key in config and repr(config[key]) == repr(v) for key, v in expected.items())
