"""Files written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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
