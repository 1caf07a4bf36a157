"""Headers of MPEG audio frames, and the tags that stand between them."""

from __future__ import annotations

import mmap
from array import array
from typing import NamedTuple

# kbit/s of layer III by bit rate index, for MPEG 1 and for MPEG 2 and 2.5.
_KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_MPEG_1 = 3
_LAYER_3 = 1
_SAMPLES = {1: 0, 2: 1152, 3: 384}  # layers II and I; layer III depends on the version
_ID3V1_BYTES = 128
TAG_MARKS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
_INFO_MARKS = frozenset([b"Xing", b"Info"])
_INFO_END = 40  # of the marks of these headers, in a frame
_DELAYS_AT = 21  # in the part of the Info header that begins with the encoder's name
_DECODER_DELAY = 529
_MAX_RUN = 1 << 16
_LYRICS_ENDS = (b"LYRICS200", b"LYRICSEND")


class MpegFrame(NamedTuple):
    """The header of one frame.

    Attributes:
        samples: Samples per channel.
        rate_hz: Sample rate.
        size: Bytes of the frame; None where the header does not say (free format), and for
            layers I and II.
        info_offset: Where a Xing or Info header would stand in the frame.
    """

    samples: int
    rate_hz: int
    size: int | None
    info_offset: int


def mpeg_frame(header: bytes) -> MpegFrame | None:
    """Parse the first four bytes of a frame; None if they are not a frame header."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
    if layer == 0 or version == 1 or bitrate == 15 or rate == 3:
        return None
    rate_hz = _RATES[version][rate]
    mono = header[3] >> 6 == 3
    info_offset = 4 + ((17 if mono else 32) if version == _MPEG_1 else (9 if mono else 17))
    if layer != _LAYER_3:
        return MpegFrame(_SAMPLES[layer], rate_hz, None, info_offset)
    samples = 1152 if version == _MPEG_1 else 576
    if bitrate == 0:
        return MpegFrame(samples, rate_hz, None, info_offset)
    kbps = (_KBPS_1 if version == _MPEG_1 else _KBPS_2)[bitrate]
    size = samples * kbps * 125 // rate_hz + (header[2] >> 1 & 1)
    return MpegFrame(samples, rate_hz, size, info_offset)


def is_info_frame(data: bytes, frame: MpegFrame) -> bool:
    """Return whether a frame has a Xing, Info or VBRI header instead of audio."""
    at = frame.info_offset
    return data[at : at + 4] in _INFO_MARKS or data[36:40] == b"VBRI"


def declared_frames(data: bytes) -> int | None:
    """Return the frame count of the last Xing or Info header in these bytes; None if none."""
    at = max(data.rfind(b"Xing"), data.rfind(b"Info"))
    if at < 0 or len(data) < at + 12 or not data[at + 7] & 1:
        return None
    return int.from_bytes(data[at + 8 : at + 12], "big")


def end_padding(data: bytes, samples: int, size: int) -> tuple[int, int] | None:
    """Find the raw samples that the encoder appended, as FFmpeg does.

    Args:
        data: Bytes that end with the frame that has the Info header.
        samples: Samples of a frame.
        size: Bytes from this frame to the end of the file.

    Returns:
        First sample and end; None if the header does not say.
    """
    at = max(data.rfind(b"Xing"), data.rfind(b"Info"))
    frames = declared_frames(data)
    if at < 0 or not frames:
        return None
    flags = data[at + 7]
    fields = at + 12
    if flags & 2:
        declared = int.from_bytes(data[fields : fields + 4], "big")
        if size > declared and size - declared > declared >> 4:
            return None  # other songs follow
    encoder = fields + 4 * bool(flags & 2) + 100 * bool(flags & 4) + 4 * bool(flags & 8)
    if not data.startswith((b"LAME", b"Lavf", b"Lavc"), encoder):
        return None
    delays = data[encoder + _DELAYS_AT : encoder + _DELAYS_AT + 3]
    padding = int.from_bytes(delays, "big") & 0xFFF
    end = frames * samples
    return end - padding + _DECODER_DELAY, end


def run_of_frames(
    content: bytes | mmap.mmap, position: int, like: MpegFrame
) -> tuple[array[int], int]:
    """Find consecutive frames of one rate, up to a limit.

    Args:
        content: The file.
        position: Where to begin.
        like: A frame with the rate and the samples that the frames must have.

    Returns:
        (where the frames begin, where the last one ends)
    """
    positions = array("q")
    known: dict[bytes, MpegFrame | None] = {}
    end = len(content)
    while len(positions) < _MAX_RUN:
        head = content[position : position + _INFO_END]
        header = head[:4]
        try:
            frame = known[header]
        except KeyError:
            frame = known[header] = mpeg_frame(header)
        if frame is None or not frame.size or frame[:2] != like[:2]:
            break
        if position + frame.size > end or is_info_frame(head, frame):
            break
        positions.append(position)
        position += frame.size
    return positions, position


def without_tags(data: bytes) -> bytes:
    """Remove the ID3, APE and Lyrics3 tags that data begins with."""
    while data:
        if data.startswith(b"TAG"):
            data = data[_ID3V1_BYTES:]
        elif data.startswith(b"ID3") and len(data) >= 10:
            length = 0
            for byte in data[6:10]:
                length = length << 7 | byte & 0x7F
            data = data[10 + length :]
        elif data.startswith(b"APETAGEX") and len(data) >= 24:
            size = int.from_bytes(data[12:16], "little")  # items and footer
            is_header = bool(data[23] & 0x20)
            data = data[32 + size if is_header else 32 :]
        elif data.startswith(b"LYRICSBEGIN"):
            ends = [data.find(end) + len(end) for end in _LYRICS_ENDS if end in data]
            data = data[min(ends, default=len(data)) :]
        else:
            break
    return data
