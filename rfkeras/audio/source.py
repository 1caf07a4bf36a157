"""The bytes of an audio file: a path, a part of one, or bytes in memory."""

from __future__ import annotations

import errno
import io
import mmap
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from threading import Lock
from typing import BinaryIO, TypeVar, cast

_CACHE_BYTES = 64 << 20
_RESULT_BYTES = 1024  # of a small result, its key and what holds them


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


@contextmanager
def mapped(source: Source) -> Iterator[bytes | mmap.mmap]:
    """Return the content of a source, which of a file takes no memory."""
    if isinstance(source, bytes):
        yield source
        return
    with (
        Path(source).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        yield content


AnySourceT = TypeVar("AnySourceT", bound=AnySource)
ResultT = TypeVar("ResultT")


def remembered(function: Callable[[AnySourceT], ResultT]) -> Callable[[AnySourceT], ResultT]:
    """Keep the results of a function of a file until the file changes.

    At most 64 MB are kept, of which a result takes `nbytes` if it has this attribute.
    Results for bytes are not kept.
    """
    results: OrderedDict[tuple[object, ...], ResultT] = OrderedDict()
    used = 0
    lock = Lock()

    def size(result: ResultT) -> int:
        return _RESULT_BYTES + int(getattr(result, "nbytes", 0))

    @wraps(function)
    def remembering(source: AnySourceT) -> ResultT:
        nonlocal used
        if isinstance(source, bytes):
            return function(source)
        part = source if isinstance(source, FilePart) else None
        status = Path(part.path if part else cast(str | Path, source)).stat()
        key = (part or str(source), status.st_size, status.st_mtime_ns)
        with lock:
            if key in results:
                results.move_to_end(key)
                return results[key]
        result = function(source)
        with lock:
            if key not in results:
                results[key] = result
                used += size(result)
            while used > _CACHE_BYTES:
                used -= size(results.popitem(last=False)[1])
        return result

    return remembering


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
