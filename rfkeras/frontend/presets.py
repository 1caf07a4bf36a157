"""Front-ends by name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rfkeras.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

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


# Slaney's mel scale (Auditory Toolbox, 1998): linear up to 1 kHz, logarithmic above.
_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0
_ROUNDING_FRAMES = 1e-9


class FrontendNumbers(Protocol):
    """The numbers of a front-end that say how large its pixels are."""

    sample_rate_hz: int
    window_samples: int
    hop_samples: int
    n_mels: int


@dataclass(frozen=True)
class SpectrogramScale:
    """What a pixel of a spectrogram is in milliseconds and Hz.

    The filter bank is the front-end's, as librosa and kapre make it by default: triangles on
    the Slaney mel scale between 0 Hz and half the sample rate, each from the centre of the
    band below to that of the band above. Frames are centred: frame 0 lies around time 0.

    Attributes:
        sample_rate_hz: Rate of the audio.
        window_samples: Length of the analysis window.
        hop_samples: Samples between two frames.
        n_mels: Mel bands between 0 Hz and half the sample rate.

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
        """Milliseconds of audio that so many neighbouring frames are computed from.

        Raises:
            ConfigError: Fewer than 1 frame.
        """
        if frames < 1:
            raise ConfigError(f"A span needs at least 1 frame. Received: {frames}.")
        samples = (frames - 1) * self.hop_samples + self.window_samples
        return 1000.0 * samples / self.sample_rate_hz

    def frames_within_ms(self, ms: float) -> int:
        """The most neighbouring frames computed from that much audio; 0: not even one."""
        hops = (ms - self.window_ms) / self.hop_ms
        return max(0, 1 + math.floor(hops + _ROUNDING_FRAMES))

    def time_s(self, frame: float) -> float:
        """Centre of a frame, in seconds from the start of the audio."""
        return frame * self.hop_samples / self.sample_rate_hz

    def band_edges_hz(self) -> NDArray[np.float64]:
        """The n_mels + 2 points of the filter bank: band b reaches from point b to b + 2."""
        import numpy as np

        return _mel_to_hz(np.linspace(0.0, self._top_mel, self.n_mels + 2))

    def band_centre_hz(self, band: float) -> float:
        """Centre of a band; between two bands for a part of one."""
        return float(_mel_to_hz((band + 1) * self._mel_step))

    def band_of_hz(self, hz: float) -> float:
        """The band whose centre that is, in parts of a band; turns band_centre_hz round."""
        return float(_hz_to_mel(hz)) / self._mel_step - 1

    def hz_span(self, first_band: int, stop_band: int) -> tuple[float, float]:
        """Lowest and highest frequency of the bands from the first up to before the last.

        What lies outside of the spectrogram is left out.

        Raises:
            ConfigError: None of these bands is in the spectrogram.
        """
        first, stop = max(0, first_band), min(self.n_mels, stop_band)
        if first >= stop:
            raise ConfigError(
                f"There are mel bands 0 to {self.n_mels - 1}. Received: first_band="
                f"{first_band}, stop_band={stop_band}, which holds none of them."
            )
        edges = self.band_edges_hz()
        return float(edges[first]), float(edges[stop + 1])

    def bands_around(self, centre_hz: float, bands: int) -> tuple[int, int]:
        """The window of so many bands in the middle of which a frequency lies.

        Returns:
            (first band, the one after the last); they may lie outside of the spectrogram.

        Raises:
            ConfigError: The spectrogram does not hold that frequency.
        """
        if not 0 < centre_hz < self.sample_rate_hz / 2:
            raise ConfigError(
                "A frequency of the spectrogram lies between 0 and half its sample rate, "
                f"{self.sample_rate_hz / 2:g} Hz. Received: {centre_hz:g} Hz."
            )
        middle = min(max(self.band_of_hz(centre_hz), 0.0), self.n_mels - 1.0)
        first = math.floor(middle - (bands - 1) / 2 + 0.5)
        return first, first + bands

    def bandwidth_hz(self, bands: int, centre_hz: float) -> float:
        """Hz between the ends of so many bands around a frequency.

        Mel bands are wider the higher they lie, so the same number of bands spans few Hz in
        the bass and many in the treble.

        Raises:
            ConfigError: The spectrogram does not hold that frequency.
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
    """The units of what a front-end computes."""
    return SpectrogramScale(
        frontend.sample_rate_hz,
        frontend.window_samples,
        frontend.hop_samples,
        frontend.n_mels,
    )


def scale_of_preset(name: str) -> SpectrogramScale:
    """The units of a front-end by name, without building it.

    Raises:
        ConfigError: No such preset; the message suggests the nearest.
    """
    # A table of numbers, which imports nothing; the front-end itself comes after this room.

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
