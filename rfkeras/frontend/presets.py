"""Front-ends by name."""

from __future__ import annotations

from typing import Any

from rfkeras.errors import ConfigError, unknown_name

_PERCEPTUAL = {"n_fft": 2048, "window_samples": 2048, "hop_samples": 512, "n_mels": 256}
PRESETS: dict[str, dict[str, Any]] = {
    # The features of the published scene networks, step for step.
    "perceptual_mel_22k": {"sample_rate_hz": 22050, **_PERCEPTUAL},
    # The MediaEval 2019 settings: 2048-sample window with 75 % overlap, 256 bands.
    "perceptual_mel_44k": {"sample_rate_hz": 44100, **_PERCEPTUAL},
    # The usual choice of later work on OpenMIC; the FFT length is the next power of two.
    "mel_32k": {
        "sample_rate_hz": 32000,
        "n_fft": 1024,
        "window_samples": 800,
        "hop_samples": 320,
        "n_mels": 128,
        "order": "mel_then_db",
        "a_weighting": False,
    },
}


def preset_config(name: str) -> dict[str, Any]:
    """Arguments of that preset.

    Raises:
        ConfigError: No such preset; the message suggests the nearest.
    """
    if name not in PRESETS:
        raise ConfigError(unknown_name("front-end", name, PRESETS))
    return dict(PRESETS[name])


def create_frontend(name: str, **overrides: Any) -> Any:
    """A `Frontend` from a preset, single arguments changed.

    Example:
        >>> create_frontend("perceptual_mel_22k", fixed_floor=True)
    """
    from rfkeras.frontend.layer import ARGUMENTS, Frontend

    known = (*ARGUMENTS, "name", "trainable", "dtype")
    for argument in overrides:
        if argument not in known:
            raise ConfigError(unknown_name("front-end argument", argument, known))
    return Frontend(**{**preset_config(name), "name": "frontend", **overrides})
