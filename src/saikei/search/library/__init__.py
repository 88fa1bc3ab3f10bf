"""The library: every option of every place in a model alone, with its loss and its costs."""

from saikei.search.library.library import LeftOut, Library, Measured

__all__ = ["LeftOut", "Library", "Measured"]
