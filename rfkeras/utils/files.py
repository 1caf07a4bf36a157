"""Files that are written atomically, read safely and locked.

Readers see either the old or the new content of such a file, never a part of it. Reading never
unpickles, and a damaged file always raises ValueError or OSError.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import io
import json
import os
import re
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
from rfkeras.utils.remote import RemotePath, to_path, uploading

PARTIAL = ".partial"  # in the names of unfinished files
CACHE_VARIABLE = "RFKERAS_CACHE_DIR"

_NAME_BYTES = 255  # longest file name on the usual file systems
_IS_WINDOWS = os.name == "nt"
_OPEN_ELSEWHERE_SECONDS = 5.0
_REFUSED_ON_WINDOWS = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d) *(\.|$)", re.IGNORECASE)
_POLL_SECONDS = 0.3

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def default_cache_dir() -> Path:
    """Return the folder for generated data: $RFKERAS_CACHE_DIR or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("rfkeras"))


@contextmanager
def atomic_write(path: str | Path, suffix: str = "") -> Iterator[Path]:
    """Provide a temporary path that replaces `path` when the block ends.

    If the block raises, the old file stays. The content is on the disk before the file is
    renamed. Missing folders are created.

    Args:
        path: The file to write. A URL is uploaded when the block ends.
        suffix: Suffix of the temporary path.

    Yields:
        The temporary path, in the same folder; for a URL, in a temporary one.

    Raises:
        OSError: The file cannot be written. The message names `path`.
    """
    path = to_path(path)
    if isinstance(path, RemotePath):
        with uploading(path, suffix) as aside:
            yield aside
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(fit_name(f".{path.name}", f".{os.getpid()}{PARTIAL}{suffix}"))
    try:
        with naming_write_errors(path):
            yield aside
            move_into_place(aside, path)
    finally:
        with suppress(OSError):  # fails on a disk that cannot be written
            aside.unlink(missing_ok=True)


def move_into_place(aside: Path, path: Path) -> None:
    """Replace a file by a finished temporary one, whose content is put on the disk first.

    Windows refuses this while another process, such as a virus scanner, has the old file
    open. Such processes soon close it, so the function tries again for a moment.
    """
    with aside.open("r+b") as file:  # Windows syncs only files that are open for writing
        os.fsync(file.fileno())
    give_up = time.monotonic() + (_OPEN_ELSEWHERE_SECONDS if _IS_WINDOWS else 0.0)
    while True:
        try:
            aside.replace(path)
            return
        except PermissionError:
            if time.monotonic() >= give_up:
                raise
            time.sleep(_POLL_SECONDS)


def fit_name(stem: str, suffix: str, *, windows: bool = _IS_WINDOWS) -> str:
    """Return the file name `stem + suffix`, changed if no file system can store it.

    A name with more than 255 bytes keeps the beginning of the stem and the suffix. Between them
    stand "~" and 12 hexadecimal digits of the SHA-256 of the whole name, so the same name is
    always shortened to the same one, and different names to different ones. On Windows,
    characters that it refuses become "_", and a name such as "con.wav", which it takes for a
    device, gets "_" in front. Such names also get the digits.

    Args:
        stem: Name without the suffix.
        suffix: Ending that must stay, such as ".tags.json".
        windows: Whether the name is for Windows.
    """
    whole = os.fsencode(stem + suffix)
    kept_stem = _name_on_windows(stem) if windows else stem
    if len(whole) <= _NAME_BYTES and kept_stem == stem:
        return stem + suffix
    ending = f"~{hashlib.sha256(whole).hexdigest()[:12]}{suffix}"
    kept = os.fsencode(kept_stem)[: _NAME_BYTES - len(os.fsencode(ending))]
    return kept.decode("utf-8", "ignore") + ending


def _name_on_windows(stem: str) -> str:
    """Return the beginning of a file name without what Windows refuses."""
    name = _REFUSED_ON_WINDOWS.sub("_", stem)
    return f"_{name}" if _DEVICE.match(name) else name


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as aside:
        aside.write_bytes(content)


def write_npz(path: str | Path, arrays: Mapping[str, Any], *, compressed: bool = False) -> None:
    """Write a NumPy archive atomically.

    `np.savez` does not close its archive if a write fails, and then prints an error when it
    is garbage-collected.
    """
    import numpy as np

    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with atomic_write(path) as aside, zipfile.ZipFile(aside, "w", kind) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(  # type: ignore[no-untyped-call, unused-ignore]
                    member, np.asanyarray(array), allow_pickle=False
                )


def remove_leftovers(folder: Path) -> None:
    """Delete the unfinished files that killed processes left under a folder."""
    if isinstance(folder, RemotePath):  # uploads leave none
        return
    for path in [*folder.rglob(f".*{PARTIAL}*")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def naming_write_errors(path: str | Path) -> Iterator[None]:
    """Raise an OSError that names `path` if the block cannot write to the disk.

    Libraries report a full disk with their own errors, some without the file's name.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    try:
        yield
    except Exception as error:
        number = disk_refusal(error)
        if number is None or _names_a_file(error):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def disk_refusal(error: BaseException) -> int | None:
    """Return the number of the disk error that caused an error; None if there is none.

    Such an error, of a full or read-only disk for example, would recur with any other file.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _UNWRITABLE:
            return cause.errno
        for number in _UNWRITABLE:  # TensorFlow and HDF5 keep only the text
            if os.strerror(number) in str(cause):
                return number
        cause = cause.__cause__ or cause.__context__
    return None


def _names_a_file(error: Exception) -> bool:
    """Return whether an error names a file other than a temporary one."""
    name = error.filename if isinstance(error, OSError) else None
    return name is not None and PARTIAL not in str(name)


MAX_TEXT_BYTES = 1_000_000_000  # more than tables of millions of clips have

MAX_OPTIONS_BYTES = 10_000_000  # for options, recipes and records of runs

_BOMB_BYTES, _BOMB_RATIO = 1_000_000_000, 200  # limits of unpacked archives

# Errors that parsers raise for damaged files, in addition to ValueError.
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
    SystemError,  # NumPy, for text with invalid characters
    TypeError,
)


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a text file, in an encoding that `decode_text` knows.

    Raises:
        ValueError: The file is too large or is not text in such an encoding.
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes:,} bytes")
    return decode_text(content)


_MARKS = (  # the mark of UTF-32 LE starts with that of UTF-16 LE
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_LINE_END = re.compile(r"[\r\n]|\.[A-Za-z0-9]{2,4}\s*\Z")


def decode_text(content: bytes, errors: str = "strict") -> str:
    """Decode text in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Without a mark, the text is UTF-8 unless it has NUL bytes and makes sense as UTF-16 or
    UTF-32: it then has no NUL characters, and a line end or a suffix of a file at its end.

    Args:
        content: The whole text.
        errors: How to treat bytes that are not UTF-8, as in `bytes.decode`.

    Raises:
        UnicodeDecodeError: The content is not text in the encoding of its mark, or not UTF-8.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if encoding is not None and encoding != "utf-8-sig":
        return content.decode(encoding, "surrogatepass")
    if encoding is None and b"\0" in content:
        for wide in _WIDE:
            try:
                text = content.decode(wide, "surrogatepass")
            except UnicodeDecodeError:
                continue
            if "\0" not in text and _LINE_END.search(text):
                return text
    return content.decode("utf-8-sig", errors)


def read_json(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: The file is not JSON.
        OSError: The file cannot be opened.
    """
    return parse_json(read_text(path, max_bytes))


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON value.

    Raises:
        ValueError: The text is not JSON, or is nested too deeply.
    """
    with malformed():
        return json.loads(text)


def load_npy(path: str | Path) -> Any:
    """Load a NumPy file without unpickling.

    Raises:
        ValueError: The file is not an array, is damaged, or has pickled objects.
        OSError: The file cannot be opened.
    """
    import numpy as np

    with malformed(), to_path(path).open("rb") as file:
        return np.load(file, allow_pickle=False)


@contextmanager
def open_npz(path: str | Path) -> Iterator[Any]:
    """Open a NumPy archive without unpickling.

    Raises:
        ValueError: The file is not an archive, is damaged, has pickled objects, or would be
            far larger unpacked.
        OSError: The file cannot be opened.
    """
    import numpy as np

    with malformed(), to_path(path).open("rb") as file:
        check_archive(file)
        file.seek(0)
        # np.load does not close files that it opens itself if it fails.
        with np.load(file, allow_pickle=False) as archive:
            yield _Arrays(archive)


class _Arrays:
    """The arrays of an archive, each read on access."""

    def __init__(self, archive: Any) -> None:
        self._archive = archive
        self.files: list[str] = archive.files

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def __getitem__(self, name: str) -> Any:
        if name not in self.files:
            raise ValueError(f"it has no array {name!r}")
        array = self._archive[name]
        if isinstance(array, bytes):  # NumPy returns other members as bytes
            raise ValueError(f"{name!r} in it is not an array")
        return array


def check_archive(file: Any) -> None:
    """Reject a zip archive that would be far larger unpacked.

    Args:
        file: Path or open file.

    Raises:
        ValueError: The archive would be too large, or the file is not an archive.
    """
    with malformed(), zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        grown = sum(member.file_size for member in members)
        assert archive.fp is not None
        packed = archive.fp.seek(0, io.SEEK_END)
    if grown > _BOMB_BYTES and grown > _BOMB_RATIO * packed:
        raise ValueError(f"its {packed:,} bytes would unpack to {grown:,} bytes")


@contextmanager
def malformed() -> Iterator[None]:
    """Turn the errors of a parser in this block into ValueError; OSError passes.

    Raises:
        ValueError: The parser raised another error.
    """
    try:
        yield
    except _MALFORMED as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    except RuntimeError as error:  # an encrypted archive
        raise ValueError(str(error)) from error


_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # no locks here


@contextmanager
def sole_writer(lock: Path, place: Path) -> Iterator[None]:
    """Make sure that no other process writes to the same place during the block.

    At URLs there are no locks, so nothing is done.

    Args:
        lock: Lock file, created if needed, with its folder.
        place: File or folder that the error names.

    Raises:
        ConfigError: Another process writes there.
    """
    if isinstance(lock, RemotePath):
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    with try_exclusive(lock) as holder:
        if holder is not None:
            raise ConfigError(
                f"Process {holder} is writing to {place}. Wait for it, stop it with Ctrl-C or "
                "kill -INT (nothing is lost), or choose another place."
            )
        yield


@contextmanager
def exclusive(path: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock, and wait for it if necessary.

    Args:
        path: Lock file, created if needed.
        on_wait: Called once before waiting, with the holder as from `try_exclusive`.
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


@contextmanager
def try_exclusive(path: Path) -> Iterator[str | None]:
    """Hold a lock if it is free.

    The file PATH.holder next to the lock says who holds it: Windows lets nobody read a locked
    file. On a file system without locks, print a note and continue without one.

    Args:
        path: Lock file, created if needed. Its folder must exist.

    Yields:
        None if the lock is held, or its holder as "PROCESS-ID on HOST (since TIME)".

    Raises:
        OSError: The file cannot be created.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0, thread_local=False)
    holder = holder_file(path)
    try:
        lock.acquire()
    except Timeout:
        # Some folders cannot contain a file at all, which looks like a lock that someone holds.
        path.touch()
        yield _read_holder(holder)
        return
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
            raise
        print(
            f"Note: {path} cannot be locked ({error}). Make sure that no other process writes "
            "there.",
            file=sys.stderr,
        )
        yield None
        return
    try:
        with suppress(OSError):  # on a full disk the lock is held without the holder's name
            holder.write_text(_describe_this_process(), encoding="utf-8")
        yield None
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def holder_file(lock: Path) -> Path:
    """Return the file that says who holds a lock. A process that was killed leaves it."""
    return lock.with_name(fit_name(lock.name, ".holder"))


def _describe_this_process() -> str:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return f"{os.getpid()} on {socket.gethostname()} (since {now})"


def _read_holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() or "unknown"
    except OSError:  # it has just got the lock, or its disk is full
        return "unknown"
