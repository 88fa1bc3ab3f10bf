"""Models as files for other runtimes, written by Keras and checked by running them there."""

from saikei.exporting.export import ENDINGS, Exported, export_model
from saikei.exporting.family import export_family
from saikei.exporting.int8 import (
    Int8File,
    check_int8_available,
    compare_scores,
    export_int8,
    int8_available,
)

__all__ = [
    "ENDINGS",
    "Exported",
    "Int8File",
    "check_int8_available",
    "compare_scores",
    "export_family",
    "export_int8",
    "export_model",
    "int8_available",
]
