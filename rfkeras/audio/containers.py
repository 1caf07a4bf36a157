"""Length and truncation of MP3, WAV and Ogg files, read from their headers.

libsndfile reads a truncated file as a shorter complete one. It also guesses the length of an
MP3 file that does not declare it, from the first frame. The functions here parse the headers
themselves, without decoding, to get both right.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

# A frame can use up to 511 bytes of audio data from the frames before it, which is 24 frames
# at the lowest bit rate. A decoder that has not read those frames returns silence.
RESERVOIR_SAMPLES = 32 * 1152

# kbit/s by bit rate index, for MPEG 1 and for MPEG 2 and 2.5.
_KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_MPEG_1 = 3
_HEAD_BYTES = 1 << 16  # after the ID3 tags, the first frame is within a few bytes
_LONGEST_FRAME_BYTES = 1441  # 320 kbit/s at 32 kHz; MPEG 2 and 2.5 reach 1441 too
_XING_BITRATE = 5  # 64 or 40 kbit/s: a frame with room for the header at every sample rate
_XING_FRAMES_AND_BYTES = 3
_CACHED_LAYOUTS = 1 << 17  # about 30 MB, for more files than the largest data set has

_STREAMED_SIZES = (0, 0xFFFFFFFF)  # size that programs writing to a pipe leave in a WAV header
_OGG_PAGE_MAX = 27 + 255 + 255 * 255
_OGG_LAST_PAGE = 0x04


# MP3


@dataclass(frozen=True)
class Mp3Layout:
    """The frames of an MP3 (MPEG layer III) file.

    Attributes:
        frames: Number of complete audio frames, without the Xing or VBRI header frame.
        samples_per_frame: 1152 or 576.
        declared_frames: Number of frames according to the Xing, Info or VBRI header; None if
            there is no such header.
        ends_inside_frame: Whether the last frame is incomplete.
        start: Offset of the first audio frame in bytes.
    """

    frames: int
    samples_per_frame: int
    declared_frames: int | None
    ends_inside_frame: bool
    start: int

    @property
    def samples(self) -> int:
        """Samples per channel in the complete frames."""
        return self.frames * self.samples_per_frame

    @property
    def truncation(self) -> str | None:
        """Description of what is missing; None if nothing is missing as far as known."""
        if self.declared_frames is not None and self.frames < self.declared_frames:
            return (
                f"the header declares {self.declared_frames} MPEG frames, "
                f"the file has {self.frames}"
            )
        return "it ends inside an MPEG frame" if self.ends_inside_frame else None


def mp3_layout(data: bytes) -> Mp3Layout | None:
    """Walk over all frame headers of an MP3 file.

    Args:
        data: Content of the file.

    Returns:
        The layout, or None if the file has no layer III frame.
    """
    position = _first_mp3_frame(data)
    first = None if position is None else _mp3_frame(data[position : position + 4])
    if position is None or first is None:
        return None
    size, samples_per_frame, xing_offset = first
    declared = _declared_frames(data[position : position + size], xing_offset)
    if declared is not None:
        position += size
    start, frames, ends_inside_frame = position, 0, False
    while (frame := _mp3_frame(data[position : position + 4])) is not None:
        if position + frame[0] > len(data):
            ends_inside_frame = True
            break
        frames += 1
        position += frame[0]
    return Mp3Layout(frames, samples_per_frame, declared or None, ends_inside_frame, start)


def mp3_file_layout(path: Path) -> Mp3Layout | None:
    """Return `mp3_layout` of a file, cached until the file changes.

    The cache avoids walking the whole file again for every excerpt.

    Args:
        path: The MP3 file.

    Raises:
        OSError: The file cannot be read.
    """
    status = path.stat()
    return _cached_layout(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=_CACHED_LAYOUTS)
def _cached_layout(path: str, size: int, modified_ns: int) -> Mp3Layout | None:
    return mp3_layout(Path(path).read_bytes())


def mp3_declared_frames(stream: BinaryIO) -> int | None:
    """Return the number of audio frames that an MP3 file declares.

    Only the first frame is read, so this is fast for long files.

    Args:
        stream: The file, seekable.

    Returns:
        The number in the Xing, Info or VBRI header, or None if there is no such header.
    """
    _, frame, parsed = _read_first_frame(stream)
    return None if parsed is None else _declared_frames(frame, parsed[2]) or None


def mp3_ends_as_declared(stream: BinaryIO) -> bool:
    """Return whether a frame ends exactly where the header declares the end of the audio.

    If so, the file is complete. Only the first and the last frame are read. False proves
    nothing: the file may have no Xing, Info or VBRI header, or one that counts bytes
    differently. Use `mp3_file_layout` in that case.

    Args:
        stream: The file, seekable.
    """
    start, frame, parsed = _read_first_frame(stream)
    declared = None if parsed is None else _declared_bytes(frame, parsed[2])
    if declared is None or declared <= len(frame):
        return False
    end = start + declared
    stream.seek(max(start + len(frame), end - _LONGEST_FRAME_BYTES))
    tail = stream.read(end - stream.tell())
    if stream.tell() != end:
        return False
    return any(
        last is not None and position + last[0] == len(tail)
        for position in range(len(tail))
        if _stream_bits(tail[position : position + 4]) == _stream_bits(frame)
        for last in [_mp3_frame(tail[position : position + 4])]
    )


def mp3_with_frame_count(data: bytes, layout: Mp3Layout) -> bytes:
    """Insert a Xing header with the frame count before the audio of an MP3 file.

    With the header, libsndfile reads a file with a variable bit rate to its end. Without it,
    libsndfile guesses the length from the first frame and stops there.

    Args:
        data: Content of the file.
        layout: `mp3_layout` of the file.

    Returns:
        Content of the new file.
    """
    audio = data[layout.start :]
    first = bytearray(audio[:4])
    first[1] |= 1  # no checksum
    first[2] = _XING_BITRATE << 4 | first[2] & 0x0C  # no padding
    frame = _mp3_frame(bytes(first))
    if frame is None:
        return data
    size, _, offset = frame
    xing = b"Xing" + _XING_FRAMES_AND_BYTES.to_bytes(4, "big")
    xing += layout.frames.to_bytes(4, "big") + (len(audio) + size).to_bytes(4, "big")
    body = bytes(first) + bytes(offset - len(first)) + xing
    return body + bytes(size - len(body)) + audio


def _mp3_frame(header: bytes) -> tuple[int, int, int] | None:
    """Parse a layer III frame header into (bytes, samples, offset of a Xing header)."""
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
    """Return the frame count of a Xing, Info or VBRI header; 0 if the header has no count."""
    tag = frame[xing_offset : xing_offset + 4]
    if tag in (b"Xing", b"Info"):
        flags = int.from_bytes(frame[xing_offset + 4 : xing_offset + 8], "big")
        count = frame[xing_offset + 8 : xing_offset + 12]
        return int.from_bytes(count, "big") if flags & 1 else 0
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return None


def _declared_bytes(frame: bytes, xing_offset: int) -> int:
    """Return the byte count, from this frame on, of a Xing, Info or VBRI header; else 0."""
    if frame[xing_offset : xing_offset + 4] in (b"Xing", b"Info"):
        flags = int.from_bytes(frame[xing_offset + 4 : xing_offset + 8], "big")
        at = xing_offset + 8 + 4 * (flags & 1)
        return int.from_bytes(frame[at : at + 4], "big") if flags & 2 else 0
    return int.from_bytes(frame[46:50], "big") if frame[36:40] == b"VBRI" else 0


def _stream_bits(header: bytes) -> int:
    """Return the header bits that all frames of a file share: version, layer, sample rate."""
    return int.from_bytes(header[:3], "big") & 0xFFFE0C


def _id3_bytes(header: bytes) -> int:
    """Return the length of the ID3v2 tag that starts with these 10 bytes; 0 if none does."""
    if header[:3] != b"ID3" or len(header) < 10:
        return 0
    length = 0
    for byte in header[6:10]:
        length = length << 7 | byte & 0x7F
    return 10 + length


def _first_mp3_frame(data: bytes) -> int | None:
    """Find the first frame header, after any ID3v2 tags, that another frame follows."""
    position = 0
    while tag := _id3_bytes(data[position : position + 10]):
        position += tag
    while (position := data.find(b"\xff", position)) >= 0:
        frame = _mp3_frame(data[position : position + 4])
        if frame is not None:
            follower = data[position + frame[0] : position + frame[0] + 4]
            if not follower or _mp3_frame(follower) is not None:
                return position
        position += 1
    return None


def _read_first_frame(stream: BinaryIO) -> tuple[int, bytes, tuple[int, int, int] | None]:
    """Return the offset, bytes and parsed header of the first frame; None without a frame."""
    position = 0
    stream.seek(position)
    while tag := _id3_bytes(stream.read(10)):
        position += tag
        stream.seek(position)
    stream.seek(position)
    head = stream.read(_HEAD_BYTES)
    start = _first_mp3_frame(head)
    parsed = None if start is None else _mp3_frame(head[start : start + 4])
    if start is None or parsed is None:
        return position, b"", None
    return position + start, head[start : start + parsed[0]], parsed


# WAV and Ogg


def riff_truncation(stream: BinaryIO) -> str | None:
    """Compare the declared size of a RIFF or RF64 file's audio with the bytes present.

    Args:
        stream: The file, seekable.

    Returns:
        Description of what is missing; None if nothing is.
    """
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
            return f"the header declares {declared} bytes of audio, the file has {present}"
        position += 8 + declared + declared % 2
    return "the header ends before the audio"


def ogg_truncation(stream: BinaryIO) -> str | None:
    """Look for the end-of-stream page, which only a complete Ogg stream has.

    Args:
        stream: The file, seekable.

    Returns:
        Description of what is missing; None if nothing is.
    """
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


def file_size(stream: BinaryIO) -> int:
    """Return the number of bytes in a seekable stream, keeping the position."""
    position = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(position)
    return size
