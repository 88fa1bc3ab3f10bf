"""The public names are exactly those that are promised, and each has its home."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import saikei


def test_every_public_name_can_be_had() -> None:
    assert set(saikei.__all__) == set(saikei._HOMES) == set(dir(saikei))
    for name in saikei.__all__:
        assert getattr(saikei, name).__doc__


def test_no_module_hides_a_public_name() -> None:
    # Importing saikei.profile would put the module in the place of the function.
    modules = {module.name for module in pkgutil.iter_modules(saikei.__path__)}
    assert not modules & set(saikei.__all__)


def test_what_a_module_exports_exists() -> None:
    for module in pkgutil.walk_packages(saikei.__path__, "saikei."):
        if module.name.endswith("__main__"):
            continue
        loaded = importlib.import_module(module.name)
        for name in getattr(loaded, "__all__", ()):
            assert hasattr(loaded, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Melt'"):
        _ = saikei.Melt
