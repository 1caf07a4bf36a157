"""Receptive-field-regularised CNNs for music classification and tagging.

The rooms of the library are imported on first use, so `import rfkeras` and the receptive
field arithmetic do not load TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_ROOMS = (
    "data",
    "errors",
    "evaluation",
    "export",
    "frontend",
    "interop",
    "layers",
    "receptive_field",
    "training",
)

__all__ = ["__version__", "load_model", *_ROOMS]


def __getattr__(name: str) -> Any:
    if name == "load_model":
        return importlib.import_module("rfkeras.loading").load_model
    if name in _ROOMS:
        return importlib.import_module(f"rfkeras.{name}")
    raise AttributeError(f"module 'rfkeras' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
