"""A Keras model as a flat graph: read it, change it as a value, build it again."""

from saikei.graph.build import build, copy_model, fresh_model
from saikei.graph.flat import Call, Graph, Operation, TensorRef, TensorSpec, Weight
from saikei.graph.read import read

__all__ = [
    "Call",
    "Graph",
    "Operation",
    "TensorRef",
    "TensorSpec",
    "Weight",
    "build",
    "copy_model",
    "fresh_model",
    "read",
]
