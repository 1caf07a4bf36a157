"""Bytes after the end of the audio that a file declares: chunks, tags, or another file."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from rfkeras.audio.mpeg import TAG_MARKS, without_tags
from rfkeras.audio.pcm_size import PcmSize
from rfkeras.audio.source import AnySource, open_bytes, size_of

# Format of a chunk's header by the beginning of the file, whether the size includes it, and
# the alignment of chunks.
_CHUNK_HEADERS = {
    b"RIFF": ("<4sI", False, 2),
    b"RF64": ("<4sI", False, 2),
    b"RIFX": (">4sI", False, 2),
    b"FORM": (">4sI", False, 2),
    b"caff": (">4sQ", False, 1),
    b"riff": ("<16sQ", True, 8),
}
_FEW_BYTES = 4096
_TAG_MARK_BYTES = 16
_MOST_TAG_BYTES = 1 << 26
_BOX = struct.Struct(">I4s")


def unread_note(source: AnySource, size: PcmSize) -> str | None:
    """Describe what follows the audio and its chunks, another file for example.

    Args:
        source: A path, or the content of a file as bytes.
        size: Size of the audio in it.

    Returns:
        A sentence; None if it is a tag, zeros, or only some bytes.
    """
    if size.is_unknown or size.declared >= size.present:
        return None
    with open_bytes(source) as file:
        head = file.read(4)
        end = file.seek(0, os.SEEK_END)
        position = end - size.present + size.declared
        if head in _CHUNK_HEADERS:
            position = _after_chunks(file, position, end, *_CHUNK_HEADERS[head])
    return bytes_not_read(source, position)


def bytes_not_read(source: AnySource, position: int) -> str | None:
    """Describe the bytes from a position to the end of a file, where no audio was expected.

    Returns:
        A sentence; None if they are a tag, zeros, or only some bytes.
    """
    end = size_of(source)
    if end - position <= _FEW_BYTES:
        return None
    with open_bytes(source) as file:
        file.seek(position)
        if file.read(_TAG_MARK_BYTES).startswith(TAG_MARKS):
            file.seek(position)
            with_tags = file.read(_MOST_TAG_BYTES)
            position += len(with_tags) - len(without_tags(with_tags))
        file.seek(position)
        if not any(block.strip(b"\0") for block in iter(lambda: file.read(1 << 20), b"")):
            return None
    if end - position <= _FEW_BYTES:
        return None
    return f"{end - position} bytes after the audio's declared end were not read"


def _after_chunks(
    file: BinaryIO, position: int, end: int, form: str, own_header: bool, align: int
) -> int:
    """Return where the chunks end that begin at a position."""
    header = struct.calcsize(form)
    own = header if own_header else 0
    position += -position % align
    while position + header <= end:
        file.seek(position)
        name, declared = struct.unpack(form, file.read(header))
        following = position + header + declared - own
        if name[:4] in _CHUNK_HEADERS or not name.strip(b"\0") or following > end:
            break
        if following <= position:
            break
        position = following + -following % align
    return min(position, end)


def mp4_end(source: AnySource) -> int:
    """Return where a second MP4 file begins behind the first, or the end of the file."""
    position, end = 0, size_of(source)
    with open_bytes(source) as file:
        while position + _BOX.size <= end:
            file.seek(position)
            length, kind = _BOX.unpack(file.read(_BOX.size))
            if kind == b"ftyp" and position:
                return position
            if length == 1:
                length = int.from_bytes(file.read(8), "big")
            if length < _BOX.size:
                break
            position += length
    return end
