"""Front-ends: from waveform to standardised mel spectrogram, inside the model.

The presets are plain numbers; what imports a framework is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rfkeras.frontend.presets import PRESETS, create_frontend, preset_config

if TYPE_CHECKING:
    from rfkeras.frontend.build import build_input, find_frontend
    from rfkeras.frontend.layer import Frontend

__all__ = [
    "PRESETS",
    "Frontend",
    "build_input",
    "create_frontend",
    "find_frontend",
    "preset_config",
]

_LAZY = {"Frontend": "layer", "build_input": "build", "find_frontend": "build"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"rfkeras.frontend.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
