"""Audio files to float32 arrays at the model's sample rate.

soundfile (libsndfile) decodes WAV, FLAC, Ogg Vorbis, Opus and MP3; soxr resamples. Both
release the interpreter lock, so threads read in parallel.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, gcd
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.containers import (
    RESERVOIR_SAMPLES,
    Mp3Layout,
    file_size,
    mp3_declared_frames,
    mp3_ends_as_declared,
    mp3_file_layout,
    mp3_layout,
    mp3_with_frame_count,
    ogg_cut,
    riff_cut,
)
from rfkeras.errors import AudioError, ConfigError

if TYPE_CHECKING:
    import soundfile

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class AudioFormat:
    """What the model wants to hear.

    Args:
        sample_rate_hz: Samples a second, 22050 for example.
        channels: 1 (mono) or 2 (stereo).

    Raises:
        ConfigError: Another number of channels, or a rate that is not positive.
    """

    sample_rate_hz: int
    channels: int = 1

    def __post_init__(self) -> None:
        if self.channels not in (1, 2):
            raise ConfigError(f"Audio has 1 or 2 channels. Received: {self.channels}.")
        if self.sample_rate_hz <= 0:
            raise ConfigError(
                f"The sample rate must be positive, in Hz. Received: {self.sample_rate_hz}."
            )

    def samples(self, seconds: float) -> int:
        """Samples in that time, rounded to the nearest."""
        return round(seconds * self.sample_rate_hz)

    def shape(self, samples: int) -> tuple[int, ...]:
        """Shape of a waveform: (samples,) for mono, (samples, 2) for stereo."""
        return (samples,) if self.channels == 1 else (samples, self.channels)


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds: rate, channels, frames (samples a channel), length, container."""

    sample_rate_hz: int
    channels: int
    frames: int
    duration_seconds: float
    container: str


def resampled_length(frames: int, from_hz: int, to_hz: int) -> int:
    """Samples after resampling: frames * to_hz / from_hz, halves rounded up."""
    return (2 * frames * to_hz + from_hz) // (2 * from_hz)


def to_channels(samples: Waveform, channels: int) -> Waveform:
    """Mix (frames, any number of channels) to (frames,) or (frames, 2).

    Mono is the mean of all channels. Stereo from mono is that channel twice; stereo from
    more than two channels is the mean of all of them twice, because which speaker a
    channel belongs to is not recorded reliably.
    """
    if channels == 2 and samples.shape[1] == 2:
        return samples
    mono = _mean(samples)
    return mono if channels == 1 else np.stack([mono, mono], axis=1)


def _mean(samples: Waveform) -> Waveform:
    """The mean of all channels; of one, that channel itself."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    if samples.shape[1] == 2:
        # Bit for bit what `mean` gives, in a tenth of its time: that takes longer for two
        # channels than decoding a WAV file does.
        return (samples[:, 0] + samples[:, 1]) / np.float32(2.0)
    mixed: Waveform = samples.mean(axis=1, dtype=np.float32)
    return mixed


Source = str | Path | bytes
_NO_SUCH_FILE = "File does not exist or is not a regular file"


def source_name(source: Source) -> str:
    """How messages call this source."""
    return "<bytes>" if isinstance(source, bytes) else str(source)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what libsndfile and soundfile raise on broken input into AudioError."""
    import soundfile

    try:
        yield
    except soundfile.LibsndfileError as error:
        said = error.error_string
        if _NO_SUCH_FILE in said:  # libsndfile's words for MP3 without a frame; it is there
            said = "nothing in it can be decoded"
        raise AudioError(name, f"undecodable: {said}") from error
    except MemoryError as error:
        raise AudioError(name, f"not enough memory to decode it: {error}") from error
    except OSError as error:
        raise AudioError(name, f"unreadable: {error.strerror or error}") from error
    except (RuntimeError, ValueError) as error:
        raise AudioError(name, f"undecodable: {error}") from error


def open_sound_file(source: Source, name: str) -> soundfile.SoundFile:
    """Open an audio file for reading.

    Args:
        source: A path, or the bytes of a file.
        name: What errors call it.

    Raises:
        AudioError: It is missing, empty or undecodable.
    """
    import soundfile

    with reading(name):
        if (len(source) if isinstance(source, bytes) else _size(Path(source), name)) == 0:
            raise AudioError(name, "empty file (0 bytes)")
        file = soundfile.SoundFile(
            # As bytes, for soundfile cannot encode the str of a name that is no UTF-8.
            io.BytesIO(source) if isinstance(source, bytes) else os.fsencode(source)
        )
        return _to_its_end(file, source) if file.format == "MP3" else file


def _size(path: Path, name: str) -> int:
    """Bytes of a file that can be read.

    Raises:
        AudioError: It is missing, or no file: a pipe would be waited for.
        OSError: It may not be read. libsndfile would not say why.
    """
    if not path.is_file():
        raise AudioError(name, "not a file" if path.exists() else "missing file or broken link")
    with path.open("rb") as stream:
        return file_size(stream)


def _to_its_end(file: soundfile.SoundFile, source: Source) -> soundfile.SoundFile:
    """The same MP3 file, opened so that libsndfile reads all of it."""
    layout = undeclared_layout(source)
    if layout is None or layout.samples <= file.frames:
        return file
    file.close()
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    return type(file)(io.BytesIO(mp3_with_frame_count(data, layout)))


def undeclared_layout(source: Source) -> Mp3Layout | None:
    """Layout of an MP3 file whose header declares no length, for libsndfile guesses it."""
    if isinstance(source, bytes):
        declared = mp3_declared_frames(io.BytesIO(source))
        return mp3_layout(source) if declared is None else None
    with Path(source).open("rb") as stream:
        declared = mp3_declared_frames(stream)
    return mp3_file_layout(Path(source)) if declared is None else None


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


TOLERANCE_SECONDS = 0.1  # encoders pad and trim by up to a few codec frames of 20-26 ms


def check_file(
    path: str | Path,
    expected_seconds: float | None = None,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> AudioInfo:
    """Check that an audio file is there, whole and readable.

    Args:
        path: The file.
        expected_seconds: Length by the data set's definition, None where lengths vary.
        tolerance_seconds: How much shorter than expected a file may be.

    Returns:
        What the file holds.

    Raises:
        AudioError: It cannot be used; the reason says why.
    """
    name = str(path)
    with AudioFile(path, ANY_FORMAT, name) as file:
        info = file.info
    reason = _cut(Path(path), info)
    if reason is not None:
        raise AudioError(name, f"truncated: {reason}")
    if (
        expected_seconds is not None
        and info.duration_seconds < expected_seconds - tolerance_seconds
    ):
        raise AudioError(
            name,
            f"truncated: {info.duration_seconds:.2f} s long, expected {expected_seconds:g} s",
        )
    return info


def _cut(path: Path, info: AudioInfo) -> str | None:
    kind = info.container.split("/")[0]
    if kind == "MP3":
        with path.open("rb") as stream:
            if mp3_ends_as_declared(stream):
                return None
        layout = mp3_file_layout(path)
        return None if layout is None else layout.cut
    if kind == "FLAC":
        return _flac_cut(path, info)
    with path.open("rb") as stream:
        if kind in ("WAV", "WAVEX", "RF64"):
            return riff_cut(stream)
        if kind == "OGG":
            return ogg_cut(stream)
    return None


def _flac_cut(path: Path, info: AudioInfo) -> str | None:
    """Decode the last block: in a cut file it is not there."""
    with AudioFile(path, AudioFormat(info.sample_rate_hz)) as file:
        try:
            file.read(info.frames - 1, 1)
        except AudioError as error:
            return f"the last of {info.frames} frames is not there ({error.reason})"
    return None
