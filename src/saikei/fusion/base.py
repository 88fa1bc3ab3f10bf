"""What a fusion is: a frozen value that, called with members, gives one model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import keras


class Fusion(ABC):
    """A way to make one model of several. Subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(self, members: Any, data: Any = None) -> keras.Model:
        """Fuse the members into one model.

        Args:
            members: a list of built models; they are copied, never changed. Fusions that are fitted
                to predictions take what `cross_fit` gives too.
            data: held-out `(x, y)` arrays or a dataset, for fusions that are fitted.

        Raises:
            FusionError: when the members do not fit each other or the fusion.
            DataError: when the data does not fit the members.
        """

    @property
    def complexity(self) -> int:
        """How much it fits: of two fusions that are as good, the one with less is chosen.

        0 is one member, 1 a fixed mean, 2 some numbers for each member, 3 some for each member
        and class, 4 and above more than that.
        """
        return 3

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The fusion's arguments, JSON-ready; `from_dict` of its class is the inverse."""

    @classmethod
    @abstractmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
