"""Declared and present sizes of the audio in WAV, RF64, W64, AIFF, AU and CAF files."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, NamedTuple

from rfkeras.audio.source import AnySource, open_bytes

# Programs that write to a pipe declare a size near 2^31, 2^32, 2^63 or 2^64, or none.
_PLACEHOLDERS = (1 << 31, 1 << 32, 1 << 63, 1 << 64)
_PLACEHOLDER_MARGIN = 1 << 16
_UNKNOWN_32 = 0xFFFFFFFF


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

    @property
    def truncation(self) -> str | None:
        """Description of what is missing; None if nothing is."""
        if self.declared <= self.present or self.is_unknown:
            return None
        return (
            f"the header declares {self.declared} bytes of audio, the file has {self.present}"
        )


def pcm_size(source: AnySource) -> PcmSize | None:
    """Find the size of the audio in a file; None if it has no such header.

    Args:
        source: A path, or the content of a file as bytes.
    """
    with open_bytes(source) as file:
        head = file.read(16)
        size = file.seek(0, os.SEEK_END)
        if head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:12] == b"WAVE":
            return _riff(file, size, ">" if head[:4] == b"RIFX" else "<")
        if head[:4] == b"FORM":
            return _chunk(file, size, 12, b"SSND", ">4sI", "", 2)
        if head[:4] == b"caff":
            return _chunk(file, size, 8, b"data", ">4sQ", "", 1)
        if head[:4] == b"riff":
            return _chunk(file, size, 40, b"data", "<16sQ", "own header", 8)
        if head[:4] in (b".snd", b"dns.") and len(head) == 16:
            order = ">" if head[:4] == b".snd" else "<"
            offset, declared = struct.unpack(f"{order}II", head[4:12])
            return PcmSize(declared, size - offset, 8, f"{order}I")
    return None


def _riff(file: BinaryIO, size: int, order: str) -> PcmSize | None:
    data = _chunk(file, size, 12, b"data", f"{order}4sI", "", 2)
    if data is None or data.declared != _UNKNOWN_32:
        return data
    long = _chunk(file, size, 12, b"ds64", f"{order}4sI", "", 2)
    if long is None:
        return data
    file.seek(long.field + 12)
    body = file.read(8)
    if len(body) < 8:
        return data
    return PcmSize(struct.unpack("<Q", body)[0], data.present, long.field + 12, "<Q")


def _chunk(
    file: BinaryIO, size: int, position: int, name: bytes, form: str, counts: str, align: int
) -> PcmSize | None:
    """Find a chunk; `counts` says whether its size includes its own header."""
    header = struct.calcsize(form)
    own = header if counts else 0
    while position + header <= size:
        file.seek(position)
        found, declared = struct.unpack(form, file.read(header))
        if found.startswith(name):
            field = form[0] + form[-1]
            at = position + header - struct.calcsize(field)
            return PcmSize(max(0, declared - own), size - position - header, at, field)
        length = max(0, declared - own)
        position += header + length + -length % align
    return None
