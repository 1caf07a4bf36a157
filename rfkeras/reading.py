"""Files from elsewhere: read within limits, without running anything, whatever is in them.

What cannot be read is one kind of error, `ValueError` (a missing or unreadable file stays an
`OSError`), for the caller to say what the file should have been.
"""

from __future__ import annotations

import io
import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
