"""Reading the text files of data sets: tables, lists of paths, folders of audio."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from rfkeras.errors import ConfigError, DatasetError, unknown_name
from rfkeras.utils import files

_NAMED = 3


def named(items: Iterable[object]) -> str:
    """The first three of some names and how many more there are: "a, b, c and 7 more"."""
    names = [str(item) for item in items]
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def read_text(path: Path, homepage: str) -> str:
    """Text of a metadata file.

    Raises:
        DatasetError: It is missing or not UTF-8; the message says where to get it.
    """
    try:
        return files.read_text(path)
    except (OSError, ValueError) as error:
        reason = (
            "is missing" if isinstance(error, FileNotFoundError) else f"unreadable: {error}"
        )
        raise DatasetError(
            f"{path}: {reason}. It comes with the data set: {homepage}"
        ) from error


def read_rows(path: Path, homepage: str) -> Iterator[tuple[str, list[str]]]:
    """Rows of a tab-separated file, empty ones left out, of any number of fields.

    Yields:
        (where the row stands, for messages; its fields without surrounding blanks).

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
    """A path from a metadata file that cannot lead out of the audio folder.

    Raises:
        DatasetError: It is empty or absolute, has ".." in it, or a back-slash.
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
            f"{where}: {text!r} is no path inside the audio folder. Paths are relative, with "
            'forward slashes and without "..".'
        )
    return path


def check_subset(subset: str | None, allowed: Sequence[str]) -> str:
    """The subset asked for, the first one where none was.

    Raises:
        ConfigError: There is no such subset.
    """
    if subset is None:
        return allowed[0]
    if subset not in allowed:
        raise ConfigError(unknown_name("subset", subset, allowed))
    return subset


def first_folder(candidates: Iterable[Path], holding: str) -> Path | None:
    """The first of these folders in which something of that name lies, None without one."""
    return next((folder for folder in candidates if (folder / holding).exists()), None)


class Folders:
    """Which files there are below a folder, each of its sub-folders listed once.

    Far quicker than asking for file after file where a data set has tens of thousands.

    Args:
        root: The folder; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[PurePosixPath, frozenset[str]] = {}

    def names(self, folder: PurePosixPath) -> frozenset[str]:
        """Names in a sub-folder; none where it does not exist."""
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(
                    entry.name for entry in os.scandir(self.root / folder)
                )
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = frozenset()
        return self._names[folder]

    def find(self, path: PurePosixPath, suffixes: Sequence[str]) -> Path:
        """The file of that path with the first of these suffixes that is there.

        Args:
            path: Relative to the root, without its suffix.
            suffixes: In order of preference. Where none is there, the path with the first
                is returned: checking the files will name it as missing.
        """
        present = self.names(path.parent)
        suffix = next((s for s in suffixes if path.name + s in present), suffixes[0])
        return self.root / path.parent / (path.name + suffix)
