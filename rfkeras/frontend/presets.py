"""Presets of the front-end, and the units of their pixels. Imports no framework."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rfkeras.errors import ConfigError
from rfkeras.utils.user_code import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

_DEFAULTS = {"n_fft": 2048, "hop_samples": 512, "n_mels": 256}  # those of `Frontend`
_PERCEPTUAL = {**_DEFAULTS, "window_samples": 2048}
_OWN_PRESETS: dict[str, dict[str, Any]] = {
    # The exact features of the published acoustic scene networks.
    "perceptual_mel_22k": {"sample_rate_hz": 22050, **_PERCEPTUAL},
    # The settings for MediaEval 2019: 2048-sample window with 75 % overlap, 256 bands.
    "perceptual_mel_44k": {"sample_rate_hz": 44100, **_PERCEPTUAL},
    # The usual choice in later work on OpenMIC; the FFT length is the next power of two.
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


PRESETS: Registry[dict[str, Any]] = Registry("front-end", _OWN_PRESETS)


def preset_config(name: str) -> dict[str, Any]:
    """Return the `Frontend` arguments of a preset.

    Raises:
        ConfigError: Unknown preset; the message suggests the nearest name.
    """
    return dict(PRESETS[name])


def register_frontend(name: str, *, sample_rate_hz: int, **arguments: Any) -> None:
    """Register a preset of the front-end, for --frontend and `create_model(frontend=...)`.

    Args:
        name: Its name.
        sample_rate_hz: Sample rate of the waveforms.
        **arguments: Further arguments of `Frontend`, such as n_fft, hop_samples and n_mels, as
            JSON values, since they are saved in the model. Defaults: those of `Frontend`.

    Raises:
        ConfigError: The name is taken or not allowed.

    Example:
        >>> register_frontend("mel_16k", sample_rate_hz=16000, n_fft=512, hop_samples=160)
    """
    numbers = {**_DEFAULTS, **arguments}
    window = {"window_samples": numbers["n_fft"]}
    PRESETS.add(name, {"sample_rate_hz": sample_rate_hz, **window, **numbers})


# Slaney's mel scale (Auditory Toolbox, 1998): linear up to 1 kHz, logarithmic above.
_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0
_ROUNDING_FRAMES = 1e-9


class FrontendNumbers(Protocol):
    """The parameters of a front-end that determine the size of its pixels."""

    sample_rate_hz: int
    window_samples: int
    hop_samples: int
    n_mels: int


@dataclass(frozen=True)
class SpectrogramScale:
    """The size of a spectrogram's pixels in milliseconds and Hz.

    The filter bank is the default of librosa and kapre, which the front-end uses: triangles
    on the Slaney mel scale between 0 Hz and half the sample rate, each from the centre of
    the band below to the centre of the band above. Frames are centred: frame 0 is centred
    on time 0.

    Attributes:
        sample_rate_hz: Sample rate of the audio.
        window_samples: Length of the analysis window in samples.
        hop_samples: Samples between frames.
        n_mels: Number of mel bands between 0 Hz and half the sample rate.

    Raises:
        ConfigError: A number is not positive.
    """

    sample_rate_hz: int
    window_samples: int
    hop_samples: int
    n_mels: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ConfigError(
                    f"A spectrogram's {name} must be positive. Received: {value}."
                )

    @property
    def hop_ms(self) -> float:
        """Time between two frames in milliseconds."""
        return 1000.0 * self.hop_samples / self.sample_rate_hz

    @property
    def window_ms(self) -> float:
        """Length of the analysis window in milliseconds."""
        return 1000.0 * self.window_samples / self.sample_rate_hz

    def ms(self, frames: int) -> float:
        """Return the milliseconds of audio that this many neighbouring frames cover.

        Raises:
            ConfigError: Fewer than 1 frame.
        """
        if frames < 1:
            raise ConfigError(f"A span needs at least 1 frame. Received: {frames}.")
        samples = (frames - 1) * self.hop_samples + self.window_samples
        return 1000.0 * samples / self.sample_rate_hz

    def frames_within_ms(self, ms: float) -> int:
        """Return the largest number of neighbouring frames that fit in this much audio."""
        hops = (ms - self.window_ms) / self.hop_ms
        return max(0, 1 + math.floor(hops + _ROUNDING_FRAMES))

    def mel_share(self, bands: int | None) -> float:
        """Return the part of the mel axis that this many bands cover; None: all bands."""
        return 1.0 if bands is None else min(1.0, bands / self.n_mels)

    def time_s(self, frame: float) -> float:
        """Return the centre of a frame in seconds from the start of the audio."""
        return frame * self.hop_samples / self.sample_rate_hz

    def band_edges_hz(self) -> NDArray[np.float64]:
        """Return the n_mels + 2 edges of the filter bank: band b spans edges b to b + 2."""
        import numpy as np

        return _mel_to_hz(np.linspace(0.0, self._top_mel, self.n_mels + 2))

    def band_centre_hz(self, band: float) -> float:
        """Return the centre of a band; a fractional band lies between two bands."""
        return float(_mel_to_hz((band + 1) * self._mel_step))

    def band_of_hz(self, hz: float) -> float:
        """Return the fractional band centred at a frequency; inverse of band_centre_hz."""
        return float(_hz_to_mel(hz)) / self._mel_step - 1

    def hz_span(self, first_band: int, stop_band: int) -> tuple[float, float]:
        """Return the lowest and highest frequency of a range of bands.

        Bands outside the spectrogram are ignored.

        Args:
            first_band: First band.
            stop_band: Band after the last.

        Raises:
            ConfigError: None of these bands is in the spectrogram.
        """
        first, stop = max(0, first_band), min(self.n_mels, stop_band)
        if first >= stop:
            raise ConfigError(
                f"The spectrogram has mel bands 0 to {self.n_mels - 1}. Received: first_band="
                f"{first_band}, stop_band={stop_band}, which contains none of them."
            )
        edges = self.band_edges_hz()
        return float(edges[first]), float(edges[stop + 1])

    def bands_around(self, centre_hz: float, bands: int) -> tuple[int, int]:
        """Return the window of this many bands with a frequency in its middle.

        Returns:
            (first band, band after the last); these can be outside the spectrogram.

        Raises:
            ConfigError: The frequency is not in the spectrogram.
        """
        if not 0 < centre_hz < self.sample_rate_hz / 2:
            raise ConfigError(
                "The frequency must be between 0 and half the sample rate, "
                f"{self.sample_rate_hz / 2:g} Hz. Received: {centre_hz:g} Hz."
            )
        middle = min(max(self.band_of_hz(centre_hz), 0.0), self.n_mels - 1.0)
        first = math.floor(middle - (bands - 1) / 2 + 0.5)
        return first, first + bands

    def bandwidth_hz(self, bands: int, centre_hz: float) -> float:
        """Return the width in Hz of this many bands around a frequency.

        Higher mel bands are wider, so the same number of bands spans few Hz in the bass and
        many in the treble.

        Raises:
            ConfigError: The frequency is not in the spectrogram.
        """
        low, high = self.hz_span(*self.bands_around(centre_hz, bands))
        return high - low

    @property
    def _top_mel(self) -> float:
        return float(_hz_to_mel(self.sample_rate_hz / 2))

    @property
    def _mel_step(self) -> float:
        return self._top_mel / (self.n_mels + 1)


def scale_of_frontend(frontend: FrontendNumbers) -> SpectrogramScale:
    """Return the units of a front-end's output."""
    return SpectrogramScale(
        frontend.sample_rate_hz,
        frontend.window_samples,
        frontend.hop_samples,
        frontend.n_mels,
    )


def scale_of_preset(name: str) -> SpectrogramScale:
    """Return the units of a preset, without building the front-end.

    Raises:
        ConfigError: Unknown preset; the message suggests the nearest name.
    """
    config = preset_config(name)
    return SpectrogramScale(
        config["sample_rate_hz"],
        config["window_samples"],
        config["hop_samples"],
        config["n_mels"],
    )


def _hz_to_mel(hz: ArrayLike) -> NDArray[np.float64]:
    import numpy as np

    hz = np.asarray(hz, dtype=np.float64)
    logarithmic = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _HZ_PER_MEL, logarithmic)


def _mel_to_hz(mel: ArrayLike) -> NDArray[np.float64]:
    import numpy as np

    mel = np.asarray(mel, dtype=np.float64)
    above = np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, _BREAK_HZ * above)
