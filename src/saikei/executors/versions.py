"""Versions of the packages that decide what is computed, compared between machines."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata

from saikei.errors import WorkError

_PACKAGES = ("saikei", "keras", "numpy")


def package_versions(backend: str) -> Mapping[str, str]:
    """Versions of Saikei, Keras, NumPy and the backend, without importing them.

    Args:
        backend: Name of the backend.
    """
    found = {name: _version(name) for name in (*_PACKAGES, backend, f"{backend}-cpu")}
    return {name: version for name, version in found.items() if version}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def check_versions(driver: Mapping[str, str]) -> None:
    """Refuse a machine with other versions than the process that started the tasks.

    Args:
        driver: What `package_versions` gave there. Packages that this machine knows by another
            name are not compared.

    Raises:
        WorkError: With the versions that differ.
    """
    here = {name: _version(name) or version for name, version in driver.items()}
    other = [name for name, version in driver.items() if here[name] != version]
    if other:
        differing = ", ".join(f"{name} {here[name]} instead of {driver[name]}" for name in other)
        raise WorkError(
            f"The machine '{platform.node()}' has {differing}, which could give other weights: "
            "install the same versions on every machine."
        )
