"""Front-ends: from waveform to standardised mel spectrogram, inside the model."""

from typing import Any

from rfkeras.frontend.build import build_input, find_frontend
from rfkeras.frontend.presets import PRESETS, create_frontend, preset_config

__all__ = [
    "PRESETS",
    "Frontend",
    "build_input",
    "create_frontend",
    "find_frontend",
    "preset_config",
]


def __getattr__(name: str) -> Any:
    if name == "Frontend":  # imports TensorFlow and kapre
        from rfkeras.frontend.layer import Frontend

        return Frontend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
