"""`Soup`: one network whose weights are merged from those of several."""

from saikei.fusion.soup.soup import Soup

__all__ = ["Soup"]
