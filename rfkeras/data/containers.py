"""What a file says about its own length, read from its container without decoding.

libsndfile takes a cut WAV, Ogg or MP3 file for a shorter whole one. The functions here
look at the bytes themselves: each returns a reason when the file is cut, None when it is
whole or when the container cannot tell.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

_STREAMED_SIZES = (0, 0xFFFFFFFF)  # what writers to a pipe leave in a RIFF size field
_OGG_PAGE_MAX = 27 + 255 + 255 * 255
_OGG_LAST_PAGE = 0x04

# MPEG audio, layer III: kbit/s by bitrate index, for MPEG 1 and for MPEG 2 and 2.5.
_KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_MPEG_1 = 3


def file_size(stream: BinaryIO) -> int:
    """Bytes in a seekable stream; the position is kept."""
    position = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(position)
    return size


def riff_cut(stream: BinaryIO) -> str | None:
    """Compare the size of a RIFF or RF64 file's data chunk with the bytes present."""
    size = file_size(stream)
    stream.seek(0)
    header = stream.read(12)
    if header[:4] not in (b"RIFF", b"RF64") or header[8:] != b"WAVE":
        return None
    long_data_bytes: int | None = None
    position = 12
    while position + 8 <= size:
        stream.seek(position)
        name, declared = struct.unpack("<4sI", stream.read(8))
        if name == b"ds64":
            body = stream.read(16)
            if len(body) == 16:
                long_data_bytes = struct.unpack("<QQ", body)[1]
        if name == b"data":
            if long_data_bytes is not None and declared == 0xFFFFFFFF:
                declared = long_data_bytes
            present = size - position - 8
            if declared in _STREAMED_SIZES or declared <= present:
                return None
            return f"the header declares {declared} bytes of audio, {present} are there"
        position += 8 + declared + declared % 2
    return "the header ends before the audio"


def ogg_cut(stream: BinaryIO) -> str | None:
    """Look for the page that ends an Ogg stream, which only the last page is marked as."""
    size = file_size(stream)
    stream.seek(max(0, size - 2 * _OGG_PAGE_MAX))
    tail = stream.read()
    position = tail.rfind(b"OggS")
    while position >= 0:
        page = tail[position:]
        segments = page[26] if len(page) > 26 else 0
        if (
            len(page) >= 27 + segments
            and page[5] & _OGG_LAST_PAGE
            and len(page) >= 27 + segments + sum(page[27 : 27 + segments])
        ):
            return None
        position = tail.rfind(b"OggS", 0, position)
    return "the Ogg stream has no end-of-stream page"


@dataclass(frozen=True)
class Mp3Layout:
    """Frames of an MPEG layer III file.

    Attributes:
        frames: Whole audio frames present; the Xing or VBRI header is not one of them.
        samples_per_frame: 1152 or 576.
        declared_frames: What a Xing, Info or VBRI header promises, None without one.
        cut_frame: The file ends inside a frame.
    """

    frames: int
    samples_per_frame: int
    declared_frames: int | None
    cut_frame: bool

    @property
    def cut(self) -> str | None:
        """Why the file is cut, None where it is whole or cannot tell."""
        if self.declared_frames is not None and self.frames < self.declared_frames:
            return (
                f"the header declares {self.declared_frames} MPEG frames, "
                f"{self.frames} are there"
            )
        return "it ends inside an MPEG frame" if self.cut_frame else None


def _mp3_frame(header: bytes) -> tuple[int, int, int] | None:
    """(bytes, samples, offset of a Xing header) of the layer III frame that starts so."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
    if layer != 1 or version == 1 or not 0 < bitrate < 15 or rate == 3:
        return None
    samples = 1152 if version == _MPEG_1 else 576
    kbps = (_KBPS_1 if version == _MPEG_1 else _KBPS_2)[bitrate]
    size = samples * kbps * 125 // _RATES[version][rate] + (header[2] >> 1 & 1)
    mono = header[3] >> 6 == 3
    side_info = (17 if mono else 32) if version == _MPEG_1 else (9 if mono else 17)
    return size, samples, 4 + side_info


def _declared_frames(frame: bytes, xing_offset: int) -> int | None:
    """Frame count in a Xing, Info or VBRI header; 0 where such a header gives none."""
    tag = frame[xing_offset : xing_offset + 4]
    if tag in (b"Xing", b"Info"):
        flags = int.from_bytes(frame[xing_offset + 4 : xing_offset + 8], "big")
        count = frame[xing_offset + 8 : xing_offset + 12]
        return int.from_bytes(count, "big") if flags & 1 else 0
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return None


def _first_mp3_frame(data: bytes) -> int | None:
    """Offset of the first frame header that another one follows, after any ID3v2 tag."""
    position = 0
    while data[position : position + 3] == b"ID3" and len(data) >= position + 10:
        length = 0
        for byte in data[position + 6 : position + 10]:
            length = length << 7 | byte & 0x7F
        position += 10 + length
    while (position := data.find(b"\xff", position)) >= 0:
        frame = _mp3_frame(data[position : position + 4])
        if frame is not None:
            follower = data[position + frame[0] : position + frame[0] + 4]
            if not follower or _mp3_frame(follower) is not None:
                return position
        position += 1
    return None


def mp3_layout(data: bytes) -> Mp3Layout | None:
    """Walk over the frame headers of an MP3 file.

    Args:
        data: The whole file.

    Returns:
        The layout, or None where no layer III frame is found.
    """
    position = _first_mp3_frame(data)
    first = None if position is None else _mp3_frame(data[position : position + 4])
    if position is None or first is None:
        return None
    size, samples_per_frame, xing_offset = first
    declared = _declared_frames(data[position : position + size], xing_offset)
    if declared is not None:
        position += size
    frames, cut_frame = 0, False
    while (frame := _mp3_frame(data[position : position + 4])) is not None:
        if position + frame[0] > len(data):
            cut_frame = True
            break
        frames += 1
        position += frame[0]
    return Mp3Layout(frames, samples_per_frame, declared or None, cut_frame)
