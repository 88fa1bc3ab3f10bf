"""A Keras model as a flat graph: read it, change it as a value, build it again."""

from saikei.graph.build import build, copy_model, fresh_model, layers_of
from saikei.graph.concrete import Sized, open_inputs, sized
from saikei.graph.flat import Call, Graph, Operation, TensorRef, TensorSpec, Weight
from saikei.graph.input_shapes import InputShape, with_input_shape
from saikei.graph.lineage import IgnoredClass, ignored_classes, mark, marks_of
from saikei.graph.per_step import value_inputs, wrapped_by
from saikei.graph.read import read
from saikei.graph.rewrite import (
    new_operation,
    new_weight,
    redirect,
    replace_operations,
    unused_name,
)
from saikei.graph.values import check_runs_as_read, tensor_values

__all__ = [
    "Call",
    "Graph",
    "IgnoredClass",
    "InputShape",
    "Operation",
    "Sized",
    "TensorRef",
    "TensorSpec",
    "Weight",
    "build",
    "check_runs_as_read",
    "copy_model",
    "fresh_model",
    "ignored_classes",
    "layers_of",
    "mark",
    "marks_of",
    "new_operation",
    "new_weight",
    "open_inputs",
    "read",
    "redirect",
    "replace_operations",
    "sized",
    "tensor_values",
    "unused_name",
    "value_inputs",
    "with_input_shape",
    "wrapped_by",
]
