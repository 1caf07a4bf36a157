"""Which files are whole: checksums, the journal, the lock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_JOURNAL_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
_POLL_SECONDS = 0.3


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
        with self.path.open("a", encoding="utf-8") as file:
            if torn:
                file.write("\n")
            for path, value in entries:
                file.write(f"{value}  {path}\n")
                file.flush()


@contextlib.contextmanager
def exclusive(path: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock between processes; the kernel frees it however its holder ends.

    Args:
        path: Lock file, made if absent.
        on_wait: Called once, with the holder's process id as text, if one must wait.
    """
    with path.open("a+", encoding="utf-8") as file:
        waited = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waited:
                    file.seek(0)
                    on_wait(file.read().strip() or "unknown")
                    waited = True
                time.sleep(_POLL_SECONDS)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
