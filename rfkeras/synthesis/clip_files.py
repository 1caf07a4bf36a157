"""Clips that worker processes make, in the layout of OpenMIC-2018.

A journal lists the finished clips, so that the work can be killed and continued.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import DatasetError
from rfkeras.synthesis.mapping import CLASSES
from rfkeras.utils.files import naming_write_errors
from rfkeras.utils.processes import package_path
from rfkeras.utils.progress import track

LABEL_FILES = (
    "openmic-2018.npz",
    "openmic-2018-aggregated-labels.csv",
    "class-map.json",
    "partitions/split01_train.csv",
    "partitions/split01_test.csv",
)
COMPOSED = "composed.json"
"""File with the settings of a composed data set. The real OpenMIC-2018 has no such file."""

_RESPONSES = 3

_WORKER = "rfkeras.synthesis.render_worker"
_Results = queue.SimpleQueue[tuple[int, str]]

_JOURNAL_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")

Answers = Sequence[tuple[Sequence[int], Sequence[bool]]]
"""Labels and mask of each clip."""


def clip_key(seed: int, index: int) -> str:
    """Return the key of a clip in the style of OpenMIC: six digits, underscore, a number."""
    return f"{index:06d}_{seed}"


def audio_path(key: str) -> str:
    """Return the path of a clip, relative to the openmic-2018 folder."""
    return f"audio/{key[:3]}/{key}.ogg"


def announce_wait(folder: Path, *, progress: bool) -> Callable[[str], None]:
    """Return the callback of `files.exclusive` that prints which process holds a data set."""

    def announce(holder: str) -> None:
        if progress:
            print(
                f"{folder}: process {holder} is working on this data set. Waiting for it.",
                file=sys.stderr,
                flush=True,
            )

    return announce


def complete_audio(
    folder: Path,
    journal: ClipJournal,
    maker: Mapping[str, Any],
    indices: Sequence[int],
    *,
    workers: int,
    what: str,
    progress: bool,
    changing: Callable[[], None],
) -> dict[str, str]:
    """Make the clips that are missing or differ from their checksums.

    Args:
        folder: The openmic-2018 folder.
        journal: Finished clips; new ones are added.
        maker: See `make_clips`.
        indices: Numbers of all clips.
        workers: Number of processes.
        what: Name of the data set, for the progress bar.
        progress: Show progress on standard error.
        changing: Called before the first clip is made.

    Returns:
        SHA-256 of every clip by path in the folder.

    Raises:
        DatasetError: A clip could not be made, or a worker died.
    """
    paths = {index: audio_path(clip_key(maker["seed"], index)) for index in indices}
    good = intact(folder, journal.read())
    missing = [index for index in indices if paths[index] not in good]
    if missing:
        changing()
        tracked = track(
            make_clips(folder, maker, missing, workers),
            len(missing),
            f"Generating {what}",
            unit="clips",
            quiet=not progress,
            plain_lines=10,
        )
        journal.append((paths[index], value) for index, value in tracked)
    sums = journal.read()
    return {path: sums[path] for path in paths.values()}


def label_files(
    train: Sequence[str], test: Sequence[str], answers: Answers
) -> dict[str, bytes]:
    """Return the content of every file but the audio, by path in the openmic-2018 folder.

    Args:
        train: Keys of the training clips.
        test: Keys of the test clips.
        answers: Labels and mask of the training clips, then of the test clips.
    """
    keys = [*train, *test]
    labels = np.array([labels for labels, _ in answers], dtype=np.float64)
    mask = np.array([mask for _, mask in answers], dtype=bool)

    archive = io.BytesIO()
    # Plain Unicode keys: reading an array of objects would require unpickling.
    np.savez(
        archive,
        Y_true=np.where(mask, labels, 0.5),
        Y_mask=mask,
        sample_key=np.array(keys, dtype=np.str_),
    )
    class_map = {name: number for number, name in enumerate(CLASSES)}
    contents = (
        archive.getvalue(),
        _aggregated(keys, labels, mask),
        json.dumps(class_map, indent=4).encode(),
        _lines(train),
        _lines(test),
    )
    return dict(zip(LABEL_FILES, contents, strict=True))


def _lines(keys: Sequence[str]) -> bytes:
    """Return keys as text, one per line."""
    return "".join(f"{key}\n" for key in keys).encode()


def _aggregated(
    keys: Sequence[str], labels: NDArray[np.float64], mask: NDArray[np.bool_]
) -> bytes:
    """Return the table of known labels: one row per annotated clip and class."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("sample_key", "instrument", "relevance", "num_responses"))
    for row, key in enumerate(keys):
        for column, name in enumerate(CLASSES):
            if mask[row, column]:
                table.writerow((key, name, f"{labels[row, column]:.1f}", _RESPONSES))
    return text.getvalue().encode()


class ClipJournal:
    """Finished clips and their checksums, one per line, in the format of sha256sum.

    A line is added once its file is in place, so a clip without a line is not finished.
    Lines that a crash left incomplete are ignored. If a file has two lines, the later counts.

    Args:
        path: The journal file; created when the first line is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, str]:
        """Return the SHA-256 of every finished clip by relative path."""
        if not self.path.exists():
            return {}
        text = self.path.read_text(encoding="utf-8", errors="replace")
        matches = (_JOURNAL_LINE.fullmatch(line) for line in text.split("\n"))
        return {match[2]: match[1] for match in matches if match}

    def append(self, entries: Iterable[tuple[str, str]]) -> None:
        """Add (relative path, SHA-256) pairs as they come, and flush after each."""
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with (
            naming_write_errors(self.path),
            self.path.open("a", encoding="utf-8", newline="\n") as file,
        ):
            if torn:
                file.write("\n")
            for path, value in entries:
                file.write(f"{value}  {path}\n")
                file.flush()


def checksum(path: Path) -> str | None:
    """Return the SHA-256 of a file, hexadecimal, or None if it does not exist."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def intact(folder: Path, sums: dict[str, str]) -> set[str]:
    """Return the listed files (relative path -> SHA-256) that exist unchanged."""
    paths = list(sums)
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = pool.map(lambda path: checksum(folder / path), paths)
        return {path for path, value in zip(paths, found, strict=True) if value == sums[path]}


def make_clips(
    folder: Path, maker: Mapping[str, Any], indices: Sequence[int], workers: int
) -> Iterator[tuple[int, str]]:
    """Make clips in the given number of processes.

    Args:
        folder: The openmic-2018 folder.
        maker: What makes a clip of a number; see `render_worker.clip_maker`.
        indices: Numbers of the clips.
        workers: Number of processes.

    Yields:
        (number, SHA-256) of each finished clip, in no particular order.

    Raises:
        DatasetError: A clip could not be made, or a worker died.
    """
    tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in indices:
        tasks.put(index)
    results: _Results = queue.SimpleQueue()
    processes: list[subprocess.Popen[str]] = []
    threads: list[threading.Thread] = []
    try:
        for _ in range(min(workers, len(indices))):
            process = _start(folder)
            processes.append(process)
            arguments = (process, maker, tasks, results)
            thread = threading.Thread(target=_feed, args=arguments, daemon=True)
            threads.append(thread)
            thread.start()
        for _ in indices:
            index, line = results.get()
            yield index, _checksum_in(line, folder)
    finally:
        for process in processes:
            process.kill()
        for thread in threads:
            thread.join()
        for process in processes:
            process.communicate()


def _start(folder: Path) -> subprocess.Popen[str]:
    """Start a worker process."""
    environment = {**os.environ, "PYTHONPATH": package_path()}
    # Each worker keeps one core busy; more threads inside would compete for the cores.
    environment.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    return subprocess.Popen(
        [sys.executable, "-P", "-m", _WORKER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=environment,
    )


def _feed(
    process: subprocess.Popen[str],
    maker: Mapping[str, Any],
    tasks: queue.SimpleQueue[int],
    results: _Results,
) -> None:
    """Give one worker the maker, then clip after clip.

    An empty answer means that the worker died.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    # Not as an argument: paths of thousands of files would be too long for one.
    content = f"{json.dumps(maker)}\n"
    while True:
        try:
            index = tasks.get_nowait()
        except queue.Empty:
            return
        try:
            process.stdin.write(f"{content}{index}\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        content = ""
        results.put((index, line))
        if not line:
            return


def _checksum_in(line: str, folder: Path) -> str:
    """Return the checksum in a worker's answer."""
    if not line:
        raise DatasetError(
            f"{folder}: a worker process ended unexpectedly (killed, or out of memory). Run "
            "the same command again; finished clips are kept."
        )
    answer = json.loads(line)
    if "error" in answer:
        reason = str(answer["error"]).rstrip(".")
        raise DatasetError(
            f"{folder}: a clip could not be made: {reason}. Finished clips are kept."
        )
    return str(answer["sha256"])
