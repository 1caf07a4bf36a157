"""Read the metadata files of data sets: tables, paths, folders of audio."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rfkeras.errors import ConfigError, DatasetError, did_you_mean, unknown_name
from rfkeras.utils import files
from rfkeras.utils.label_names import check_label_names
from rfkeras.utils.text import count, first_few

_DELIMITERS = (",", ";", "\t")


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
    lines = io.StringIO(read_text(path, homepage), newline="")
    reader = csv.reader(lines, delimiter="\t", strict=True)
    try:
        for fields in reader:
            values = [field.strip() for field in fields]
            if any(values):
                yield f"{path}, line {reader.line_num}", values
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}.") from error


@dataclass(frozen=True)
class Table:
    """A table with a header.

    Attributes:
        rows: (line number, cells by column) of each row, without empty rows. The cells are
            stripped.
        notes: What was left out.
    """

    rows: tuple[tuple[int, dict[str, str]], ...]
    notes: tuple[str, ...]


def read_table(path: Path, required: Sequence[str], optional: Sequence[str]) -> Table:
    """Read a table of a user, as spreadsheets write them.

    The text is UTF-8, UTF-16 or UTF-32. The header decides whether commas,
    semicolons or tabs separate the cells. Case and white space of its names do not matter,
    and columns with other names are left out.

    Args:
        path: The file.
        required: Names of columns, in lower case.
        optional: Names of further columns.

    Raises:
        DatasetError: The file cannot be read, a required column is missing, a column is
            repeated, or a row has too many or too few cells. The message has the line.
    """
    known = (*required, *optional)
    try:
        text = files.decode_text(path.read_bytes())
        reader = csv.reader(
            io.StringIO(text, newline=""), strict=True, delimiter=_delimiter(text, known)
        )
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DatasetError(
            f"{path} cannot be read as a UTF-8 CSV file: {error}. Save it as UTF-8."
        ) from error
    lines = [(line, cells) for line, cells in lines if any(cells)]
    if lines and _separator_line(lines[0][1]):
        lines = lines[1:]
    header = [name.casefold() for name in lines[0][1]] if lines else []
    notes = _check_header(path, header, lines[0][1] if lines else [], required, known)
    rows = []
    for line, cells in lines[1:]:
        if len(cells) < len(header) or any(cells[len(header) :]):
            raise DatasetError(
                f"{path}, line {line}: the number of fields differs from the header: "
                f"{len(cells)} instead of {len(header)}."
            )
        row = dict(zip(header, cells, strict=False))
        rows.append((line, {name: row[name] for name in known if name in row}))
    return Table(tuple(rows), notes)


def _separator_line(cells: Sequence[str]) -> bool:
    """Return whether cells are the line "sep=;" that spreadsheets understand."""
    return cells[0].lstrip('"').casefold().startswith("sep=")


def _delimiter(text: str, known: Sequence[str]) -> str:
    """Return the delimiter with which the header names the most known columns."""
    lines = (line for line in text.splitlines() if line.strip())
    header = next((line for line in lines if not _separator_line([line])), "")

    def fit(delimiter: str) -> tuple[int, int]:
        cells = next(csv.reader([header], delimiter=delimiter), [])
        named = sum(cell.strip().casefold() in known for cell in cells)
        return named, len(cells)

    return max(_DELIMITERS, key=fit)


def _check_header(
    path: Path,
    header: Sequence[str],
    written: Sequence[str],
    required: Sequence[str],
    known: Sequence[str],
) -> tuple[str, ...]:
    """Return notes on columns that are left out."""
    others = [name for name in written if name and name.casefold() not in known]
    for name in required:
        if name not in header:
            near = [other for other in others if did_you_mean(other.casefold(), [name])]
            if near:
                raise DatasetError(f"{path}: {unknown_name('column', near[0], known)}")
            raise DatasetError(
                f"{path}: the first line must name the column {name!r}. Received: "
                f"{first_few(written, 10) or 'an empty file'}."
            )
    repeated = [name for name, times in Counter(header).items() if times > 1 and name in known]
    if repeated:
        raise DatasetError(f"{path}: the first line names the column {repeated[0]!r} twice.")
    if not others:
        return ()
    free = [name for name in known if name not in header]
    hints = [
        f"{name} ({hint.strip()})" if (hint := did_you_mean(name.casefold(), free)) else name
        for name in others
    ]
    return (f"left out {count(len(others), 'column')} of {path.name}: {first_few(hints)}",)


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


def official_names(names: Iterable[str], where: str) -> tuple[str, ...]:
    """Return the tags of a published data set, cleaned.

    Raises:
        DatasetError: A name is refused or repeated, so the file is damaged.
    """
    try:
        return check_label_names(names)
    except ConfigError as error:
        raise DatasetError(f"{where}: {error}") from error


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
                    path.name for path in (self.root / folder).iterdir()
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
