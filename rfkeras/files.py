"""Files written whole or not at all, and archives read without running anything."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ASIDE = ".partial"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when the block ends.

    A reader finds the old file or the new one, never half of one, and a block that raises
    leaves the old one. The content is on the disk before the name changes. Missing folders
    are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}{_ASIDE}")
    try:
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
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
    for path in folder.rglob(f".*{_ASIDE}"):
        path.unlink(missing_ok=True)


@contextmanager
def open_npz(path: str | Path) -> Iterator[Any]:
    """A NumPy archive, opened without unpickling.

    Raises:
        ValueError: It is no archive, is damaged, or holds pickled objects.
        OSError: It cannot be opened.
    """
    import numpy as np

    with Path(path).open("rb") as file:  # np.load leaves its own file open when it fails
        try:
            with np.load(file, allow_pickle=False) as archive:
                yield archive
        except (zipfile.BadZipFile, EOFError, KeyError) as error:
            raise ValueError(f"not an intact .npz archive: {error}") from error
