"""What a file says about its own length, read from its container without decoding.

libsndfile takes a cut WAV or Ogg file for a shorter whole one (MP3 too: see
`rfkeras.data.mp3`). The functions here look at the bytes themselves: each returns a reason
when the file is cut, None when it is whole or when the container cannot tell.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

_STREAMED_SIZES = (0, 0xFFFFFFFF)  # what writers to a pipe leave in a RIFF size field
_OGG_PAGE_MAX = 27 + 255 + 255 * 255
_OGG_LAST_PAGE = 0x04


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
