"""`Pieces`: JSON values by name, each in a file that is written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saikei.errors import InputError
from saikei.reading import read_json
from saikei.writing import refused_by_disk, write_text


@dataclass(frozen=True)
class Pieces:
    """A folder with the finished pieces of some work, such as the measured sites of a library.

    Args:
        path: Path of the folder; made when something is stored.
    """

    path: Path

    def store(self, name: str, value: Any) -> None:
        """Store a piece.

        Args:
            name: Its name; any text.
            value: What JSON can hold.

        Raises:
            DiskError: If it cannot be written.
        """
        with refused_by_disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        write_text(self._file(name), json.dumps({"name": name, "value": value}))

    def load(self, name: str) -> Any:
        """A stored piece; `None` if there is none, or if it is damaged.

        Args:
            name: Its name.
        """
        try:
            stored = read_json(self._file(name), "A stored piece")
        except InputError:
            return None
        return stored.get("value") if isinstance(stored, dict) else None

    def _file(self, name: str) -> Path:
        # Names of layers may have any length and any characters.
        return self.path / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
