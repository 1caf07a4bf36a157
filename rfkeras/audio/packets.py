"""The packets of compressed audio files, read with FFmpeg (PyAV)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, BinaryIO

from rfkeras.audio.mpeg import MpegFrame, run_of_frames
from rfkeras.audio.source import AnySource, SeekingInput, open_bytes
from rfkeras.errors import AudioError

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

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
# Formats without time stamps, in which seeking goes to a byte.
_BYTE_SEEK = frozenset(["mp3", "aac", "ac3", "eac3", "wav", "w64"])
_SKIP_SAMPLES = struct.Struct("<IIBB")
_MAX_RESTARTS = 100
_BLOCK_BYTES = 1 << 14  # some ten to fifty frames of MP3
# FFmpeg puts as many zeros behind a packet, so what a damaged frame reads past its end is the
# same. Its decoder skips zeros before a frame.
_PADDING = bytes(64)
_MAX_GAP_SECONDS = 60.0  # a longer one is a damaged number


class Demuxer:
    """The packets of the first audio stream of a file, and their decoder.

    Args:
        source: A path, a part of a file, or the content of a file as bytes.
        name: Name of the file in errors.

    Attributes:
        stream: The stream.
        format: FFmpeg's name of the container.
        codec: FFmpeg's name of the decoder.
        is_mpeg: Whether it is MPEG audio, of any layer.
        is_mp3: Whether it is a plain MP3 file.
        is_flac: Whether it is a plain FLAC file.
        is_ogg: Whether it is in Ogg.
        has_times: Whether packets are found by their time stamps, not only by their bytes.

    Raises:
        AudioError: There is no audio stream, or no decoder for it.
    """

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
            self._decoder: AudioCodecContext = context
            self.format = self._container.format.name.split(",")[0]
            self.codec: str = context.name
            self.is_mpeg = self.codec in _MPEG
            self.is_mp3 = self.format == "mp3" and self.codec == "mp3float"
            self.is_flac = self.format == self.codec == "flac"
            self.is_ogg = self.format == "ogg"
            self.has_times = self.format not in _BYTE_SEEK
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._file.close()

    def decode(
        self, packet: Packet[Any], payload: bytes | None = None
    ) -> list[AudioFrame] | None:
        """Decode a packet; None if it is damaged.

        Args:
            packet: The packet; an empty one returns what the decoder still has.
            payload: The bytes to decode instead, if not all of the packet is audio.
        """
        import av

        if payload is not None:
            if not payload:
                return []
            packet = av.Packet(payload)
        try:
            return self._decoder.decode(packet if packet.size else None)
        except (av.error.FFmpegError, ValueError):
            return None

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
            if self.has_times:
                self._container.seek(time, stream=self.stream)
            else:
                self._container.seek(position, stream=self.stream, unsupported_byte_offset=True)
        except av.error.FFmpegError:
            self._rewind()
            return False
        return True

    def _rewind(self) -> None:
        self.close()
        self._open()


def mp3_frames(
    source: AnySource, begin_at: int, yield_at: int, like: MpegFrame
) -> Iterator[list[AudioFrame]]:
    """Decode the frames of an MP3 file, many at a time, up to the first that is damaged.

    The samples are those that the packets of a `Demuxer` give, in fewer steps.

    Args:
        source: A path, a part of a file, or the content of a file as bytes.
        begin_at: Byte position of the frame to begin with.
        yield_at: Byte position of the first frame to yield.
        like: A frame with the sample rate and the samples that all must have.
    """
    import av

    decoder: Any = av.CodecContext.create("mp3float", "r")
    decoder.thread_count = 1
    with open_bytes(source) as file:
        while True:
            file.seek(begin_at)
            block = file.read(yield_at - begin_at if begin_at < yield_at else _BLOCK_BYTES)
            run, end = run_of_frames(block, 0, like)
            data = _PADDING.join(block[low:high] for low, high in pairwise([*run, end]))
            try:
                frames = decoder.decode(av.Packet(data)) if run else []
            except (av.error.FFmpegError, ValueError):
                return
            if not run or len(frames) != len(run):
                return
            if begin_at >= yield_at:
                yield frames
            begin_at += end


def flac_gap(packet: Packet[Any], raw: int) -> int:
    """Return how many samples are missing before a packet of a FLAC file.

    FLAC frames know their place, so what comes after damage keeps its time.
    """
    if packet.pts is None:
        return 0
    gap = packet.pts - raw
    return gap if 0 < gap < _MAX_GAP_SECONDS * (packet.stream.rate or 1) else 0


def skips(packet: Packet[Any]) -> tuple[int, int]:
    """Return the samples to leave out at the start and at the end of a packet."""
    if not packet.has_sidedata("skip_samples"):
        return 0, 0
    data = bytes(packet.get_sidedata("skip_samples"))
    if len(data) < _SKIP_SAMPLES.size:
        return 0, 0
    start, end, _, _ = _SKIP_SAMPLES.unpack(data[: _SKIP_SAMPLES.size])
    return start, end


def rate_changes(name: str, old_hz: int, new_hz: int) -> AudioError:
    """Return the error about a file whose sample rate changes."""
    return AudioError(
        name, f"its sample rate changes from {old_hz} to {new_hz} Hz (convert it to one rate)"
    )
