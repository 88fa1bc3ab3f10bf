"""Options of a model: single edits of single places, and several of them together."""

from __future__ import annotations

from saikei.edits.base import Option

__all__ = ["Option"]
