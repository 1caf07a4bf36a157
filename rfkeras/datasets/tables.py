"""Read the metadata files of data sets: tables, paths, folders of audio."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from rfkeras.errors import ConfigError, DatasetError, unknown_name
from rfkeras.utils import files


def read_text(path: Path, homepage: str) -> str:
    """Read a metadata file as text.

    Args:
        path: The file.
        homepage: Where to download the data set, for the error.

    Raises:
        DatasetError: The file is missing, unreadable or not UTF-8.
    """
    try:
        return files.read_text(path)
    except (OSError, ValueError) as error:
        reason = (
            "is missing" if isinstance(error, FileNotFoundError) else f"unreadable: {error}"
        )
        raise DatasetError(
            f"{path}: {reason}. It is part of the data set: {homepage}"
        ) from error


def read_rows(path: Path, homepage: str) -> Iterator[tuple[str, list[str]]]:
    """Read the rows of a tab-separated file, without empty ones.

    Args:
        path: The file.
        homepage: Where to download the data set, for errors.

    Yields:
        (file and line for messages, stripped fields). Rows may differ in length.

    Raises:
        DatasetError: The file is missing or malformed.
    """
    lines = read_text(path, homepage).splitlines()
    reader = csv.reader(lines, delimiter="\t", strict=True)
    try:
        for fields in reader:
            values = [field.strip() for field in fields]
            if any(values):
                yield f"{path}, line {reader.line_num}", values
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}.") from error


def safe_path(text: str, where: str) -> PurePosixPath:
    """Parse a path from a metadata file, ensuring that it stays inside the audio folder.

    Args:
        text: The path.
        where: File and line, for the error.

    Raises:
        DatasetError: The path is empty or absolute, or contains ".." or a backslash.
    """
    path = PurePosixPath(text)
    if (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or "\\" in text
        or "\0" in text
    ):
        raise DatasetError(
            f"{where}: {text!r} is not a path inside the audio folder. Paths must be relative, "
            'with forward slashes and without "..".'
        )
    return path


def check_subset(subset: str | None, allowed: Sequence[str]) -> str:
    """Return the requested subset, or the first allowed one if it is None.

    Raises:
        ConfigError: There is no such subset.
    """
    if subset is None:
        return allowed[0]
    if subset not in allowed:
        raise ConfigError(unknown_name("subset", subset, allowed))
    return subset


def first_folder(candidates: Iterable[Path], containing: str) -> Path | None:
    """Return the first folder that contains this file or folder, or None."""
    return next((folder for folder in candidates if (folder / containing).exists()), None)


class FolderListing:
    """Files below a folder, with each sub-folder listed once.

    For tens of thousands of files this is much faster than looking up each one.

    Args:
        root: The folder; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[PurePosixPath, frozenset[str]] = {}

    def names(self, folder: PurePosixPath) -> frozenset[str]:
        """Return the names in a sub-folder; empty if it does not exist."""
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(
                    entry.name for entry in os.scandir(self.root / folder)
                )
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = frozenset()
        return self._names[folder]

    def find(self, path: PurePosixPath, suffixes: Sequence[str]) -> Path:
        """Find a file by its path without suffix.

        Args:
            path: Path relative to the root, without suffix.
            suffixes: Suffixes in order of preference.

        Returns:
            The existing file with the first suffix. If there is none, the path with the
            first suffix; checking the files will report it as missing.
        """
        present = self.names(path.parent)
        suffix = next((s for s in suffixes if path.name + s in present), suffixes[0])
        return self.root / path.parent / (path.name + suffix)
