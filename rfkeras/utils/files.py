"""Files written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import shutil
import socket
import struct
import sys
import time
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rfkeras.errors import ConfigError

ASIDE = ".partial"  # in the names of what is being written
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Block that writes `path`: where the disk refuses, the error says which file and why.

    Libraries report a full disk as errors of their own, some of which name nothing.

    Raises:
        OSError: There is no room, or the disk cannot be written.
    """
    try:
        yield
    except Exception as error:
        number = _refusal(error)
        if number is None or _names_a_file(error):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _names_a_file(error: Exception) -> bool:
    """Whether an error names a file, and not the one that is renamed at the end."""
    named = error.filename if isinstance(error, OSError) else None
    return named is not None and ASIDE not in str(named)


def _refusal(error: BaseException) -> int | None:
    """Error number of the disk's refusal behind an error; None if it is none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _UNWRITABLE:
            return cause.errno
        for number in _UNWRITABLE:  # TensorFlow and HDF5 keep only the text
            if os.strerror(number) in str(cause):
                return number
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def replacing(path: str | Path, suffix: str = "") -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when the block ends.

    A reader finds the old file or the new one, never half of one, and a block that raises
    leaves the old one. The content is on the disk before the name changes. Missing folders
    are made.

    Args:
        path: The file.
        suffix: What the name to write to must end with.

    Raises:
        OSError: It cannot be written; the message names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}{ASIDE}{suffix}")
    try:
        with naming(path):
            yield aside
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            aside.replace(path)
    finally:
        with suppress(OSError):  # a disk that takes no writes refuses also this
            aside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as aside:
        aside.write_bytes(content)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes were writing under a folder when they died."""
    for path in [*folder.rglob(f".*{ASIDE}*")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_npz(path: str | Path, arrays: Mapping[str, Any], *, compressed: bool = False) -> None:
    """Write a NumPy archive, whole or not at all.

    `np.savez` leaves its archive open when a write fails, which is told on standard error
    when it is collected.
    """
    import numpy as np

    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with replacing(path) as aside, zipfile.ZipFile(aside, "w", kind) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(  # type: ignore[no-untyped-call]
                    member, np.asanyarray(array), allow_pickle=False
                )


_POLL_SECONDS = 0.3
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # by the file system


@contextmanager
def try_exclusive(path: Path) -> Iterator[str | None]:
    """Hold a lock if it is free.

    Where the file system has no locks, a note says so and nothing is held.

    Args:
        path: Lock file, made if absent and never removed.

    Yields:
        None while the lock is held; else its holder, as "PROCESS-ID on HOST".
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            yield file.read().strip() or "unknown"
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            print(
                f"Note: {path} cannot be locked ({error.strerror}). See to it that no other "
                "process writes there.",
                file=sys.stderr,
            )
            yield None
            return
        with suppress(OSError):  # the lock is held, also where there is no room to say by whom
            file.truncate(0)
            os.write(file.fileno(), f"{os.getpid()} on {socket.gethostname()}".encode())
        yield None


@contextmanager
def sole_writer(lock: Path, place: Path) -> Iterator[None]:
    """Block in which no other process writes to a place.

    Args:
        lock: Lock file, made if absent, its folder too.
        place: What the error names.

    Raises:
        ConfigError: Another process does.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with try_exclusive(lock) as holder:
        if holder is not None:
            raise ConfigError(
                f"Process {holder} is writing to {place}. Wait for it or end it (Ctrl-C, or "
                "kill -INT, loses nothing), or choose another place."
            )
        yield


@contextmanager
def exclusive(path: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock, waiting for it if need be.

    Args:
        path: Lock file, made if absent.
        on_wait: Called once, with the holder as `try_exclusive` gives it, if one must wait.
    """
    waited = False
    while True:
        with try_exclusive(path) as holder:
            if holder is None:
                yield
                return
        if not waited:
            on_wait(holder)
            waited = True
        time.sleep(_POLL_SECONDS)


MAX_TEXT_BYTES = 1_000_000_000  # tables of millions of clips have less
MAX_OPTIONS_BYTES = 10_000_000  # options, recipes and records of runs
_BOMB_BYTES, _BOMB_RATIO = 1_000_000_000, 200  # an archive that grows to more is refused
# What parsers raise at damaged files, besides ValueError.
_MALFORMED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,  # NumPy parses its headers as Python
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    SyntaxError,
    SystemError,  # NumPy makes text of characters that there are not
    TypeError,
)


@contextmanager
def malformed() -> Iterator[None]:
    """Block that parses a file, of which only ValueError and OSError come out.

    Raises:
        ValueError: Whatever else the parser raised.
    """
    try:
        yield
    except _MALFORMED as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    except RuntimeError as error:  # an encrypted archive
        raise ValueError(str(error)) from error


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Text of a file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: It is too large, or no UTF-8.
        OSError: It cannot be opened.
    """
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    return content.decode("utf-8-sig")


def parse_json(text: str | bytes) -> Any:
    """A JSON value.

    Raises:
        ValueError: It is none, or nested too deeply.
    """
    with malformed():
        return json.loads(text)


def read_json(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """The JSON value in a file.

    Raises:
        ValueError: It is none.
        OSError: It cannot be opened.
    """
    return parse_json(read_text(path, max_bytes))


def load_npy(path: str | Path) -> Any:
    """What `numpy.load` finds in a file, without unpickling.

    Raises:
        ValueError: It is no array, is damaged, or holds pickled objects.
        OSError: It cannot be opened.
    """
    import numpy as np

    with malformed(), Path(path).open("rb") as file:
        return np.load(file, allow_pickle=False)


@contextmanager
def open_npz(path: str | Path) -> Iterator[Any]:
    """A NumPy archive, opened without unpickling.

    Raises:
        ValueError: It is no archive, is damaged, holds pickled objects, or would grow to
            far more than it is.
        OSError: It cannot be opened.
    """
    import numpy as np

    with malformed(), Path(path).open("rb") as file:
        check_archive(file)
        file.seek(0)
        # np.load leaves its own file open when it fails
        with np.load(file, allow_pickle=False) as archive:
            yield _Arrays(archive)


class _Arrays:
    """The arrays of an archive, each read when it is asked for."""

    def __init__(self, archive: Any) -> None:
        self._archive = archive
        self.files: list[str] = archive.files

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def __getitem__(self, name: str) -> Any:
        if name not in self.files:
            raise ValueError(f"it has no array {name!r}")
        array = self._archive[name]
        if isinstance(array, bytes):  # what NumPy gives of a member that is no array
            raise ValueError(f"{name!r} in it is no array")
        return array


def check_archive(file: Any) -> None:
    """Refuse a zip archive that would grow to far more than it is.

    Args:
        file: Path or open file.

    Raises:
        ValueError: It would, or is no archive.
    """
    with malformed(), zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        grown = sum(member.file_size for member in members)
        assert archive.fp is not None
        packed = archive.fp.seek(0, io.SEEK_END)
    if grown > _BOMB_BYTES and grown > _BOMB_RATIO * packed:
        raise ValueError(f"unpacked it would have {grown:,} bytes, packed it has {packed:,}")
