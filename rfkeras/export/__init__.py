"""Export models to formats that run without this library."""

from rfkeras.export.onnx import onnx
from rfkeras.export.saved_model import ExportError, saved_model
from rfkeras.export.tflite import tflite
from rfkeras.export.verify import verify

__all__ = ["ExportError", "onnx", "saved_model", "tflite", "verify"]
