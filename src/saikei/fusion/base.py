"""What a fusion is: a frozen value that, called with members, gives one model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras


class Fusion(ABC):
    """A way to make one model of several. Subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(self, members: Sequence[keras.Model], data: Any = None) -> keras.Model:
        """Fuse the members into one model.

        Args:
            members: built models; they are copied, never changed.
            data: held-out `(x, y)` arrays or a dataset, for fusions that are fitted.

        Raises:
            FusionError: when the members do not fit each other or the fusion.
            DataError: when the data does not fit the members.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The fusion's arguments, JSON-ready; `from_dict` of its class is the inverse."""

    @classmethod
    @abstractmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
