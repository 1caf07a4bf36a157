"""Read compressed audio with FFmpeg (PyAV): its true length, and exact excerpts.

A first pass over the packets of a file finds out how many samples each one holds. It decodes
nothing where the packets themselves say so (MP3, Ogg Vorbis, Opus). The result is a `Layout`,
kept in memory until the file changes, with a limited number of entry points. An excerpt is
decoded from one of these on.

The frames of a healthy MP3 file are decoded many at a time, without a container.

Some decoders never forget: two decoders of AAC with noise substitution that start at different
packets differ for good. Files in such codecs are decoded in segments, each by a new decoder
that has first decoded the half second before. So the samples of a segment are the same from
wherever the file is read.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.layout import in_places, layout_of
from rfkeras.audio.mpeg import MpegFrame
from rfkeras.audio.packets import FORGETFUL, Demuxer, flac_gap, mp3_frames, rate_changes
from rfkeras.audio.sample_counter import SampleCounter
from rfkeras.audio.source import AnySource, Source, part_of, size_of
from rfkeras.errors import AudioError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler

Samples = NDArray[np.float32]
_Rows = list[Any]  # memory views of the float32 samples of each channel
_Piece = tuple[int, int, _Rows]  # raw position, number of samples, samples

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
        self._pieces: Generator[_Piece] | None = None
        self._piece: _Piece = (0, 0, [])
        self._lost: dict[int, int] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about damage found so far."""
        if not self._lost:
            return self._layout.notes
        seconds = sum(self._lost.values()) / self.sample_rate_hz
        lost = f"damaged: {in_places(len(self._lost), seconds)} cannot be decoded"
        return (*self._layout.notes, lost)

    def read(self, first: int, last: int) -> Samples:
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
        if self._pieces is not None:
            self._pieces.close()
            self._pieces = None

    def _read_raw(self, first: int, samples: Samples) -> None:
        """Fill an array of shape (channels, samples) with raw samples from `first` on."""
        start, count, rows = self._piece
        if not start <= first <= start + count + _AHEAD_SECONDS * self.sample_rate_hz:
            self.close()
        pieces, self._pieces = self._pieces, None  # set again if nothing fails
        if pieces is None:
            pieces = self._decode(first)
            start, count = first, 0
        targets = [memoryview(row) for row in samples]  # faster than to copy by NumPy
        filled, wanted = 0, samples.shape[1]
        while filled < wanted:
            skip = first + filled - start
            if skip >= count:
                start, count, rows = next(pieces)
                continue
            end = filled + count - skip
            if end > wanted:
                end = wanted
            into, part = slice(filled, end), slice(skip, skip + end - filled)
            for target, row in zip(targets, rows, strict=True):
                target[into] = row[part]
            filled = end
        self._pieces, self._piece = pieces, (start, count, rows)

    def _decode(self, first: int) -> Generator[_Piece]:
        """Yield pieces without gaps to the end, from raw position `first` or before.

        Behind a damaged MP3 frame, some pieces are yielded again.
        """
        layout = self._layout
        positions = layout.entries[:, 3]
        number = max(0, int(np.searchsorted(positions, first, side="right")) - 1)
        if layout.codec not in FORGETFUL:
            ends = [*positions[1:].tolist(), layout.raw_frames]
            for segment in range(number, len(ends)):
                yield from self._segment(segment, ends[segment])
            return
        done = int(positions[number])
        if layout.is_mp3 and layout.packet_samples:
            for piece in self._mp3_frames(number):
                yield piece
                done = piece[0] + piece[1]
            number = int(np.searchsorted(positions, done, side="right")) - 1
        if done < layout.raw_frames:
            yield from self._segment(number, layout.raw_frames)

    def _mp3_frames(self, number: int) -> Generator[_Piece]:
        """Yield the pieces from an entry to the first damaged frame."""
        begin_at, _, count_at, raw = map(int, self._layout.entries[number])
        count, converter = self._layout.packet_samples, _Converter(self.channels)
        like = MpegFrame(count, self.sample_rate_hz, None, 0)
        if begin_at < 0:
            begin_at = count_at
        for frames in mp3_frames(self._source, begin_at, count_at, like):
            for frame in frames:
                yield raw, count, converter.rows(frame)
                raw += count

    def _segment(self, number: int, end: int) -> Generator[_Piece]:
        """Yield the pieces from an entry to the raw position `end`; silence for losses."""
        begin_at, begin_time, count_at, raw = map(int, self._layout.entries[number])
        rate_hz = self.sample_rate_hz
        counting = begin_at < 0
        converter = _Converter(self.channels)
        with closing(Demuxer(self._source, self._name)) as demuxer:
            counter = SampleCounter(demuxer, rate_hz)
            is_flac, alike = demuxer.is_flac, self._layout.packet_samples
            for packet in demuxer.packets_from(begin_at, begin_time):
                counting = counting or packet.pos == count_at
                expected: int | None = None
                if packet.size:
                    expected = alike or counter.samples(packet)
                frames = demuxer.decode(packet, counter.payload) or []
                if not counting:
                    continue
                if is_flac and (gap := min(flac_gap(packet, raw), end - raw)):
                    yield self._silence(raw, gap)
                    raw += gap
                stop = end if expected is None else min(end, raw + expected)
                for frame in frames:
                    if frame.sample_rate != rate_hz:
                        raise rate_changes(self._name, rate_hz, frame.sample_rate)
                    count = frame.samples
                    if raw + count > stop:
                        count = stop - raw
                    if count > 0:
                        yield raw, count, converter.rows(frame)
                        raw += count
                if expected is not None and raw < stop:
                    yield self._loss(raw, stop)
                    raw = stop
                if raw == end:
                    return
        yield self._loss(raw, end)

    def _loss(self, first: int, last: int) -> _Piece:
        """Note that raw samples cannot be decoded, and return silence in their place."""
        self._lost[first] = last - first
        return self._silence(first, last - first)

    def _silence(self, start: int, count: int) -> _Piece:
        zeros: Samples = np.broadcast_to(np.float32(0.0), (count,))
        return start, count, [zeros.data] * self.channels


class _Converter:
    """Converts decoded frames to float32 samples in the channels of the file.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._resamplers: dict[tuple[str, str], AudioResampler] = {}

    def rows(self, frame: AudioFrame) -> _Rows:
        """Return the samples of a frame, one row per channel."""
        channels, count = frame.layout.nb_channels, frame.samples
        if channels == self._channels <= _MAX_PLANES and frame.format.name == "fltp":
            planes: tuple[Any, ...] = frame.planes
            return [memoryview(plane).cast("f") for plane in planes]
        packed: tuple[Any, ...] = self._packed(frame).planes
        samples = np.frombuffer(packed[0], np.float32, channels * count)
        mixed = _mixed(samples.reshape(count, channels).T, self._channels)
        return [memoryview(row) for row in mixed]

    def _packed(self, frame: AudioFrame) -> AudioFrame:
        """Return a frame with float32 samples of all channels in one plane."""
        import av

        key = frame.format.name, frame.layout.name
        if key not in self._resamplers:
            resampler = av.AudioResampler("flt", frame.layout, frame.sample_rate)
            self._resamplers[key] = resampler
        frame.pts = None
        (packed,) = self._resamplers[key].resample(frame)
        return packed


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
        import av

        self._parts: list[FFmpegFile] = []
        self._unreadable = 0
        reason: AudioError | None = None
        for first, last in pairwise((*links, size_of(source))):
            try:
                self._parts.append(FFmpegFile(part_of(source, first, last), name))
            except (AudioError, av.error.FFmpegError, ValueError, OSError) as error:
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

    def read(self, first: int, last: int) -> Samples:
        """Read frames [first, last): float32 of shape (frames, channels)."""
        samples = np.empty((self.channels, last - first), np.float32)
        for part, start in zip(self._parts, self._starts, strict=False):
            low, high = max(first, start), min(last, start + part.frames)
            if low < high:
                heard = part.read(low - start, high - start).T
                samples[:, low - first : high - first] = _mixed(heard, self.channels)
        return samples.T

    def close(self) -> None:
        """Close the file."""
        for part in self._parts:
            part.close()


def _mixed(samples: Samples, channels: int) -> Samples:
    """Repeat the mean of all channels where the number of channels differs."""
    if len(samples) == channels:
        return samples
    mono: Samples = samples.mean(axis=0, dtype=np.float32)
    return np.broadcast_to(mono, (channels, len(mono)))
