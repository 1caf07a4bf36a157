"""Audio files to float32 arrays at the model's sample rate.

soundfile (libsndfile) decodes WAV, FLAC, Ogg Vorbis, Opus and MP3; soxr resamples. Both
release the interpreter lock, so threads read in parallel.
"""

from __future__ import annotations

import math
from math import ceil, gcd
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from rfkeras.data.audio_format import (
    AudioFormat,
    AudioInfo,
    Waveform,
    resampled_length,
    to_channels,
)
from rfkeras.data.mp3 import RESERVOIR_SAMPLES
from rfkeras.data.opening import (
    Source,
    open_sound_file,
    reading,
    source_name,
    undeclared_layout,
)
from rfkeras.errors import AudioError

if TYPE_CHECKING:
    import soundfile

__all__ = [
    "AudioFile",
    "AudioFormat",
    "AudioInfo",
    "Source",
    "Waveform",
    "probe",
    "read_audio",
    "resampled_length",
    "to_channels",
]

# soxr's HQ filter reaches about 256 samples of the slower rate to each side: with twice
# that, an excerpt equals the same span of the whole file to float rounding.
_MARGIN_SAMPLES = 512
# libsndfile gives 2^63 - 1 frames for a FLAC that was written to a pipe and does not say,
# and cannot read such a file to its end.
_MAX_FRAMES = 1 << 40
# What sound is recorded at. A header that declares 1 Hz would make hours of a few kilobytes.
RATES_HZ = (1000, 768000)
# Floating-point files may hold integers that nobody divided by their range, but nothing whose
# squares, summed over a window, pass what float32 can hold.
MAX_SAMPLE = 2.0**32
# To look at a file without reading it: at no lower rate do its frames round to no sample.
ANY_FORMAT = AudioFormat(RATES_HZ[1])


class AudioFile:
    """One open file, read in samples of the model's format.

    Args:
        source: A path, or the bytes of a file.
        audio: The format wanted.
        name: What errors call it; the path when left out.

    Raises:
        AudioError: Missing, empty or undecodable, or without a single frame.
    """

    def __init__(self, source: Source, audio: AudioFormat, name: str | None = None) -> None:
        self.name = source_name(source) if name is None else name
        self.audio = audio
        self._file = open_sound_file(source, self.name)
        try:
            with reading(self.name):
                self.info = _info(self._file, source, self.name)
            self.length = resampled_length(
                self.info.frames, self.info.sample_rate_hz, audio.sample_rate_hz
            )
            if self.length == 0:  # also of a sample or two at a far higher rate
                raise AudioError(self.name, "no audio samples")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, start: int = 0, count: int | None = None) -> Waveform:
        """Samples [start, start + count) at the model's rate, the rest when count is None.

        The result equals the same span of the whole resampled file within 1e-6.

        Returns:
            float32, (count,) or (count, 2).

        Raises:
            AudioError: The span passes the file's end, the file ends before its declared
                length, or it holds NaN or infinite samples.
        """
        stop = self.length if count is None else start + count
        if not 0 <= start <= stop <= self.length:
            raise AudioError(
                self.name, f"has {self.length} samples, asked for {start} to {stop}"
            )
        source_hz, target_hz = self.info.sample_rate_hz, self.audio.sample_rate_hz
        if source_hz == target_hz:
            return self._frames(start, stop)

        import soxr

        # Both rates share a sample every source_hz/gcd frames: starting on one keeps the
        # resampler's phase, so that the excerpt is a slice of the whole and not near it.
        divisor = gcd(source_hz, target_hz)
        margin = ceil(_MARGIN_SAMPLES * max(1.0, target_hz / source_hz))
        block = max(0, start - margin) // (target_hz // divisor)
        first_out = block * (target_hz // divisor)
        first_in = block * (source_hz // divisor)
        last_in = min(self.info.frames, ceil((stop + margin) * source_hz / target_hz))
        samples = self._frames(first_in, last_in)
        with reading(self.name):
            resampled = soxr.resample(samples, source_hz, target_hz, quality="HQ")
            if len(resampled) < stop - first_out:
                # A length that ends in a half is rounded by soxr as its floating-point
                # numbers fall. It takes what follows the end for silence, as this does.
                silence = np.zeros((ceil(source_hz / target_hz), *samples.shape[1:]), "float32")
                samples = np.concatenate([samples, silence])
                resampled = soxr.resample(samples, source_hz, target_hz, quality="HQ")
            return np.ascontiguousarray(resampled[start - first_out : stop - first_out])

    def _frames(self, first: int, last: int) -> Waveform:
        """Frames [first, last) at the file's own rate, mixed to the wanted channels."""
        with reading(self.name):
            run_up = min(first, RESERVOIR_SAMPLES) if self._file.format == "MP3" else 0
            if first or self._file.tell():
                self._file.seek(first - run_up)
            samples = self._file.read(run_up + last - first, dtype="float32", always_2d=True)
            samples = samples[run_up:]
            if len(samples) < last - first:
                raise AudioError(
                    self.name,
                    f"truncated: frame {first + len(samples)} of {self.info.frames} is missing",
                )
            _check_samples(samples, self.name)
            return to_channels(samples, self.audio.channels)


def _check_samples(samples: Waveform, name: str) -> None:
    low, high = float(samples.min(initial=0.0)), float(samples.max(initial=0.0))
    if low >= -MAX_SAMPLE and high <= MAX_SAMPLE:  # NaN is on neither side
        return
    if math.isfinite(low) and math.isfinite(high):
        reason = f"samples of up to {max(-low, high):.1e} are no sound"
    else:
        reason = "NaN or infinite samples"
    raise AudioError(name, reason)


def _info(file: soundfile.SoundFile, source: Source, name: str) -> AudioInfo:
    frames = int(file.frames)
    if frames > _MAX_FRAMES:
        raise AudioError(name, "its header declares no length (re-encode it)")
    if file.format == "MP3" and (layout := undeclared_layout(source)) is not None:
        frames = min(frames, layout.samples)
    rate = int(file.samplerate)
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        raise AudioError(
            name, f"its header declares {rate} Hz; {RATES_HZ[0]} to {RATES_HZ[1]} Hz are read"
        )
    return AudioInfo(
        rate, int(file.channels), frames, frames / rate, f"{file.format}/{file.subtype}"
    )


def probe(source: Source, name: str | None = None) -> AudioInfo:
    """Rate, channels and length of an audio file, from its headers.

    Args:
        source: A path, or the bytes of a file.
        name: What errors call it; the path when left out.

    Raises:
        AudioError: Missing, empty, undecodable, or without a single frame.
    """
    with AudioFile(source, ANY_FORMAT, name) as file:
        return file.info


def read_audio(
    source: Source,
    audio: AudioFormat,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    name: str | None = None,
) -> Waveform:
    """Decode a file, or an excerpt of it, mixed and resampled to the model's format.

    Args:
        source: A path, or the bytes of a file: WAV (16, 24, 32 bit, float, extensible),
            FLAC, Ogg Vorbis, Opus, MP3 and whatever else libsndfile reads.
        audio: The format wanted; see `to_channels` for how channels are mixed.
        start_seconds: Where the excerpt starts, rounded to a sample at the model's rate.
        duration_seconds: How long it is; to the file's end when None.
        name: What errors call it; the path when left out.

    Returns:
        float32, (samples,) or (samples, 2). A whole file has
        round(frames * rate / file rate) samples, an excerpt round(duration * rate).

    Raises:
        AudioError: The file cannot be used, with the reason, or ends before the excerpt.
    """
    count = None if duration_seconds is None else audio.samples(duration_seconds)
    with AudioFile(source, audio, name) as file:
        return file.read(audio.samples(start_seconds), count)
