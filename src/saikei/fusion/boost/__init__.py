"""`Boost`: members trained one after the other."""

from saikei.fusion.boost.boost import Boost

__all__ = ["Boost"]
