"""`Chain`: each member reads the output of the one before it."""

from saikei.fusion.chain.chain import Chain

__all__ = ["Chain"]
