"""Models for use without this library."""

from rfkeras.export.saved_model import saved_model
from rfkeras.export.verify import ExportError, verify

__all__ = ["ExportError", "saved_model", "verify"]
