"""The bytes of an audio file: a path, a part of one, or bytes in memory."""

from __future__ import annotations

import errno
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast


@dataclass(frozen=True)
class FilePart:
    """Bytes [first, last) of a file.

    Attributes:
        path: The file.
        first: First byte.
        last: Byte after the last.
        patches: Bytes to read instead of the file's own, as (position, bytes).
    """

    path: str
    first: int
    last: int
    patches: tuple[tuple[int, bytes], ...] = ()


Source = str | Path | bytes
AnySource = Source | FilePart


def open_bytes(source: AnySource) -> BinaryIO:
    """Open a source as a seekable binary stream."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, FilePart):
        return cast(BinaryIO, _PartStream(source))
    return Path(source).open("rb")


def size_of(source: AnySource) -> int:
    """Return the number of bytes of a source."""
    if isinstance(source, bytes):
        return len(source)
    if isinstance(source, FilePart):
        return source.last - source.first
    return Path(source).stat().st_size


def read_bytes(source: AnySource, first: int, last: int) -> bytes:
    """Read bytes [first, last) of a source."""
    with open_bytes(source) as file:
        file.seek(first)
        return file.read(last - first)


def part_of(
    source: AnySource, first: int, last: int, patches: tuple[tuple[int, bytes], ...] = ()
) -> AnySource:
    """Return bytes [first, last) of a source, with some of them replaced."""
    if isinstance(source, bytes):
        data = bytearray(source[first:last])
        for position, new in patches:
            data[position : position + len(new)] = new
        return bytes(data)
    assert not isinstance(source, FilePart)
    return FilePart(str(source), first, last, patches)


def stamp(source: str | Path | FilePart) -> tuple[int, int]:
    """Return the size and the time of the last change of a file."""
    path = source.path if isinstance(source, FilePart) else source
    status = Path(path).stat()
    return status.st_size, status.st_mtime_ns


class SeekingInput:
    """A file for PyAV, which prints the exceptions of seeking to impossible places."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self.tell = file.tell
        self._seek = file.seek

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seek; a negative number is an error to FFmpeg."""
        try:
            return self._seek(offset, whence)
        except (OSError, ValueError):
            return -errno.EINVAL


class _PartStream(io.RawIOBase):
    """A part of a file as a stream."""

    def __init__(self, part: FilePart) -> None:
        self._part = part
        self._file = Path(part.path).open("rb")  # noqa: SIM115
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        size = self._part.last - self._part.first
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        first = self._part.first + self._position
        self._file.seek(first)
        data = bytearray(self._file.read(max(0, min(len(view), self._part.last - first))))
        for position, new in self._part.patches:
            for number, byte in enumerate(new, position - self._position):
                if 0 <= number < len(data):
                    data[number] = byte
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
