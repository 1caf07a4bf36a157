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
    "sweep",
    "tagging",
    "training",
    "tuning",
)

_FUNCTIONS = {
    "fold": "folding",
    "load_model": "loading",
    "open_model": "loading",
    "rho_for": "receptive_field",
    "Tagger": "tagger",
}

__all__ = ["__version__", *_FUNCTIONS, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"rfkeras.{_FUNCTIONS[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"rfkeras.{name}")
    raise AttributeError(f"module 'rfkeras' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
