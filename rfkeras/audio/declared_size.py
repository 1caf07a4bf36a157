"""Sizes that audio files declare: what is missing, and what follows their end."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from rfkeras.audio.mpeg import TAG_MARKS, without_tags
from rfkeras.audio.source import AnySource, open_bytes, size_of

# Programs that write to a pipe declare a size near 2^31, 2^32, 2^63 or 2^64, or none.
_PLACEHOLDERS = (1 << 31, 1 << 32, 1 << 63, 1 << 64)
_PLACEHOLDER_MARGIN = 1 << 16
_UNKNOWN_32 = 0xFFFFFFFF
_FEW_BYTES = 4096
_TAG_MARK_BYTES = 16
_MOST_TAG_BYTES = 1 << 26
_BOX = struct.Struct(">I4s")


class _Chunks(NamedTuple):
    """The chunks of a format.

    Attributes:
        header: `struct` format of the name and the size of a chunk.
        start: Position of the first chunk.
        audio: Name of the chunk with the audio.
        align: Chunks begin at multiples of this.
        counts_header: Whether the size of a chunk includes its header.
    """

    header: str
    start: int
    audio: bytes
    align: int = 2
    counts_header: bool = False

    def aligned(self, position: int) -> int:
        """Return where the next chunk can begin, from a position on."""
        return position + -position % self.align


_WAVE = (b"RIFF", b"RF64", b"RIFX")
_CHUNKS = {
    b"RIFF": _Chunks("<4sI", 12, b"data"),
    b"RF64": _Chunks("<4sI", 12, b"data"),
    b"RIFX": _Chunks(">4sI", 12, b"data"),
    b"FORM": _Chunks(">4sI", 12, b"SSND"),
    b"caff": _Chunks(">4sQ", 8, b"data", 1),
    b"riff": _Chunks("<16sQ", 40, b"data", 8, counts_header=True),
}


class PcmSize(NamedTuple):
    """Size of the audio in a file.

    Attributes:
        declared: Bytes according to the header.
        present: Bytes that are there.
        field: Position of the declared size.
        format: `struct` format of the declared size.
    """

    declared: int
    present: int
    field: int
    format: str

    @property
    def is_unknown(self) -> bool:
        """Return whether the declared size means "unknown"."""
        return self.declared == 0 or any(
            top - _PLACEHOLDER_MARGIN <= self.declared <= top for top in _PLACEHOLDERS
        )


def pcm_size(source: AnySource) -> PcmSize | None:
    """Find the size of the audio in a WAV, RF64, W64, AIFF, AU or CAF file.

    Args:
        source: A path, or the content of a file as bytes.

    Returns:
        The size; None if the file has no such header.
    """
    with open_bytes(source) as file:
        head = file.read(16)
        end = file.seek(0, os.SEEK_END)
        magic = head[:4]
        if magic in (b".snd", b"dns.") and len(head) == 16:
            order = ">" if magic == b".snd" else "<"
            offset, declared = struct.unpack(f"{order}II", head[4:12])
            return PcmSize(declared, end - offset, 8, f"{order}I")
        kind = _CHUNKS.get(magic)
        if kind is None or (magic in _WAVE and head[8:12] != b"WAVE"):
            return None
        size = _chunk_size(file, end, kind, kind.audio)
        if size is None or size.declared != _UNKNOWN_32:
            return size
        sizes = _chunk_size(file, end, kind, b"ds64")
        if sizes is None:
            return size
        field = sizes.field + 12
        file.seek(field)
        body = file.read(8)
        if len(body) < 8:
            return size
        return PcmSize(struct.unpack("<Q", body)[0], size.present, field, "<Q")


def pcm_note(source: AnySource, size: PcmSize | None) -> str | None:
    """Describe what is missing in a file, or what follows its audio.

    Args:
        source: A path, or the content of a file as bytes.
        size: The size of the audio in it, from `pcm_size`.

    Returns:
        A sentence; None if nothing is missing, and nothing but chunks, tags, zeros or a few
        bytes follows.
    """
    if size is None or size.is_unknown or size.declared == size.present:
        return None
    if size.declared > size.present:
        return (
            f"truncated: the header declares {size.declared} bytes of audio, the file has "
            f"{size.present}"
        )
    with open_bytes(source) as file:
        kind = _CHUNKS.get(file.read(4))
        end = file.seek(0, os.SEEK_END)
        position = end - size.present + size.declared
        if kind is not None:
            position = _end_of_chunks(file, end, kind, position)
    return bytes_not_read(source, position)


def bytes_not_read(source: AnySource, position: int) -> str | None:
    """Describe the bytes from a position to the end of a file, where no audio was expected.

    Returns:
        A sentence; None if they are a tag, zeros, or only a few bytes.
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


def _chunk_size(file: BinaryIO, end: int, kind: _Chunks, wanted: bytes) -> PcmSize | None:
    """Return the size of the first chunk with a name; None if there is none."""
    field = kind.header[0] + kind.header[-1]
    for name, begin, length in _chunks(file, end, kind, kind.start):
        if name.startswith(wanted):
            return PcmSize(max(0, length), end - begin, begin - struct.calcsize(field), field)
    return None


def _end_of_chunks(file: BinaryIO, end: int, kind: _Chunks, position: int) -> int:
    """Return where the chunks end that begin at a position."""
    position = kind.aligned(position)
    for name, begin, length in _chunks(file, end, kind, position):
        if name[:4] in _CHUNKS or not name.strip(b"\0"):
            break  # another file, or zeros
        if length < 0 or begin + length > end:
            break
        position = kind.aligned(begin + length)
    return min(position, end)


def _chunks(
    file: BinaryIO, end: int, kind: _Chunks, position: int
) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, first byte, bytes) of the chunks from a position on; bytes may be < 0."""
    header = struct.calcsize(kind.header)
    while position + header <= end:
        file.seek(position)
        name, declared = struct.unpack(kind.header, file.read(header))
        length = declared - header if kind.counts_header else declared
        yield name, position + header, length
        position = kind.aligned(position + header + max(0, length))
