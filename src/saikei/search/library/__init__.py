"""The library: every option of every place in a model alone, with its loss and its costs."""

from saikei.search.library.build_library import build_library
from saikei.search.library.divergence import divergence
from saikei.search.library.library import LeftOut, Library, Measured, Pair
from saikei.search.library.measure import measure_site

__all__ = ["LeftOut", "Library", "Measured", "Pair", "build_library", "divergence", "measure_site"]
