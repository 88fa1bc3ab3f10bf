"""Data as people have it: archives, folders of images, tables, and functions that return data."""

from saikei.sources.source import read_source

__all__ = ["read_source"]
