"""Models for other runtimes, written by Keras and believed when the runtime has run them."""

from saikei.exporting.export import ENDINGS, Exported, export_model

__all__ = ["ENDINGS", "Exported", "export_model"]
