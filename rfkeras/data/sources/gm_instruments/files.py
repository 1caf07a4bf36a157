"""Which files are whole: checksums and the journal."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rfkeras.files import naming

_JOURNAL_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


def checksum(path: Path) -> str | None:
    """sha256 of a file, hexadecimal; None if there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def intact(folder: Path, sums: dict[str, str]) -> set[str]:
    """Those of the listed files (relative path -> sha256) that exist unchanged."""
    paths = list(sums)
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = pool.map(lambda path: checksum(folder / path), paths)
        return {path for path, value in zip(paths, found, strict=True) if value == sums[path]}


class Journal:
    """Finished clips and their checksums, one line each, in the format of sha256sum.

    A line is added once its file is in place, so a clip without a line is not finished.
    Lines torn by a crash are passed over, and of two for one file the later holds.

    Args:
        path: The journal's file; made when the first line is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, str]:
        """Relative path -> sha256 of every finished clip."""
        if not self.path.exists():
            return {}
        text = self.path.read_text(encoding="utf-8", errors="replace")
        matches = (_JOURNAL_LINE.fullmatch(line) for line in text.split("\n"))
        return {match[2]: match[1] for match in matches if match}

    def append(self, entries: Iterable[tuple[str, str]]) -> None:
        """Add (relative path, sha256) pairs as they come, each at once."""
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            if torn:
                file.write("\n")
            for path, value in entries:
                file.write(f"{value}  {path}\n")
                file.flush()
