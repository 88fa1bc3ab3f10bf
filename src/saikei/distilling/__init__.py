"""Train a student on labels and on the outputs of a teacher."""

from saikei.distilling.distill import distill
from saikei.distilling.in_parts import train_part
from saikei.distilling.stored_teacher import StoredTeacher
from saikei.distilling.top_k import TopK

__all__ = [
    "StoredTeacher",
    "TopK",
    "distill",
    "train_part",
]
