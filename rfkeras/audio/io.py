"""Read audio files as float32 arrays at the model's sample rate.

libsndfile decodes WAV, FLAC, AIFF and their kin, FFmpeg everything else, and soxr resamples.
All release the interpreter lock, so several threads can read in parallel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil, gcd
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.ffmpeg import ChainFile, FFmpegFile
from rfkeras.audio.ogg import ogg_links
from rfkeras.audio.sndfile import LibsndfileFile, flac_links, is_for_libsndfile
from rfkeras.audio.source import Source
from rfkeras.errors import AudioError, ConfigError

Waveform = NDArray[np.float32]

TOLERANCE_SECONDS = 0.1  # encoders pad and trim by up to a few codec frames of 20-26 ms
# A header that declares 1 Hz would turn a few kilobytes into hours of audio.
RATES_HZ = (1000, 768000)
# Floating-point files can hold integers that were never divided by their range. Larger values
# would overflow float32 when their squares are summed over a window.
MAX_SAMPLE = 2.0**32
# soxr's HQ filter reaches about 256 samples of the slower rate to each side. With twice that,
# an excerpt equals the same span of the whole file up to float rounding.
_MARGIN_SAMPLES = 512
_HEAD_BYTES = 16
_END_FRAMES = 1024
_BLOCK_FRAMES = 1 << 20


@dataclass(frozen=True)
class AudioFormat:
    """Sample rate and channels of a model's input.

    Args:
        sample_rate_hz: Samples per second, 22050 for example.
        channels: 1 (mono) or 2 (stereo).

    Raises:
        ConfigError: The number of channels is not 1 or 2, or the rate is not positive.
    """

    sample_rate_hz: int
    channels: int = 1

    def __post_init__(self) -> None:
        if self.channels not in (1, 2):
            raise ConfigError(
                f"Audio must have 1 or 2 channels. Received: channels={self.channels}."
            )
        if self.sample_rate_hz <= 0:
            raise ConfigError(
                "The sample rate must be positive, in Hz. Received: "
                f"sample_rate_hz={self.sample_rate_hz}."
            )

    def samples(self, seconds: float) -> int:
        """Convert a duration to samples, rounded to the nearest."""
        return round(seconds * self.sample_rate_hz)

    def shape(self, samples: int) -> tuple[int, ...]:
        """Return the shape of a waveform: (samples,) for mono, (samples, 2) for stereo."""
        return (samples,) if self.channels == 1 else (samples, self.channels)


# To read only the header: a rate so high that no frame count rounds to 0 samples.
_ANY_FORMAT = AudioFormat(RATES_HZ[1])


@dataclass(frozen=True)
class AudioInfo:
    """Properties of an audio file.

    Attributes:
        sample_rate_hz: Samples per second.
        channels: Number of channels.
        frames: Samples per channel.
        duration_seconds: Length in seconds.
        container: Format and encoding, "WAV/PCM_16" for example.
        notes: One sentence for each kind of damage that was found so far: an end that is
            missing, audio that was skipped.
    """

    sample_rate_hz: int
    channels: int
    frames: int
    duration_seconds: float
    container: str
    notes: tuple[str, ...] = ()


def read_audio(
    source: Source,
    audio: AudioFormat,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    name: str | None = None,
) -> Waveform:
    """Decode a file or an excerpt of it, converted to the model's format.

    Args:
        source: A path, or the content of a file as bytes: WAV (16, 24, 32 bit, float,
            extensible), FLAC, Ogg Vorbis, Opus, MP3 and other formats that libsndfile reads.
        audio: Format of the result. `to_channels` describes how channels are mixed.
        start_seconds: Start of the excerpt, rounded to a sample at the model's rate.
        duration_seconds: Length of the excerpt; None reads to the end of the file.
        name: Name of the file in errors; None uses the path.

    Returns:
        float32 of shape (samples,) or (samples, 2). A whole file has
        round(frames * rate / file rate) samples, an excerpt round(duration * rate).

    Raises:
        AudioError: The file cannot be used, or ends before the excerpt does.
    """
    count = None if duration_seconds is None else audio.samples(duration_seconds)
    with AudioFile(source, audio, name) as file:
        return file.read(audio.samples(start_seconds), count)


def probe(source: Source, name: str | None = None) -> AudioInfo:
    """Read the sample rate, channels and length of an audio file from its headers.

    Args:
        source: A path, or the content of a file as bytes.
        name: Name of the file in errors; None uses the path.

    Returns:
        Properties of the file.

    Raises:
        AudioError: The file is missing, empty, undecodable or without samples.
    """
    with AudioFile(source, _ANY_FORMAT, name) as file:
        return file.info


def check_file(
    path: str | Path,
    expected_seconds: float | None = None,
    tolerance_seconds: float = TOLERANCE_SECONDS,
    *,
    strict: bool = False,
    decode: bool = False,
) -> AudioInfo:
    """Check that an audio file exists and can be read, and note what is damaged.

    Args:
        path: The file.
        expected_seconds: Length that the file should have; None accepts any length.
        tolerance_seconds: How much shorter than expected the file may be.
        strict: Whether damage that can be read around is an error.
        decode: Whether to decode all of it, which also finds damage in the middle. Without
            it, only the ends are decoded.

    Returns:
        Properties of the file.

    Raises:
        AudioError: The file cannot be used.
    """
    name = str(path)
    with AudioFile(path, _ANY_FORMAT, name) as file:
        file.decode_all() if decode else file.decode_ends()
        info = replace(file.info, notes=file.notes)
    if strict and info.notes:
        raise AudioError(name, "; ".join(info.notes))
    if (
        expected_seconds is not None
        and info.duration_seconds < expected_seconds - tolerance_seconds
    ):
        raise AudioError(
            name,
            f"truncated: {info.duration_seconds:.2f} s long, expected {expected_seconds:g} s",
        )
    return info


class FrameReader(Protocol):
    """An open audio file that is read at its own sample rate.

    Attributes:
        sample_rate_hz: Samples per second.
        channels: Number of channels.
        frames: Samples per channel.
        container: Format and encoding.
        notes: Sentences about damage found so far.
    """

    sample_rate_hz: int
    channels: int
    frames: int
    container: str

    @property
    def notes(self) -> tuple[str, ...]: ...

    def read(self, first: int, last: int) -> Waveform:
        """Read frames [first, last): float32 of shape (frames, channels)."""

    def close(self) -> None:
        """Close the file."""


class AudioFile:
    """An open audio file that is read in the model's format.

    Args:
        source: A path, or the content of a file as bytes.
        audio: Format of the samples.
        name: Name of the file in errors; None uses the path.

    Attributes:
        info: Properties of the file itself.
        length: Length of the file in samples at the model's rate.

    Raises:
        AudioError: The file is missing, empty, undecodable or without samples.

    Example:
        with AudioFile("song.flac", AudioFormat(22050)) as file:
            first_second = file.read(0, 22050)
    """

    def __init__(self, source: Source, audio: AudioFormat, name: str | None = None) -> None:
        self.name = source_name(source) if name is None else name
        self.audio = audio
        with _decoding_errors(self.name):
            self._file = _open_reader(source, self.name)
        try:
            self.info = _info(self._file, self.name)
            self.length = resampled_length(
                self.info.frames, self.info.sample_rate_hz, audio.sample_rate_hz
            )
            if self.length == 0:  # also one or two samples at a much higher rate
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

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about damage found so far; complete once all has been read."""
        return self._file.notes

    def decode_ends(self) -> None:
        """Decode the first and the last samples.

        Raises:
            AudioError: They cannot be decoded.
        """
        frames = self.info.frames
        self._frames(0, min(frames, _END_FRAMES))
        self._frames(max(0, frames - _END_FRAMES), frames)

    def decode_all(self) -> None:
        """Decode all samples, a block at a time, so that `notes` are complete.

        Raises:
            AudioError: Some cannot be decoded, or are NaN, infinite or too large.
        """
        for first in range(0, self.info.frames, _BLOCK_FRAMES):
            self._frames(first, min(first + _BLOCK_FRAMES, self.info.frames))

    def read(self, start: int = 0, count: int | None = None) -> Waveform:
        """Read samples [start, start + count) at the model's rate.

        The result equals the same span of the whole resampled file within 1e-6.

        Args:
            start: First sample, at the model's rate.
            count: Number of samples; None reads to the end of the file.

        Returns:
            float32 of shape (count,) or (count, 2).

        Raises:
            AudioError: The span goes past the end of the file, the file ends before its
                declared length, or it has NaN, infinite or too large samples.
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

        # Both rates share a sample every source_hz/gcd frames. Starting on a shared sample
        # keeps the resampler's phase, so the excerpt matches a slice of the whole file.
        divisor = gcd(source_hz, target_hz)
        margin = ceil(_MARGIN_SAMPLES * max(1.0, target_hz / source_hz))
        block = max(0, start - margin) // (target_hz // divisor)
        first_out = block * (target_hz // divisor)
        first_in = block * (source_hz // divisor)
        last_in = min(self.info.frames, ceil((stop + margin) * source_hz / target_hz))
        samples = self._frames(first_in, last_in)
        with _decoding_errors(self.name):
            resampled = soxr.resample(samples, source_hz, target_hz, quality="HQ")
            if len(resampled) < stop - first_out:
                # When the length is halfway between two integers, soxr may round it down.
                # soxr treats everything past the end as silence, so appending silence
                # changes no other sample.
                silence = np.zeros((ceil(source_hz / target_hz), *samples.shape[1:]), "float32")
                samples = np.concatenate([samples, silence])
                resampled = soxr.resample(samples, source_hz, target_hz, quality="HQ")
            return np.ascontiguousarray(resampled[start - first_out : stop - first_out])

    def _frames(self, first: int, last: int) -> Waveform:
        """Read frames [first, last) at the file's own rate, mixed to the model's channels."""
        with _decoding_errors(self.name):
            samples = self._file.read(first, last)
            _check_samples(samples, self.name)
            return to_channels(samples, self.audio.channels)


def to_channels(samples: Waveform, channels: int) -> Waveform:
    """Mix any number of channels to mono or stereo.

    Mono is the mean of all channels. Stereo from mono repeats the channel. Stereo from more
    than two channels repeats the mean, because files do not reliably record which speaker a
    channel belongs to.

    Args:
        samples: float32 of shape (frames, channels).
        channels: 1 or 2.

    Returns:
        float32 of shape (frames,) or (frames, 2).
    """
    if channels == 2 and samples.shape[1] == 2:
        return samples
    mono = _mean(samples)
    return mono if channels == 1 else np.stack([mono, mono], axis=1)


def _mean(samples: Waveform) -> Waveform:
    """Average the channels."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    if samples.shape[1] == 2:
        # Bit-identical to `mean` and ten times faster. For two channels `mean` takes longer
        # than decoding a WAV file.
        return (samples[:, 0] + samples[:, 1]) / np.float32(2.0)
    mixed: Waveform = samples.mean(axis=1, dtype=np.float32)
    return mixed


def resampled_length(frames: int, from_hz: int, to_hz: int) -> int:
    """Return the samples after resampling: frames * to_hz / from_hz, halves rounded up."""
    return (2 * frames * to_hz + from_hz) // (2 * from_hz)


def source_name(source: Source) -> str:
    """Return the name of a source in messages."""
    return "<bytes>" if isinstance(source, bytes) else str(source)


@contextmanager
def _decoding_errors(name: str) -> Iterator[None]:
    """Convert the exceptions that the decoders raise to AudioError."""
    import soundfile

    try:
        yield
    except soundfile.LibsndfileError as error:
        raise AudioError(name, f"undecodable: {error.error_string.rstrip('.')}") from error
    except MemoryError as error:
        raise AudioError(name, f"not enough memory to decode it: {error}") from error
    except Exception as error:
        # PyAV's import takes 0.2 s, and most files do not need it. Another thread may be
        # importing it now, so the module may not have its classes yet.
        if type(error).__module__ == "av.error":
            reason = getattr(error, "strerror", None) or error
            raise AudioError(name, f"undecodable: {reason}") from error
        if isinstance(error, OSError):
            raise AudioError(name, f"unreadable: {error.strerror or error}") from error
        if isinstance(error, RuntimeError | ValueError):
            raise AudioError(name, f"undecodable: {error}") from error
        raise


def _open_reader(source: Source, name: str) -> FrameReader:
    """Open an audio file with the decoder that reads all of it."""
    import soundfile

    head = source[:_HEAD_BYTES] if isinstance(source, bytes) else _head(Path(source), name)
    if not head:
        raise AudioError(name, "empty file (0 bytes)")
    if head.startswith(b"OggS") and len(links := ogg_links(source)) > 1:
        return ChainFile(source, links, name)
    if head.startswith((b"fLaC", b"ID3")) and len(links := flac_links(source)) > 1:
        return ChainFile(source, links, name)
    if not is_for_libsndfile(head):
        return FFmpegFile(source, name)
    try:
        return LibsndfileFile(source, name)
    except (AudioError, soundfile.LibsndfileError) as reason:
        import av

        try:
            return FFmpegFile(source, name)
        except (AudioError, av.error.FFmpegError, ValueError):
            raise reason from None


def _head(path: Path, name: str) -> bytes:
    """Return the first bytes of a regular, readable file.

    Opening the file here gives a precise OSError. Pipes are rejected because reading one could
    block forever.
    """
    if not path.is_file():
        raise AudioError(name, "not a file" if path.exists() else "missing file or broken link")
    with path.open("rb") as stream:
        return stream.read(_HEAD_BYTES)


def _info(file: FrameReader, name: str) -> AudioInfo:
    rate = file.sample_rate_hz
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        raise AudioError(
            name,
            f"its header declares a sample rate of {rate} Hz; allowed are {RATES_HZ[0]} to "
            f"{RATES_HZ[1]} Hz",
        )
    return AudioInfo(
        rate, file.channels, file.frames, file.frames / rate, file.container, file.notes
    )


def _check_samples(samples: Waveform, name: str) -> None:
    low, high = float(samples.min(initial=0.0)), float(samples.max(initial=0.0))
    if low >= -MAX_SAMPLE and high <= MAX_SAMPLE:  # both are false for NaN
        return
    if math.isfinite(low) and math.isfinite(high):
        reason = f"samples of up to {max(-low, high):.1e} are too large to be audio"
    else:
        reason = "NaN or infinite samples"
    raise AudioError(name, reason)
