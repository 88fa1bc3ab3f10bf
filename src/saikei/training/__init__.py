"""Train Keras models, and keep account of the rows they were trained on."""

from saikei.training.cross_fit import CrossFit, cross_fit
from saikei.training.fit import fit
from saikei.training.parts import TrainingSettings
from saikei.training.provenance import (
    check_held_out,
    declare_training_rows,
    inherit_rows,
    is_in_sample,
)

__all__ = [
    "CrossFit",
    "TrainingSettings",
    "check_held_out",
    "cross_fit",
    "declare_training_rows",
    "fit",
    "inherit_rows",
    "is_in_sample",
]
