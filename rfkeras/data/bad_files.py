"""The list of audio files that could not be used, and the limit on their number."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rfkeras.errors import AudioError, ConfigError, DatasetError
from rfkeras.files import write_bytes

_NAMED_IN_ERROR = 5


@dataclass(frozen=True)
class BadFile:
    """A file, why it cannot be used, and what was being done with it."""

    path: str
    reason: str
    stage: str


def write_bad_files(csv_path: Path, files: Iterable[BadFile]) -> None:
    """Write a CSV of bad files, whole or not at all, with a header even if there are none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "reason", "stage"))
    writer.writerows((file.path, file.reason, file.stage) for file in files)
    # A path need not be valid Unicode.
    write_bytes(csv_path, text.getvalue().encode(errors="backslashreplace"))


class BadFileLog:
    """Collects bad files from any thread, writes them to a CSV, stops at a limit.

    A file counts once however often it is met.

    Args:
        csv_path: Where the list is written (path, reason, stage); no file when None.
        total_files: Files in use, of which the bad ones are a share.
        max_bad_share: Largest share of bad files that is tolerated, 0 to 1.

    Attributes:
        error: The DatasetError raised when the limit was passed, None before. tf.data
            wraps what its workers raise; `raise_if_stopped` gives the original back.

    Raises:
        ConfigError: max_bad_share is not within 0 and 1, or there is no file at all.
    """

    def __init__(
        self, csv_path: Path | None, *, total_files: int, max_bad_share: float = 0.01
    ) -> None:
        if not 0 <= max_bad_share <= 1:
            raise ConfigError(
                f"max_bad_share must lie between 0 and 1. Received: {max_bad_share}."
            )
        if total_files < 1:
            raise ConfigError(f"total_files must be at least 1. Received: {total_files}.")
        self.csv_path = csv_path
        self.total_files = total_files
        self.max_bad_share = max_bad_share
        self.error: DatasetError | None = None
        self._files: dict[str, BadFile] = {}
        self._lock = threading.Lock()

    @property
    def files(self) -> list[BadFile]:
        """The bad files so far, by path."""
        with self._lock:
            return [self._files[path] for path in sorted(self._files)]

    def __contains__(self, path: object) -> bool:
        with self._lock:
            return str(path) in self._files

    def record(self, error: AudioError, stage: str) -> None:
        """Add one file.

        Raises:
            DatasetError: More files are bad than the limit allows.
        """
        self.record_all([BadFile(error.path, error.reason, stage)])

    def record_all(self, bad: Iterable[BadFile]) -> None:
        """Add several files and write the list once.

        Raises:
            DatasetError: More files are bad than the limit allows.
        """
        with self._lock:
            before = len(self._files)
            for file in bad:
                self._files.setdefault(file.path, file)
            if len(self._files) > before:
                self._write()
            if len(self._files) > self.max_bad_share * self.total_files:
                raise self.stop(self._message())

    def stop(self, message: str) -> DatasetError:
        """Keep a DatasetError that ends the run, for `raise_if_stopped`; returns it."""
        self.error = DatasetError(message)
        return self.error

    def raise_if_stopped(self) -> None:
        """Raise the DatasetError that stopped the reading, if any."""
        if self.error is not None:
            raise self.error

    def _write(self) -> None:
        if self.csv_path is not None:
            write_bad_files(self.csv_path, (self._files[path] for path in sorted(self._files)))

    def _message(self) -> str:
        bad = [self._files[path] for path in sorted(self._files)]
        named = "; ".join(f"{file.path}: {file.reason}" for file in bad[:_NAMED_IN_ERROR])
        more = f"; and {len(bad) - _NAMED_IN_ERROR} more" if len(bad) > _NAMED_IN_ERROR else ""
        where = f" The full list is in {self.csv_path}." if self.csv_path else ""
        return (
            f"{len(bad)} of {self.total_files} audio files cannot be used; the limit is "
            f"{self.max_bad_share:.2%}. {named}{more}.{where} Mend or remove them, or raise "
            f"max_bad_share (--max-bad-share) above {len(bad) / self.total_files:.4f}."
        )
