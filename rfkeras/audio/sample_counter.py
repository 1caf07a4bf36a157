"""Count the samples in packets without decoding them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rfkeras.audio.mpeg import MpegFrame, is_info_frame, mpeg_frame, without_tags
from rfkeras.audio.ogg import VorbisBlocks, vorbis_blocks
from rfkeras.audio.packets import Demuxer, rate_changes, skips

if TYPE_CHECKING:
    from av.packet import Packet

_FOREIGN_FRAMES = 8  # fewer frames of another sample rate in a row are damage


class SampleCounter:
    """Counts the raw samples in packets that say themselves how many they hold.

    Args:
        demuxer: Where the packets come from.
        rate_hz: The sample rate; None takes that of the first MPEG frame.

    Attributes:
        payload: What to decode of the last packet; None means all of it.
        healthy: The MPEG frame that the last packet was; None if it was not exactly one.
        odd_packets: Number of packets of MPEG audio that were not exactly one frame.
        skipped_bytes: Bytes that are neither audio nor tags.
        skipped_places: Number of places with such bytes.
    """

    def __init__(self, demuxer: Demuxer, rate_hz: int | None = None) -> None:
        self._is_mpeg = demuxer.is_mpeg
        self._is_opus = demuxer.is_ogg and demuxer.codec == "opus"
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
        return packet.duration + skips(packet)[1]

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
