"""Find out how long compressed audio is and where decoding can begin, with FFmpeg (PyAV)."""

from __future__ import annotations

import struct
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.mpeg import (
    MpegFrame,
    declared_frames,
    end_padding,
    is_info_frame,
    mpeg_frame,
    run_of_frames,
    without_tags,
)
from rfkeras.audio.ogg import VorbisBlocks, ogg_truncation, vorbis_blocks
from rfkeras.audio.pcm_size import pcm_size
from rfkeras.audio.source import (
    AnySource,
    FilePart,
    SeekingInput,
    mapped,
    open_bytes,
    read_bytes,
    remembered,
    size_of,
)
from rfkeras.audio.trailing import bytes_not_read, mp4_end, unread_note
from rfkeras.errors import AudioError

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

Planar = NDArray[np.float32]  # (channels, samples)

_FORMATS = (
    "mp3,ogg,mov,mp4,m4a,3gp,asf,wv,flac,wav,w64,aiff,au,caf,aac,matroska,webm,ape,tta,ac3,"
    "eac3,amr,dsf,mpc,mpc8,tak,loas,dts,avi,mpegts,mpeg,flv,rm,voc,oma,gsm"
)
# FFmpeg's integer decoders of MPEG layers I and II, which it prefers.
_DITHERING = frozenset(["mp1", "mp2"])
_MPEG = frozenset(["mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float"])
# Decoders whose output depends on few packets before.
FORGETFUL = _MPEG | frozenset(
    ["vorbis", "flac", "alac", "wavpack", "tta", "adpcm_ms", "adpcm_ima_wav"]
)
_CONTAINERS = {
    ("mp3", "mp3float"): "MP3/MPEG_LAYER_III",
    ("ogg", "vorbis"): "OGG/VORBIS",
    ("ogg", "opus"): "OGG/OPUS",
}
# Formats without time stamps, in which seeking goes to a byte.
_BYTE_SEEK = frozenset(["mp3", "aac", "ac3", "eac3", "wav", "w64"])
# An MPEG frame can use up to 511 bytes of the frames before it.
_RUN_UP_BYTES = 1024
_RUN_UP_PACKETS = 4
_MIN_RUN = 128  # frames; to seek costs as much as to read some ten
_RUN_UP_SECONDS = 0.5  # until a second decoder of Opus differs by less than 1e-6
_SEGMENT_SECONDS = 5.0
_MAX_SEGMENTS = 512
_ENTRY_SECONDS = 0.5
_MAX_ENTRIES = 4096
_SKIP_SAMPLES = struct.Struct("<IIBB")
# A container that declares this much more than the file holds was cut.
_CUT_SECONDS = 0.1
_PCM_FORMATS = frozenset(["wav", "w64", "aiff", "au", "caf"])
# Formats in which nothing but tags stands behind the last packet.
_SEQUENTIAL = frozenset(["wv", "tta"])
_DECLARING = frozenset(["mov", "asf", "wv", "ape", "tta", "matroska", "flac"])
_HEAD_BYTES = 4096
_FOREIGN_FRAMES = 8  # fewer frames of another sample rate in a row are damage
_MAX_RESTARTS = 100
_MIN_GAP = 8192  # FFmpeg's time stamps at page starts of Vorbis are off by a block
_MAX_GAP_SECONDS = 60.0  # a longer one is a damaged number


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
        entries: Rows of (byte position of the packet to begin with, its time stamp, byte
            position of the packet from which on samples count, raw samples before it).
        packet_samples: Raw samples of every packet; 0 if they are not all healthy and alike.
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
    return _Scan(source).layout()


class Demuxer:
    """The packets of the first audio stream of a file."""

    def __init__(self, source: AnySource, name: str) -> None:
        self._source = source
        self.name = name
        self._open()

    def _open(self) -> None:
        import av

        # Before version 19, tags that are not UTF-8 were errors unless this was given.
        lenient: Any = {"metadata_errors": "replace"} if int(av.__version__[:2]) < 19 else {}
        self._file: BinaryIO = open_bytes(self._source)
        try:
            container: Any = av.open(
                SeekingInput(self._file),
                container_options={"format_whitelist": _FORMATS},
                **lenient,
            )
        except BaseException:
            self._file.close()
            raise
        self._container: InputContainer = container
        try:
            if not self._container.streams.audio:
                raise AudioError(self.name, "undecodable: it has no audio stream")
            self.stream: AudioStream = self._container.streams.audio[0]
            context: Any = self.stream.codec_context
            if context is None:
                raise AudioError(self.name, "undecodable: there is no decoder for its codec")
            if context.name in _DITHERING:  # excerpts would differ by its random numbers
                context = av.CodecContext.create(f"{context.name}float", "r")
            context.thread_count = 1
            context.flags2 |= av.codec.context.Flags2.skip_manual
            self.decoder: AudioCodecContext = context
            self.format = self._container.format.name.split(",")[0]
            self.codec: str = context.name
            self.is_flac = self.format == self.codec == "flac"
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._container.close()
        self._file.close()

    def packets(self) -> Iterator[Packet[Any]]:
        """Yield the packets from here on, past unreadable places, and a last empty one."""
        import av

        for _ in range(_MAX_RESTARTS):
            try:
                yield from self._container.demux(self.stream)
                return
            except av.error.FFmpegError:  # the next packet may be readable
                continue

    def packets_from(self, position: int, time: int) -> Iterator[Packet[Any]]:
        """Yield the packets from the one at a byte position on; below 0 from the first."""
        if position >= 0 and self._seek(position, time):
            packets = self.packets()
            for packet in packets:
                if packet.pos == position:
                    yield packet
                    yield from packets
                    return
                if packet.pos is not None and packet.pos > position:
                    break
            self._rewind()
        packets = self.packets()
        for packet in packets:
            if position < 0 or packet.pos == position:
                yield packet
                yield from packets
                return

    def _seek(self, position: int, time: int) -> bool:
        """Go to a packet or to one before it; return whether that was possible."""
        import av

        try:
            if self.format in _BYTE_SEEK:
                self._container.seek(position, stream=self.stream, unsupported_byte_offset=True)
            else:
                self._container.seek(time, stream=self.stream)
        except av.error.FFmpegError:
            self._rewind()
            return False
        return True

    def _rewind(self) -> None:
        self.close()
        self._open()


class SampleCounter:
    """Counts the raw samples in packets that say themselves how many they hold.

    Attributes:
        payload: What to decode of the last packet; None means all of it.
        healthy: The MPEG frame that the last packet was; None if it was not exactly one.
        odd_packets: Number of packets of MPEG audio that were not exactly one frame.
        skipped_bytes: Bytes that are neither audio nor tags.
        skipped_places: Number of places with such bytes.
    """

    def __init__(self, demuxer: Demuxer, rate_hz: int | None = None) -> None:
        self._is_mpeg = demuxer.codec in _MPEG
        self._is_opus = demuxer.format == "ogg" and demuxer.codec == "opus"
        self._vorbis: VorbisBlocks | None = None
        if demuxer.codec == "vorbis":
            self._vorbis = vorbis_blocks(demuxer.stream.codec_context.extradata or b"")
        self._name = demuxer.name
        self._rate_hz = rate_hz
        self._foreign = 0
        self._headers: dict[bytes, MpegFrame | None] = {}
        self._partial = 0
        self._in_damage = False
        self.payload: bytes | None = None
        self.healthy: MpegFrame | None = None
        self.odd_packets = 0
        self.skipped_bytes = 0
        self.skipped_places = 0

    def samples(self, packet: Packet[Any]) -> int | None:
        """Return the raw samples of a packet; None if that is known only after decoding."""
        if self._is_mpeg:
            return self._mpeg_samples(bytes(packet))
        if self._vorbis is not None:
            if packet.has_sidedata("new_extradata"):  # the next stream of a chain
                headers = bytes(packet.get_sidedata("new_extradata"))
                self._vorbis = vorbis_blocks(headers) or self._vorbis
            return self._vorbis.samples(memoryview(packet)[0])
        if not self._is_opus or packet.duration is None:
            return None
        return packet.duration + _skips(packet)[1]

    def _mpeg_samples(self, data: bytes) -> int:
        self.payload = self.healthy = None
        if self._partial:  # it was not the end
            self._skip(self._partial)
            self._partial = 0
        header = data[:4]
        try:
            frame = self._headers[header]
        except KeyError:
            frame = self._headers[header] = mpeg_frame(header)
            if self._rate_hz is None and frame is not None:
                self._rate_hz = frame.rate_hz
        if frame is None or frame.rate_hz != self._rate_hz or frame.size != len(data):
            return self._odd_samples(data, frame)
        self._foreign = 0
        self._in_damage = False
        if is_info_frame(data, frame):
            return 0
        self.healthy = frame
        return frame.samples

    def _odd_samples(self, data: bytes, frame: MpegFrame | None) -> int:
        """Count a packet that is not exactly one frame of the stream."""
        self.odd_packets += 1
        if frame is None:
            tagless = without_tags(data)
            data = tagless.lstrip(b"\0")
            if len(tagless) > len(data):
                self._skip(len(tagless) - len(data))
            frame = mpeg_frame(data[:4])
            self.payload = data
        if frame is None:
            self._skip(len(data))
            return 0
        if self._rate_hz is None:
            self._rate_hz = frame.rate_hz
        if frame.rate_hz != self._rate_hz:
            self._foreign += 1
            self._skip(len(data))
            if self._foreign >= _FOREIGN_FRAMES:
                raise rate_changes(self._name, self._rate_hz, frame.rate_hz)
            return 0
        self._foreign = 0
        if frame.size is not None:
            if len(data) < frame.size:
                self._partial = len(data)
                return 0
            self._in_damage = False
            self._skip(len(without_tags(data[frame.size :])))
        return 0 if is_info_frame(data, frame) else frame.samples

    @property
    def ends_inside_frame(self) -> bool:
        """Return whether the last packet was incomplete."""
        return self._partial > 0

    def _skip(self, count: int) -> None:
        if count:
            self.skipped_bytes += count
            self.skipped_places += not self._in_damage
            self._in_damage = True


@dataclass
class _Scan:
    """The first pass over a file."""

    source: AnySource
    raw: int = 0
    cuts: list[tuple[int, int]] = field(default_factory=list)
    rows: list[tuple[int, int, int, int]] = field(default_factory=list)
    audio_bytes: int = 0
    failed_places: int = 0
    missing_samples: int = 0
    missing_places: int = 0
    ends_in_damage: bool = False
    spacing: float = _ENTRY_SECONDS
    packets_end: int = 0

    def layout(self) -> Layout:
        """Read all packets and describe the file."""
        with closing(Demuxer(self.source, "")) as demuxer:
            return self._scan(demuxer)

    def _scan(self, demuxer: Demuxer) -> Layout:
        stream = demuxer.stream
        counter = SampleCounter(demuxer)
        first_frame: AudioFrame | None = None
        head_at: int | None = None
        forgetful = demuxer.codec in FORGETFUL
        is_ogg = demuxer.format == "ogg"
        recent: deque[tuple[int, int, int, int, int]] = deque()
        last_position, expected_time, number = -1, None, 0
        leap_after, leapt = _RUN_UP_PACKETS, False
        self.spacing = _ENTRY_SECONDS if forgetful else _SEGMENT_SECONDS
        limit = size_of(self.source) + 1000
        rate_hz = stream.rate or 44100
        failing = False
        can_leap = demuxer.codec == "mp3float" and demuxer.format == "mp3"
        packets = demuxer.packets()
        while (packet := next(packets, None)) is not None:
            samples = None
            size = packet.size
            if size:
                number += 1
                if number > limit:
                    raise AudioError("", "undecodable: more packets than bytes")
                samples = counter.samples(packet)
            position = packet.pos
            if size and position is not None and position > last_position:
                if head_at is None:
                    head_at = position
                last_position = position
                self.packets_end = position + size
                time = packet.pts
                if time is not None or demuxer.format in _BYTE_SEEK:
                    recent.append((position, time or 0, self.raw, self.audio_bytes, number))
                    self._enter(recent, forgetful, rate_hz)
            if demuxer.is_flac and (gap := flac_gap(packet, self.raw)):
                self.missing_samples += gap
                self.missing_places += 1
                self.raw += gap
            before = self.raw
            if samples is None or first_frame is None:
                try:
                    frames = demuxer.decoder.decode(packet if size else None)
                    failing = failing and not size
                except (ffmpeg_error(), ValueError):
                    frames = []
                    if samples is None and size:
                        self.failed_places += not failing
                        self.missing_samples += _packet_samples(packet, rate_hz)
                        failing = True
                for frame in frames:
                    if first_frame is None:
                        first_frame = frame
                        rate_hz = frame.sample_rate
                    if samples is None:
                        if frame.sample_rate != rate_hz:
                            raise rate_changes("", rate_hz, frame.sample_rate)
                        self.raw += frame.samples
            if samples is not None:
                self.raw += samples
                self.audio_bytes += size if samples else 0
            else:
                self.audio_bytes += size
            if is_ogg and size:
                expected_time = self._gap(packet, expected_time, self.raw - before)
            if size and not leapt:  # after seeking, FFmpeg counts from 0 again
                self._trim(packet, before, number == 1 and demuxer.codec == "vorbis")
            if can_leap and number >= leap_after and counter.healthy is not None:
                leap_after = number + _RUN_UP_PACKETS
                run = self._run(last_position + size, counter.healthy)
                if len(run) > _MIN_RUN:
                    number = self._leap(run, recent, number, counter.healthy)
                    leap_after = number + _RUN_UP_PACKETS
                    last_position = run[-2]
                    packets = demuxer.packets_from(run[-1], 0)
                    leapt = True
        if leapt:
            self._trim_end(head_at or 0, first_frame, counter.skipped_places)
        if first_frame is not None and demuxer.codec in ("wmav1", "wmav2"):
            self.cuts.append((0, 2 * first_frame.samples))  # the decoder's own delay
        if first_frame is None or self.raw == 0:
            raise AudioError("", "undecodable: nothing in it can be decoded")
        cuts = tuple(_clipped(self.cuts, self.raw))
        if sum(last - first for first, last in cuts) == self.raw:
            cuts = ()  # the header contradicts the file
        alike = demuxer.codec in _MPEG and not counter.odd_packets
        alike = alike and number * first_frame.samples == self.raw
        layout = Layout(
            _CONTAINERS.get(
                (demuxer.format, demuxer.codec),
                f"{demuxer.format}/{demuxer.codec}".upper(),
            ),
            demuxer.codec,
            rate_hz,
            len(first_frame.layout.channels),
            self.raw,
            cuts,
            _compact(np.array([(-1, 0, -1, 0), *self.rows], np.int64)),
            first_frame.samples if alike else 0,
            (),
        )
        self.ends_in_damage = failing
        notes = self._notes(demuxer, counter, layout, head_at or 0, first_frame.samples)
        return Layout(**{**layout.__dict__, "notes": tuple(notes)})

    def _enter(
        self, recent: deque[tuple[int, int, int, int, int]], forgetful: bool, rate_hz: int
    ) -> None:
        """Make the newest packet an entry if the last one is far enough behind."""
        position, _, raw, size, number = recent[-1]
        spacing = self.spacing * rate_hz

        def is_run_up(row: tuple[int, int, int, int, int]) -> bool:
            if not forgetful:
                return raw - row[2] >= _RUN_UP_SECONDS * spacing / _SEGMENT_SECONDS
            return number - row[4] >= _RUN_UP_PACKETS and size - row[3] >= _RUN_UP_BYTES

        while len(recent) > 1 and is_run_up(recent[1]):
            recent.popleft()
        last = self.rows[-1][3] if self.rows else 0
        if raw - last >= spacing and is_run_up(recent[0]):
            self._add_row((recent[0][0], recent[0][1], position, raw), forgetful)

    def _add_row(self, row: tuple[int, int, int, int], forgetful: bool) -> None:
        self.rows.append(row)
        if len(self.rows) > (_MAX_ENTRIES if forgetful else _MAX_SEGMENTS):
            self.rows = self.rows[1::2]
            self.spacing *= 2

    def _run(self, position: int, like: MpegFrame) -> array[int]:
        """Return where the healthy MPEG frames from a position on begin."""
        assert not isinstance(self.source, FilePart)
        with mapped(self.source) as content:
            return run_of_frames(content, position, like)

    def _leap(
        self,
        run: array[int],
        recent: deque[tuple[int, int, int, int, int]],
        number: int,
        like: MpegFrame,
    ) -> int:
        """Count all frames of a run but the last; return the number of packets so far."""
        first_raw, bytes_before = self.raw, self.audio_bytes - run[0]
        last = self.rows[-1][3] if self.rows else 0
        at = _RUN_UP_PACKETS
        while True:
            needed = last + self.spacing * like.rate_hz - first_raw
            at = max(at, ceil(needed / like.samples))
            if at >= len(run):
                break
            begin = at - _RUN_UP_PACKETS
            while begin > 0 and run[at] - run[begin] < _RUN_UP_BYTES:
                begin -= 1
            if run[at] - run[begin] < _RUN_UP_BYTES:
                at += 1
                continue
            last = first_raw + at * like.samples
            self._add_row((run[begin], 0, run[at], last), True)
        recent.clear()
        for index in range(len(run) - _MIN_RUN, len(run) - 1):
            raw = first_raw + index * like.samples
            row = (run[index], 0, raw, bytes_before + run[index], number + index + 1)
            recent.append(row)
        self.raw = first_raw + (len(run) - 1) * like.samples
        self.audio_bytes = bytes_before + run[-1]
        return number + len(run) - 1

    def _trim_end(self, head_at: int, frame: AudioFrame | None, places: int) -> None:
        """Note the encoder's padding, as FFmpeg does that has read from the start."""
        samples = 0 if frame is None else frame.samples
        head = read_bytes(self.source, max(0, head_at - _HEAD_BYTES), head_at)
        padding = end_padding(head, samples, size_of(self.source) - head_at)
        if padding is not None:
            first, end = padding
            missing = end - self.raw
            lost = missing if 0 < missing <= 2 * places * samples else 0
            self.cuts.append((first - lost, end - lost))

    def _trim(self, packet: Packet[Any], before: int, drops_all: bool) -> None:
        """Note the samples of a packet that are the encoder's delay or padding."""
        start, end = _skips(packet)
        if drops_all:  # of Vorbis, the first packet only prepares the second
            self.cuts.append((before, self.raw))
        if start:
            self.cuts.append((before, before + start))
        if end:
            self.cuts.append((max(before, self.raw - end), self.raw))

    def _gap(self, packet: Packet[Any], expected: int | None, samples: int) -> int | None:
        """Count samples of an Ogg stream that are missing before a packet."""
        time = packet.pts
        if time is None:
            return None if expected is None else expected + samples
        if expected is not None and time > expected + _MIN_GAP and packet.stream is not None:
            base = packet.time_base or 1
            rate = packet.stream.rate or 1
            if not packet.has_sidedata("new_extradata"):
                self.missing_samples += round((time - expected) * float(base) * rate)
                self.missing_places += 1
        return time + samples

    def _notes(
        self,
        demuxer: Demuxer,
        counter: SampleCounter,
        layout: Layout,
        head_at: int,
        frame_samples: int,
    ) -> Iterator[str]:
        """Describe what is damaged or missing."""
        skipped = counter.skipped_bytes
        if skipped and layout.raw_frames:
            seconds = skipped * layout.raw_frames / max(1, self.audio_bytes) / layout.rate_hz
            what = in_places(counter.skipped_places, seconds)
            yield f"damaged: {skipped} bytes that are not audio were skipped, {what}"
        places = self.failed_places + self.missing_places
        if places:
            what = in_places(places, self.missing_samples / layout.rate_hz)
            yield f"damaged: {what} cannot be decoded"
        if self.ends_in_damage:
            yield "truncated: its last packet cannot be decoded"
        elif counter.ends_inside_frame:
            yield "truncated: it ends inside an MPEG frame"
        elif demuxer.codec in _MPEG:
            head = read_bytes(self.source, max(0, head_at - _HEAD_BYTES), head_at)
            declared = declared_frames(head)
            frames = layout.raw_frames // frame_samples
            if declared is not None and frames + 2 * counter.skipped_places < declared:
                yield (
                    f"truncated: the header declares {declared} MPEG frames, the file has "
                    f"{frames}"
                )
        elif demuxer.format == "ogg":
            if (missing := ogg_truncation(self.source)) is not None:
                yield f"truncated: {missing}"
        elif demuxer.format in _PCM_FORMATS:
            size = pcm_size(self.source)
            if size is not None and size.truncation is not None:
                yield f"truncated: {size.truncation}"
            elif size is not None and (note := unread_note(self.source, size)) is not None:
                yield note
        elif demuxer.format in _SEQUENTIAL or demuxer.format == "mov":
            end = mp4_end(self.source) if demuxer.format == "mov" else self.packets_end
            if (note := bytes_not_read(self.source, end)) is not None:
                yield note
        if demuxer.format in _DECLARING and demuxer.stream.duration and not self.ends_in_damage:
            declared_s = float(demuxer.stream.duration * (demuxer.stream.time_base or 0))
            seconds = layout.frames / layout.rate_hz
            lost = self.missing_samples / layout.rate_hz
            if declared_s > seconds + lost + _CUT_SECONDS:
                yield (
                    f"truncated: the header declares {declared_s:.2f} s, the file has "
                    f"{seconds:.2f} s"
                )


def _compact(numbers: NDArray[np.int64]) -> NDArray[np.signedinteger[Any]]:
    """Return numbers in 32 bits if all of them fit."""
    return numbers.astype(np.int32) if np.abs(numbers).max() < 1 << 31 else numbers


def flac_gap(packet: Packet[Any], raw: int) -> int:
    """Return how many samples are missing before a packet of a FLAC file.

    FLAC frames know their place, so what comes after damage keeps its time.
    """
    if packet.pts is None:
        return 0
    gap = packet.pts - raw
    return gap if 0 < gap < _MAX_GAP_SECONDS * (packet.stream.rate or 1) else 0


def _packet_samples(packet: Packet[Any], rate_hz: int) -> int:
    """Estimate the samples of a packet from its declared duration."""
    return round((packet.duration or 0) * float(packet.time_base or 0) * rate_hz)


def ffmpeg_error() -> type[Exception]:
    """Return the class of FFmpeg's errors, which only importing PyAV defines."""
    import av

    return av.error.FFmpegError


def _skips(packet: Packet[Any]) -> tuple[int, int]:
    """Return the samples to leave out at the start and at the end of a packet."""
    if not packet.has_sidedata("skip_samples"):
        return 0, 0
    data = bytes(packet.get_sidedata("skip_samples"))
    if len(data) < _SKIP_SAMPLES.size:
        return 0, 0
    start, end, _, _ = _SKIP_SAMPLES.unpack(data[: _SKIP_SAMPLES.size])
    return start, end


def _clipped(cuts: list[tuple[int, int]], end: int) -> Iterator[tuple[int, int]]:
    """Yield the cuts inside the file, without overlaps."""
    done = 0
    for first, last in sorted(cuts):
        low, high = max(first, done), min(last, end)
        if low < high:
            yield low, high
            done = high


def rate_changes(name: str, old_hz: int, new_hz: int) -> AudioError:
    """Return the error about a file whose sample rate changes."""
    return AudioError(
        name, f"its sample rate changes from {old_hz} to {new_hz} Hz (convert it to one rate)"
    )


def in_places(places: int, seconds: float) -> str:
    """Describe how much audio in how many places."""
    return f"{seconds:.2f} s of audio in {places} {'place' if places == 1 else 'places'}"
