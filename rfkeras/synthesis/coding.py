"""Lossy coding of music in memory, with its delay removed, and low sampling rates.

FFmpeg (PyAV) codes MP3, AAC and Opus. Its encoder of Vorbis is experimental and ignores the
bit rate, so libsndfile codes Vorbis.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext

Codec = Literal["mp3", "aac", "opus", "vorbis"]

# Encoder, decoder, sample format, and options that make the encoder fast.
_FFMPEG: dict[Codec, tuple[str, str, str, dict[str, str]]] = {
    "mp3": ("libmp3lame", "mp3float", "fltp", {"compression_level": "7"}),
    "aac": ("aac", "aac", "fltp", {"aac_coder": "fast"}),
    "opus": ("libopus", "opus", "flt", {"compression_level": "3"}),
}
_PEAK = 0.7
"""Peak of what is coded: decoded peaks are higher, and must not clip."""

_DELAY_FRAMES = 4
"""Frames of silence behind the music, so that its end leaves encoder and decoder."""


@dataclass(frozen=True)
class Coding:
    """Code and decode the music. Time, level and length stay.

    Attributes:
        codec: "mp3", "aac", "opus" or "vorbis".
        bit_rate: Bits per second; None for Vorbis, whose rate follows from the quality.
        rate_hz: Sampling rate of the coded music.
    """

    codec: Codec
    bit_rate: int | None
    rate_hz: int

    def apply(
        self, waveform: NDArray[np.floating[Any]], rate_hz: int
    ) -> NDArray[np.floating[Any]]:
        """Return what a listener of the coded music hears."""
        peak = float(np.abs(waveform).max(initial=0.0))
        if peak == 0:
            return waveform
        scaled = (waveform * (_PEAK / peak)).astype(np.float32)
        coded = resampled(scaled, rate_hz, self.rate_hz)
        decoded = _vorbis(coded, self.rate_hz) if self.codec == "vorbis" else self._code(coded)
        decoded = resampled(decoded, self.rate_hz, rate_hz)
        return with_length(decoded, len(waveform)) * (peak / _PEAK)

    def _code(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Code and decode with FFmpeg."""
        import av

        encoder_name, decoder_name, sample_format, options = _FFMPEG[self.codec]
        encoder = self._context(encoder_name, "w")
        encoder.format = av.AudioFormat(sample_format)
        encoder.bit_rate = self.bit_rate
        encoder.time_base = Fraction(1, self.rate_hz)
        encoder.options = options
        encoder.open()
        size = encoder.frame_size
        count = -(-len(samples) // size) + _DELAY_FRAMES
        packets = []
        blocks = with_length(samples, count * size).reshape(count, 1, size)
        for number, block in enumerate(blocks):
            frame = av.AudioFrame.from_ndarray(block, format=sample_format, layout="mono")
            frame.sample_rate = self.rate_hz
            frame.time_base = Fraction(1, self.rate_hz)
            frame.pts = size * number
            packets += encoder.encode(frame)
        packets += encoder.encode(None)
        decoder = self._context(decoder_name, "r")
        decoder.extradata = encoder.extradata
        # The delay is removed here, for all codecs alike.
        decoder.flags2 |= av.codec.context.Flags2.skip_manual
        frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
        # The first packet starts before the music, by the delay of encoder and decoder.
        delay = -int(packets[0].pts or 0)
        decoded = np.concatenate([frame.to_ndarray()[0] for frame in frames])[delay:]
        return np.asarray(decoded, dtype=np.float32)

    def _context(self, name: str, mode: Literal["r", "w"]) -> AudioCodecContext:
        """Return an encoder or decoder for mono sound, with one thread."""
        import av

        context: Any = av.CodecContext.create(name, mode)
        context.sample_rate = self.rate_hz
        context.layout = "mono"
        context.thread_count = 1
        codec: AudioCodecContext = context
        return codec


@dataclass(frozen=True)
class LowRate:
    """Record at a low sampling rate, and convert back.

    Attributes:
        rate_hz: The low rate.
    """

    rate_hz: int

    def apply(
        self, waveform: NDArray[np.floating[Any]], rate_hz: int
    ) -> NDArray[np.floating[Any]]:
        """Return the waveform without frequencies above half the low rate."""
        if self.rate_hz >= rate_hz:
            return waveform
        low = resampled(waveform.astype(np.float32), rate_hz, self.rate_hz)
        return with_length(resampled(low, self.rate_hz, rate_hz), len(waveform))


def _vorbis(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """Code and decode as Ogg Vorbis, at the default quality."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format="OGG", subtype="VORBIS")
    buffer.seek(0)
    decoded: NDArray[np.float32] = soundfile.read(buffer, dtype="float32")[0]
    return decoded


def resampled(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """Return samples at another rate; as they are if the rates are equal."""
    if from_hz == to_hz:
        return samples
    result: NDArray[np.float32] = soxr.resample(samples, from_hz, to_hz)
    return result


def with_length(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Cut samples, or append zeros, to a length."""
    return np.pad(samples[:length], (0, max(length - len(samples), 0)))
