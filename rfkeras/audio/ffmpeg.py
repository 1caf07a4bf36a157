"""Read compressed audio with FFmpeg (PyAV): its true length, and exact excerpts.

A first pass over the packets of a file finds out how many samples each one holds. It decodes
nothing where the packets themselves say so (MP3, Ogg Vorbis, Opus). The result is a `Layout`,
kept in memory until the file changes, with a limited number of entry points. An excerpt is
decoded from one of these on.

Some decoders never forget: two decoders of AAC with noise substitution that start at different
packets differ for good. Files in such codecs are decoded in segments, each by a new decoder
that has first decoded the half second before. So the samples of a segment are the same from
wherever the file is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.layout import (
    FORGETFUL,
    Demuxer,
    SampleCounter,
    ffmpeg_error,
    flac_gap,
    in_places,
    layout_of,
    rate_changes,
)
from rfkeras.audio.source import AnySource, Source, part_of, size_of
from rfkeras.errors import AudioError

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.frame import AudioFrame
    from av.packet import Packet

Planar = NDArray[np.float32]  # (channels, samples)

_BLOCK_SAMPLES = 1 << 14
# PyAV looks for a null pointer behind the planes; FFmpeg writes none behind more than these.
_MAX_PLANES = 7
_AHEAD_SECONDS = 1.0  # decoding this far ahead is cheaper than seeking


class FFmpegFile:
    """An audio file that FFmpeg decodes.

    Args:
        source: A path, or the content of a file as bytes.
        name: Name of the file in errors.

    Attributes:
        sample_rate_hz: Samples per second.
        channels: Number of channels.
        frames: Samples per channel.
        container: Format and codec.

    Raises:
        AudioError: Nothing in the file can be decoded.
    """

    def __init__(self, source: AnySource, name: str) -> None:
        self._source = source
        self._name = name
        self._layout = layout = layout_of(source, name)
        self.sample_rate_hz = layout.rate_hz
        self.channels = layout.channels
        self.frames = layout.frames
        self.container = layout.container
        self._blocks: Iterator[tuple[int, Planar]] | None = None
        self._block = (0, np.empty((layout.channels, 0), np.float32))
        self._wanted = 0  # raw position up to which the current call reads
        self._lost: dict[int, int] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about damage found so far."""
        if not self._lost:
            return self._layout.notes
        seconds = sum(self._lost.values()) / self.sample_rate_hz
        lost = f"damaged: {in_places(len(self._lost), seconds)} cannot be decoded"
        return (*self._layout.notes, lost)

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Read frames [first, last): float32 of shape (frames, channels)."""
        samples = np.empty((self.channels, last - first), np.float32)
        done = 0
        for raw_first, raw_last in self._layout.raw_spans(first, last):
            count = raw_last - raw_first
            self._read_raw(raw_first, samples[:, done : done + count])
            done += count
        return samples.T

    def close(self) -> None:
        """Close the file."""
        if self._blocks is not None:
            self._blocks.close()  # type: ignore[attr-defined]
            self._blocks = None

    def _read_raw(self, first: int, into: Planar) -> None:
        """Fill an array with raw samples from `first` on."""
        start, block = self._block
        ahead = start + block.shape[1] + _AHEAD_SECONDS * self.sample_rate_hz
        filled, wanted = 0, into.shape[1]
        self._wanted = first + wanted
        if self._blocks is None or not start <= first <= ahead:
            self.close()
            self._blocks = self._decode(first)
            block = block[:, :0]
        while filled < wanted:
            skip = first + filled - start
            if 0 <= skip < block.shape[1]:
                count = min(wanted - filled, block.shape[1] - skip)
                into[:, filled : filled + count] = block[:, skip : skip + count]
                filled += count
                continue
            start, block = self._block = next(self._blocks)

    def _decode(self, first: int) -> Iterator[tuple[int, Planar]]:
        """Yield (raw position, samples) without gaps to the end, from `first` or before."""
        layout = self._layout
        positions = layout.entries[:, 3]
        number = max(0, int(np.searchsorted(positions, first, side="right")) - 1)
        if layout.codec in FORGETFUL:
            yield from self._segment(number, layout.raw_frames)
            return
        ends = [*positions[1:].tolist(), layout.raw_frames]
        for segment in range(number, len(ends)):
            yield from self._segment(segment, ends[segment])

    def _segment(self, number: int, end: int) -> Iterator[tuple[int, Planar]]:
        """Yield the blocks from an entry to the raw position `end`; silence for losses."""
        begin_at, begin_time, count_at, raw = map(int, self._layout.entries[number])
        counting = begin_at < 0
        block = _Block(raw, self._layout.channels)
        with closing(Demuxer(self._source, self._name)) as demuxer:
            known = SampleCounter(demuxer, self._layout.rate_hz)
            for packet in demuxer.packets_from(begin_at, begin_time):
                counting = counting or packet.pos == count_at
                if counting and (gap := flac_gap(demuxer, packet, block.end)) > 0:
                    block.set_end(min(block.end + gap, end))
                expected = known.samples(packet) if packet.size else None
                frames = _decoded(demuxer.decoder, packet, known.payload)
                if not counting:
                    continue
                before = block.end
                for frame in frames:
                    self._check_rate(frame)
                    block.add(frame)
                if expected is not None and block.end != before + expected:
                    if block.end < before + expected:
                        self._lost[block.end] = before + expected - block.end
                    block.set_end(before + expected)
                if block.end >= end:
                    break
                if block.end >= self._wanted or block.is_full:
                    yield block.start, block.samples
                    block = _Block(block.end, self._layout.channels)
        if block.end < end:
            self._lost[block.end] = end - block.end
        block.set_end(end)
        yield block.start, block.samples

    def _check_rate(self, frame: AudioFrame) -> None:
        if frame.sample_rate != self._layout.rate_hz:
            raise rate_changes(self._name, self._layout.rate_hz, frame.sample_rate)


class _Block:
    """Raw samples of consecutive packets.

    Args:
        start: Raw position of the first sample.
        channels: Number of channels.

    Attributes:
        end: Raw position after the last sample.
    """

    def __init__(self, start: int, channels: int) -> None:
        self.start = start
        self.end = start
        self._array = np.empty((channels, 2 * _BLOCK_SAMPLES), np.float32)

    @property
    def is_full(self) -> bool:
        """Return whether to begin another block."""
        return self.end - self.start >= _BLOCK_SAMPLES

    @property
    def samples(self) -> Planar:
        """All samples: float32 of shape (channels, samples)."""
        return self._array[:, : self.end - self.start]

    def add(self, frame: AudioFrame) -> None:
        """Append the samples of a frame, converted to float32 in the file's channels."""
        count = frame.samples
        into = self._space(count)
        channels = frame.layout.nb_channels
        if channels == len(into) <= _MAX_PLANES and frame.format.name == "fltp":
            planes: tuple[Any, ...] = frame.planes
            for row in range(channels):
                into[row] = np.frombuffer(planes[row], np.float32, count)
        else:
            into[:] = mixed_to(_float32(frame), len(into))

    def set_end(self, end: int) -> None:
        """Append silence up to a raw position, or drop the samples from there on."""
        if end > self.end:
            self._space(end - self.end)[:] = 0.0
        self.end = end

    def _space(self, count: int) -> Planar:
        done = self.end - self.start
        self.end += count
        if done + count > self._array.shape[1]:
            larger = np.empty((len(self._array), 2 * (done + count)), np.float32)
            larger[:, :done] = self._array[:, :done]
            self._array = larger
        return self._array[:, done : done + count]


class ChainFile:
    """The streams of a chained Ogg or joined FLAC file, in the channels of the first one.

    Args:
        source: A path, or the content of a file as bytes.
        links: Where the links begin.
        name: Name of the file in errors.

    Attributes:
        sample_rate_hz: Samples per second.
        channels: Number of channels.
        frames: Samples per channel, of all links.
        container: Format and codec of the first link.

    Raises:
        AudioError: No link can be decoded, or their sample rates differ.
    """

    def __init__(self, source: Source, links: tuple[int, ...], name: str) -> None:
        self._parts: list[FFmpegFile] = []
        self._unreadable = 0
        reason: AudioError | None = None
        for first, last in pairwise((*links, size_of(source))):
            try:
                self._parts.append(FFmpegFile(part_of(source, first, last), name))
            except (AudioError, ValueError, OSError) as error:
                self._unreadable += 1
                reason = error if isinstance(error, AudioError) else None
        if not self._parts:
            raise reason or AudioError(name, "undecodable: nothing in it can be decoded")
        first_part = self._parts[0]
        self.sample_rate_hz = first_part.sample_rate_hz
        self.channels = first_part.channels
        self.container = first_part.container
        for part in self._parts:
            if part.sample_rate_hz != self.sample_rate_hz:
                raise rate_changes(name, self.sample_rate_hz, part.sample_rate_hz)
        self._starts = list(accumulate((part.frames for part in self._parts), initial=0))
        self.frames = self._starts[-1]

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about damage found so far, each once."""
        notes = [note for part in self._parts for note in part.notes]
        if self._unreadable:
            links = len(self._parts) + self._unreadable
            notes.append(f"damaged: {self._unreadable} of {links} streams cannot be decoded")
        return tuple(dict.fromkeys(notes))

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Read frames [first, last): float32 of shape (frames, channels)."""
        samples = np.empty((self.channels, last - first), np.float32)
        for part, start in zip(self._parts, self._starts, strict=False):
            low, high = max(first, start), min(last, start + part.frames)
            if low < high:
                heard = part.read(low - start, high - start).T
                samples[:, low - first : high - first] = mixed_to(heard, self.channels)
        return samples.T

    def close(self) -> None:
        """Close the file."""
        for part in self._parts:
            part.close()


def _decoded(
    decoder: AudioCodecContext, packet: Packet[Any], payload: bytes | None
) -> list[AudioFrame]:
    """Decode a packet, or the part of it that is audio; an empty list if it is damaged."""
    import av

    if payload is not None:
        if not payload:
            return []
        packet = av.Packet(payload)
    try:
        return decoder.decode(packet if packet.size else None)
    except (ffmpeg_error(), ValueError):
        return []


_SCALES = {"u8": 2.0**-7, "s16": 2.0**-15, "s32": 2.0**-31, "s64": 2.0**-63}
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}


def _float32(frame: AudioFrame) -> Planar:
    """Return the samples of a frame as float32 of shape (channels, samples)."""
    channels, count = frame.layout.nb_channels, frame.samples
    if frame.format.is_planar and channels > _MAX_PLANES:
        frame = _packed(frame)
    dtype = _DTYPES[kind := frame.format.name.removesuffix("p")]
    planes: tuple[Any, ...] = frame.planes
    samples: NDArray[Any]
    if frame.format.is_planar:
        rows = [np.frombuffer(plane, dtype, count) for plane in planes[:channels]]
        samples = np.stack(rows)
    else:
        flat = np.frombuffer(planes[0], dtype, count * channels)
        samples = flat.reshape(count, channels).T
    if kind in _SCALES:
        offset = 128.0 if kind == "u8" else 0.0
        samples = (samples - offset) * _SCALES[kind]
    as_float: Planar = samples.astype(np.float32, copy=False)
    return as_float


def _packed(frame: AudioFrame) -> AudioFrame:
    """Return a frame with the samples of all channels in one plane."""
    import av

    kind = frame.format.name.removesuffix("p")
    frame.pts = None
    (packed,) = av.AudioResampler(kind, frame.layout, frame.sample_rate).resample(frame)
    return packed


def mixed_to(planar: Planar, channels: int) -> Planar:
    """Repeat the mean of all channels where the number of channels differs."""
    if planar.shape[0] == channels:
        return planar
    return np.repeat(planar.mean(axis=0, dtype=np.float32)[None], channels, axis=0)
