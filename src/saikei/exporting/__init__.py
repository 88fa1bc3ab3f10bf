"""Models as files for other runtimes, written by Keras and checked by running them there."""

from saikei.exporting.export import ENDINGS, Exported, export_model

__all__ = ["ENDINGS", "Exported", "export_model"]
