"""`Stack`: a meta-learner over the outputs of the members."""

from saikei.fusion.stack.stack import Stack

__all__ = ["Stack"]
