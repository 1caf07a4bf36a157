"""The input end of a model: with a front-end, or without.

The front-end itself, and with it TensorFlow and kapre, is imported only where a model has
one: networks that take spectrograms run on every Keras backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from rfkeras.errors import ConfigError
from rfkeras.frontend.presets import create_frontend

if TYPE_CHECKING:
    from rfkeras.frontend.layer import Frontend


def build_input(
    frontend: str | Frontend | None, input_channels: int, min_frames: int
) -> tuple[Any, Any]:
    """Input of a model and the spectrogram that its trunk reads.

    Args:
        frontend: Name of a preset, a layer, or None where the model takes spectrograms.
        input_channels: 1 or 2.
        min_frames: Fewest frames that the trunk can take; the front-end pads up to it.

    Returns:
        (input, spectrogram): symbolic tensors; the input is "waveform", (batch, samples)
        for mono and (batch, samples, 2) for stereo, or "spectrogram",
        (batch, time, mel, input_channels).

    Raises:
        ConfigError: Unknown preset, or input_channels is neither 1 nor 2.
    """
    if input_channels not in (1, 2):
        raise ConfigError(
            f"input_channels must be 1 (mono) or 2 (stereo). Received: {input_channels!r}."
        )
    if frontend is None:
        spectrogram = keras.Input((None, None, input_channels), name="spectrogram")
        return spectrogram, spectrogram
    from rfkeras.frontend.layer import Frontend

    layer = create_frontend(frontend) if isinstance(frontend, str) else frontend
    if not isinstance(layer, Frontend):
        raise ConfigError(
            "frontend must be the name of a preset, a rfkeras.frontend.Frontend, or None. "
            f"Received: {frontend!r}."
        )
    layer.min_frames = max(layer.min_frames, min_frames)
    shape = (None,) if input_channels == 1 else (None, input_channels)
    waveform = keras.Input(shape, dtype="float32", name="waveform")
    return waveform, layer(waveform)


def find_frontend(model: keras.Model) -> Frontend | None:
    """The model's front-end, or None where it takes spectrograms."""
    from rfkeras.frontend.layer import Frontend

    for layer in model.layers:
        if isinstance(layer, Frontend):
            return layer
    return None
