"""Find out how long compressed audio is and where decoding can begin, with FFmpeg (PyAV)."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.declared_size import bytes_not_read, mp4_end, pcm_note, pcm_size
from rfkeras.audio.mpeg import MpegFrame, declared_frames, end_padding, run_of_frames
from rfkeras.audio.ogg import ogg_truncation
from rfkeras.audio.packets import FORGETFUL, Demuxer, flac_gap, rate_changes, skips
from rfkeras.audio.sample_counter import SampleCounter
from rfkeras.audio.source import (
    AnySource,
    FilePart,
    mapped,
    read_bytes,
    remembered,
    size_of,
)
from rfkeras.errors import AudioError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.packet import Packet

_CONTAINERS = {
    ("mp3", "mp3float"): "MP3/MPEG_LAYER_III",
    ("ogg", "vorbis"): "OGG/VORBIS",
    ("ogg", "opus"): "OGG/OPUS",
}
# An MPEG frame can use up to 511 bytes of the frames before it.
_RUN_UP_BYTES = 1024
_RUN_UP_PACKETS = 4
_MIN_RUN = 128  # frames; to seek costs as much as to read some ten
_RUN_UP_SECONDS = 0.5  # until a second decoder of Opus differs by less than 1e-6
_SEGMENT_SECONDS = 5.0
_MAX_SEGMENTS = 512
_ENTRY_SECONDS = 0.5
_MAX_ENTRIES = 4096
# A container that declares this much more than the file holds was cut.
_CUT_SECONDS = 0.1
_PCM_FORMATS = frozenset(["wav", "w64", "aiff", "au", "caf"])
# Formats in which nothing but tags stands behind the last packet.
_SEQUENTIAL = frozenset(["wv", "tta"])
_DECLARING = frozenset(["mov", "asf", "wv", "ape", "tta", "matroska", "flac"])
_HEAD_BYTES = 4096
_MIN_GAP = 8192  # FFmpeg's time stamps at page starts of Vorbis are off by a block


@dataclass(frozen=True)
class Layout:
    """Length of a file and where decoding can begin.

    "Raw" samples are those that the decoder returns, before the encoder's delay and padding
    are removed.

    Attributes:
        container: Format and codec, "OGG/VORBIS" for example.
        codec: FFmpeg's name of the decoder.
        rate_hz: Samples per second.
        channels: Number of channels.
        raw_frames: Raw samples per channel.
        cuts: Raw spans (first, last) to leave out, in order.
        entries: Rows of (byte position of the packet to begin with, or -1 for the first; its
            time stamp; byte position of the packet from which on samples count; raw samples
            before it).
        packet_samples: Raw samples of every packet; 0 if they are not all healthy and alike.
        is_mp3: Whether it is a plain MP3 file.
        notes: Sentences about damage.
    """

    container: str
    codec: str
    rate_hz: int
    channels: int
    raw_frames: int
    cuts: tuple[tuple[int, int], ...]
    entries: NDArray[np.signedinteger[Any]]
    packet_samples: int
    is_mp3: bool
    notes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the entries."""
        return self.entries.nbytes

    @property
    def frames(self) -> int:
        """Samples per channel."""
        return self.raw_frames - sum(last - first for first, last in self.cuts)

    def raw_spans(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield the raw spans of samples [first, last)."""
        begin = done = 0  # raw samples and samples before the next cut
        for cut_first, cut_last in (*self.cuts, (self.raw_frames, self.raw_frames)):
            end = done + cut_first - begin
            low, high = max(first, done), min(last, end)
            if low < high:
                yield begin + low - done, begin + high - done
            begin, done = cut_last, end


def layout_of(source: AnySource, name: str) -> Layout:
    """Return the layout of a file, cached until the file changes.

    Args:
        source: A path, or the content of a file as bytes.
        name: Name of the file in errors.

    Raises:
        AudioError: Nothing in the file can be decoded.
        OSError: The file cannot be read.
    """
    try:
        return _layout(source)
    except AudioError as error:
        raise AudioError(name, error.reason) from error


@remembered
def _layout(source: AnySource) -> Layout:
    with closing(Demuxer(source, "")) as demuxer:
        return _Scan(source, demuxer).layout()


class _Place(NamedTuple):
    """A packet at which decoding could begin.

    Attributes:
        position: Its byte position.
        time: Its time stamp.
        raw: Raw samples before it.
        audio_bytes: Bytes of audio before it.
        number: Its number, from 1 on.
    """

    position: int
    time: int
    raw: int
    audio_bytes: int
    number: int

    def later(self, frames: int, position: int, samples: int) -> _Place:
        """Return the place some MPEG frames later, each with a number of samples."""
        return _Place(
            position,
            0,
            self.raw + frames * samples,
            self.audio_bytes + position - self.position,
            self.number + frames,
        )


class _Entries:
    """The entries of a layout, each some packets before the one from which samples count.

    Args:
        forgetful: Whether the decoder needs only some packets to run up; otherwise it needs
            some time.
    """

    def __init__(self, forgetful: bool) -> None:
        self._forgetful = forgetful
        self._seconds = _ENTRY_SECONDS if forgetful else _SEGMENT_SECONDS
        self._rows: list[tuple[int, int, int, int]] = []
        self._recent: deque[_Place] = deque()

    def add(self, place: _Place, rate_hz: int) -> None:
        """Make a packet an entry if the last one is far enough behind."""
        recent = self._recent
        recent.append(place)
        spacing = self._seconds * rate_hz

        def is_run_up(begin: _Place) -> bool:
            if not self._forgetful:
                return place.raw - begin.raw >= _RUN_UP_SECONDS * spacing / _SEGMENT_SECONDS
            return (
                place.number - begin.number >= _RUN_UP_PACKETS
                and place.audio_bytes - begin.audio_bytes >= _RUN_UP_BYTES
            )

        while len(recent) > 1 and is_run_up(recent[1]):
            recent.popleft()
        if place.raw - self._last_raw >= spacing and is_run_up(recent[0]):
            self._add_row(recent[0].position, recent[0].time, place.position, place.raw)

    def add_run(self, run: array[int], like: MpegFrame, before: _Place) -> None:
        """Add entries in a run of MPEG frames.

        Args:
            run: Where the frames begin.
            like: One of the frames.
            before: The first frame.
        """
        last_raw = self._last_raw
        at = _RUN_UP_PACKETS
        while True:
            needed = last_raw + self._seconds * like.rate_hz - before.raw
            at = max(at, ceil(needed / like.samples))
            if at >= len(run):
                break
            begin = at - _RUN_UP_PACKETS
            while begin > 0 and run[at] - run[begin] < _RUN_UP_BYTES:
                begin -= 1
            if run[at] - run[begin] < _RUN_UP_BYTES:
                at += 1
                continue
            last_raw = before.raw + at * like.samples
            self._add_row(run[begin], 0, run[at], last_raw)
        self._recent.clear()
        for index in range(len(run) - _MIN_RUN, len(run) - 1):
            self._recent.append(before.later(index, run[index], like.samples))

    def table(self, first_at: int) -> NDArray[np.signedinteger[Any]]:
        """Return the rows of `Layout.entries`, in 32 bits if all numbers fit.

        Args:
            first_at: Byte position of the first packet.
        """
        numbers = np.array([(-1, 0, first_at, 0), *self._rows], np.int64)
        return numbers.astype(np.int32) if np.abs(numbers).max() < 1 << 31 else numbers

    @property
    def _last_raw(self) -> int:
        return self._rows[-1][3] if self._rows else 0

    def _add_row(self, begin_at: int, begin_time: int, count_at: int, raw: int) -> None:
        self._rows.append((begin_at, begin_time, count_at, raw))
        if len(self._rows) > (_MAX_ENTRIES if self._forgetful else _MAX_SEGMENTS):
            self._rows = self._rows[1::2]
            self._seconds *= 2


class _Scan:
    """The first pass over a file.

    Args:
        source: The file.
        demuxer: Its packets, of which none has been read.
    """

    def __init__(self, source: AnySource, demuxer: Demuxer) -> None:
        self._source = source
        self._demuxer = demuxer
        self._counter = SampleCounter(demuxer)
        self._entries = _Entries(demuxer.codec in FORGETFUL)
        self._rate_hz = demuxer.stream.rate or 44100
        self._first_frame: AudioFrame | None = None
        self._raw = 0
        self._audio_bytes = 0
        self._packet_count = 0
        self._cuts: list[tuple[int, int]] = []
        self._first_position: int | None = None
        self._last_position = -1
        self._packets_end = 0
        self._expected_time: int | None = None  # of the next packet in Ogg
        self._leapt = False
        self._missing_samples = 0
        self._missing_places = 0
        self._is_failing = False  # whether the last packet could not be decoded

    def layout(self) -> Layout:
        """Read all packets and describe the file."""
        self._read_packets()
        frame, demuxer = self._first_frame, self._demuxer
        if frame is None or self._raw == 0:
            raise AudioError("", "undecodable: nothing in it can be decoded")
        if self._leapt:
            self._trim_end(frame.samples)
        if demuxer.codec in ("wmav1", "wmav2"):
            self._cuts.append((0, 2 * frame.samples))  # the decoder's own delay
        cuts = tuple(_clipped(self._cuts, self._raw))
        if sum(last - first for first, last in cuts) == self._raw:
            cuts = ()  # the header contradicts the file
        alike = (
            demuxer.is_mpeg
            and not self._counter.odd_packets
            and self._packet_count * frame.samples == self._raw
        )
        kind = demuxer.format, demuxer.codec
        layout = Layout(
            _CONTAINERS.get(kind, "/".join(kind).upper()),
            demuxer.codec,
            self._rate_hz,
            len(frame.layout.channels),
            self._raw,
            cuts,
            self._entries.table(self._first_position or 0),
            frame.samples if alike else 0,
            demuxer.is_mp3,
            (),
        )
        return replace(layout, notes=tuple(self._notes(layout, frame.samples)))

    def _read_packets(self) -> None:
        limit = size_of(self._source) + 1000
        leap_after = _RUN_UP_PACKETS
        packets = self._demuxer.packets()
        while (packet := next(packets, None)) is not None:
            self._packet_count += packet.size > 0
            if self._packet_count > limit:
                raise AudioError("", "undecodable: more packets than bytes")
            self._read(packet)
            like = self._counter.healthy
            if self._demuxer.is_mp3 and like is not None and self._packet_count >= leap_after:
                run = self._run(self._last_position + packet.size, like)
                if len(run) > _MIN_RUN:
                    self._leap(run, like)
                    packets = self._demuxer.packets_from(run[-1], 0)
                leap_after = self._packet_count + _RUN_UP_PACKETS

    def _read(self, packet: Packet[Any]) -> None:
        """Count the samples of a packet, which is decoded only if necessary."""
        size = packet.size
        samples = self._counter.samples(packet) if size else None
        self._locate(packet)
        if self._demuxer.is_flac and (gap := flac_gap(packet, self._raw)):
            self._miss(gap)
            self._raw += gap
        if samples != 0:
            self._audio_bytes += size
        if samples is None or self._first_frame is None:
            decoded = self._decode(packet, is_counted=samples is not None)
            samples = decoded if samples is None else samples
        before = self._raw
        self._raw += samples
        if size and self._demuxer.is_ogg:
            self._check_time(packet, samples)
        if size and not self._leapt:  # after seeking, FFmpeg counts from 0 again
            self._trim(packet, before)

    def _locate(self, packet: Packet[Any]) -> None:
        """Note where a packet is, as a place for an entry."""
        position, time = packet.pos, packet.pts
        if not packet.size or position is None or position <= self._last_position:
            return
        if self._first_position is None:
            self._first_position = position
        self._last_position = position
        self._packets_end = position + packet.size
        if time is not None or not self._demuxer.has_times:
            place = _Place(
                position, time or 0, self._raw, self._audio_bytes, self._packet_count
            )
            self._entries.add(place, self._rate_hz)

    def _decode(self, packet: Packet[Any], is_counted: bool) -> int:
        """Decode a packet; return its samples.

        Args:
            packet: The packet.
            is_counted: Whether its samples are known without decoding.
        """
        frames = self._demuxer.decode(packet)
        if frames is not None:
            self._is_failing = self._is_failing and not packet.size
        elif packet.size and not is_counted:
            self._miss(_packet_samples(packet, self._rate_hz), places=not self._is_failing)
            self._is_failing = True
        samples = 0
        for frame in frames or ():
            if self._first_frame is None:
                self._first_frame = frame
                self._rate_hz = frame.sample_rate
            if frame.sample_rate != self._rate_hz and not is_counted:
                raise rate_changes("", self._rate_hz, frame.sample_rate)
            samples += frame.samples
        return samples

    def _miss(self, samples: int, places: int = 1) -> None:
        self._missing_samples += samples
        self._missing_places += places

    def _check_time(self, packet: Packet[Any], samples: int) -> None:
        """Count samples of an Ogg stream that are missing before a packet."""
        time, expected = packet.pts, self._expected_time
        if time is None:
            self._expected_time = None if expected is None else expected + samples
            return
        if expected is not None and time > expected + _MIN_GAP and packet.stream is not None:
            base = packet.time_base or 1
            rate = packet.stream.rate or 1
            if not packet.has_sidedata("new_extradata"):
                self._miss(round((time - expected) * float(base) * rate))
        self._expected_time = time + samples

    def _trim(self, packet: Packet[Any], before: int) -> None:
        """Note the samples of a packet that are the encoder's delay or padding.

        Args:
            packet: The packet.
            before: Raw samples before it.
        """
        start, end = skips(packet)
        if self._packet_count == 1 and self._demuxer.codec == "vorbis":
            self._cuts.append((before, self._raw))  # it only prepares the second packet
        if start:
            self._cuts.append((before, before + start))
        if end:
            self._cuts.append((max(before, self._raw - end), self._raw))

    def _trim_end(self, frame_samples: int) -> None:
        """Note the encoder's padding, as FFmpeg does that has read from the start."""
        size = size_of(self._source) - (self._first_position or 0)
        padding = end_padding(self._mpeg_header(), frame_samples, size)
        if padding is not None:
            first, end = padding
            missing = end - self._raw
            places = self._counter.skipped_places
            lost = missing if 0 < missing <= 2 * places * frame_samples else 0
            self._cuts.append((first - lost, end - lost))

    def _mpeg_header(self) -> bytes:
        """Return the bytes before the first packet, where an Info header would be."""
        end = self._first_position or 0
        return read_bytes(self._source, max(0, end - _HEAD_BYTES), end)

    def _run(self, position: int, like: MpegFrame) -> array[int]:
        """Return where the healthy MPEG frames from a position on begin."""
        assert not isinstance(self._source, FilePart)
        with mapped(self._source) as content:
            return run_of_frames(content, position, like)[0]

    def _leap(self, run: array[int], like: MpegFrame) -> None:
        """Count all frames of a run but the last."""
        first = _Place(run[0], 0, self._raw, self._audio_bytes, self._packet_count + 1)
        self._entries.add_run(run, like, first)
        last = first.later(len(run) - 1, run[-1], like.samples)
        self._raw = last.raw
        self._audio_bytes = last.audio_bytes
        self._packet_count = last.number - 1
        self._last_position = run[-2]
        self._leapt = True

    def _notes(self, layout: Layout, frame_samples: int) -> Iterator[str]:
        """Describe what is damaged or missing."""
        skipped, places = self._counter.skipped_bytes, self._counter.skipped_places
        if skipped:
            seconds = skipped * self._raw / max(1, self._audio_bytes) / self._rate_hz
            what = in_places(places, seconds)
            yield f"damaged: {skipped} bytes that are not audio were skipped, {what}"
        if self._missing_places:
            what = in_places(self._missing_places, self._missing_samples / self._rate_hz)
            yield f"damaged: {what} cannot be decoded"
        if (note := self._note_on_end(frame_samples)) is not None:
            yield note
        if (note := self._note_on_duration(layout.frames / self._rate_hz)) is not None:
            yield note

    def _note_on_end(self, frame_samples: int) -> str | None:
        """Describe what is missing at the end, or what follows it."""
        source, format_ = self._source, self._demuxer.format
        if self._is_failing:
            return "truncated: its last packet cannot be decoded"
        if self._counter.ends_inside_frame:
            return "truncated: it ends inside an MPEG frame"
        if self._demuxer.is_mpeg:
            declared = declared_frames(self._mpeg_header())
            frames = self._raw // frame_samples
            if declared is None or frames + 2 * self._counter.skipped_places >= declared:
                return None
            return (
                f"truncated: the header declares {declared} MPEG frames, the file has {frames}"
            )
        if self._demuxer.is_ogg:
            return ogg_truncation(source)
        if format_ in _PCM_FORMATS:
            return pcm_note(source, pcm_size(source))
        if format_ == "mov":
            return bytes_not_read(source, mp4_end(source))
        if format_ in _SEQUENTIAL:
            return bytes_not_read(source, self._packets_end)
        return None

    def _note_on_duration(self, seconds: float) -> str | None:
        """Compare the duration in the header with that of the file."""
        stream = self._demuxer.stream
        declaring = self._demuxer.format in _DECLARING and not self._is_failing
        if not declaring or not stream.duration:
            return None
        declared = float(stream.duration * (stream.time_base or 0))
        if declared <= seconds + self._missing_samples / self._rate_hz + _CUT_SECONDS:
            return None
        return f"truncated: the header declares {declared:.2f} s, the file has {seconds:.2f} s"


def _packet_samples(packet: Packet[Any], rate_hz: int) -> int:
    """Estimate the samples of a packet from its declared duration."""
    return round((packet.duration or 0) * float(packet.time_base or 0) * rate_hz)


def _clipped(cuts: list[tuple[int, int]], end: int) -> Iterator[tuple[int, int]]:
    """Yield the cuts inside the file, without overlaps."""
    done = 0
    for first, last in sorted(cuts):
        low, high = max(first, done), min(last, end)
        if low < high:
            yield low, high
            done = high


def in_places(places: int, seconds: float) -> str:
    """Describe how much audio in how many places."""
    return f"{seconds:.2f} s of audio in {places} {'place' if places == 1 else 'places'}"
