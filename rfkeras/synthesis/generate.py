"""Make the data set, complete it, or find it complete."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import io
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import platformdirs
from numpy.typing import NDArray

import rfkeras
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis import render
from rfkeras.synthesis.compose import LABEL_RATE, VERSION, compose
from rfkeras.synthesis.mapping import CLASSES
from rfkeras.synthesis.render import SoundFont
from rfkeras.synthesis.song import CLIP_SECONDS
from rfkeras.utils.files import exclusive, naming, remove_leftovers, write_bytes, write_text

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


DEFAULT_SIZE = 1000
TEST_SHARE = 3 / 16
FIRST_TEST_INDEX = 900_000
"""Training clips are numbered from 0, test clips from here: their random streams, which
hang on the number, can never meet."""

MAX_SIZE = 500_000
LABEL_FILES = (
    "openmic-2018.npz",
    "openmic-2018-aggregated-labels.csv",
    "class-map.json",
    "partitions/split01_train.csv",
    "partitions/split01_test.csv",
)
_RESPONSES = 3


def folder_name(seed: int, size: int, sound_font_tag: str | None) -> str:
    """Folder of one variant of the data set.

    Args:
        seed: Seed of the composition.
        size: Number of clips.
        sound_font_tag: First characters of the sound font's sha256; None for the default.
    """
    name = f"gm_instruments-v{VERSION}-seed{seed}-size{size}"
    return name if sound_font_tag is None else f"{name}-font-{sound_font_tag}"


def clip_indices(size: int) -> tuple[range, range]:
    """Numbers of the training and of the test clips.

    A larger set holds the clips of a smaller one of the same seed, and more.

    Raises:
        ConfigError: size is not in 2..500000.
    """
    if not 2 <= size <= MAX_SIZE:
        raise ConfigError(
            f"The size of gm_instruments must be 2 to {MAX_SIZE} clips. Received: {size}."
        )
    test = max(1, round(size * TEST_SHARE))
    return range(size - test), range(FIRST_TEST_INDEX, FIRST_TEST_INDEX + test)


def clip_key(seed: int, index: int) -> str:
    """Key of a clip, in the manner of OpenMIC: six digits, underscore, a number."""
    return f"{index:06d}_{seed}"


def audio_path(key: str) -> str:
    """Where a clip lies, relative to the openmic-2018 folder."""
    return f"audio/{key[:3]}/{key}.ogg"


def label_files(seed: int, size: int) -> dict[str, bytes]:
    """Content of every file beside the audio, by path relative to the openmic-2018 folder."""
    train, test = clip_indices(size)
    indices = [*train, *test]
    keys = [clip_key(seed, index) for index in indices]
    clips = [compose(seed, index) for index in indices]
    labels = np.array([clip.labels for clip in clips], dtype=np.float64)
    mask = np.array([clip.mask for clip in clips], dtype=bool)

    archive = io.BytesIO()
    # Plain unicode keys: an array of objects could only be read by unpickling it.
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
        _lines(keys[: len(train)]),
        _lines(keys[len(train) :]),
    )
    return dict(zip(LABEL_FILES, contents, strict=True))


def _lines(keys: Sequence[str]) -> bytes:
    return "".join(f"{key}\n" for key in keys).encode()


def _aggregated(
    keys: Sequence[str], labels: NDArray[np.float64], mask: NDArray[np.bool_]
) -> bytes:
    """The table of known labels: one row for each clip and class that was annotated."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("sample_key", "instrument", "relevance", "num_responses"))
    for row, key in enumerate(keys):
        for column, name in enumerate(CLASSES):
            if mask[row, column]:
                table.writerow((key, name, f"{labels[row, column]:.1f}", _RESPONSES))
    return text.getvalue().encode()


_WORKER = "rfkeras.synthesis.render_worker"
_Results = queue.SimpleQueue[tuple[int, str]]


def default_workers() -> int:
    """As many processes as there are cores that this one may use."""
    return len(os.sched_getaffinity(0))


def make_clips(
    folder: Path, seed: int, indices: Sequence[int], fonts: Sequence[Path], workers: int
) -> Iterator[tuple[int, str]]:
    """Make clips in the given number of processes.

    Args:
        folder: The openmic-2018 folder.
        seed: Seed of the data set.
        indices: Numbers of the clips.
        fonts: Sound font files; clip number n takes that of n modulo their number.
        workers: Number of processes.

    Yields:
        (number, sha256) of each finished clip, in no particular order.

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
            process = _start(folder, seed, fonts)
            processes.append(process)
            thread = threading.Thread(target=_feed, args=(process, tasks, results), daemon=True)
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


def _start(folder: Path, seed: int, fonts: Sequence[Path]) -> subprocess.Popen[str]:
    environment = dict(os.environ)
    package_root = str(Path(rfkeras.__file__).parents[1])
    known = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join(
        [package_root, known] if known else [package_root]
    )
    # One clip keeps one core busy; more threads inside would only get in each other's way.
    environment.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    return subprocess.Popen(
        [sys.executable, "-P", "-m", _WORKER, str(folder), str(seed), *map(str, fonts)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def _feed(
    process: subprocess.Popen[str], tasks: queue.SimpleQueue[int], results: _Results
) -> None:
    """Give one worker clip after clip; an empty answer means that it died."""
    assert process.stdin is not None
    assert process.stdout is not None
    while True:
        try:
            index = tasks.get_nowait()
        except queue.Empty:
            return
        try:
            process.stdin.write(f"{index}\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        results.put((index, line))
        if not line:
            return


def _checksum_in(line: str, folder: Path) -> str:
    """The checksum in a worker's answer."""
    if not line:
        raise DatasetError(
            f"{folder}: a process that makes clips ended unexpectedly (killed, or out of "
            "memory). Run the same command again: finished clips are kept."
        )
    answer = json.loads(line)
    if "error" in answer:
        raise DatasetError(
            f"{folder}: a clip could not be made: {answer['error']} Finished clips are kept."
        )
    return str(answer["sha256"])


Item = TypeVar("Item")
_LINES = 10


def tracked(items: Iterable[Item], total: int, label: str, *, enabled: bool) -> Iterator[Item]:
    """Hand items through and show how many have passed.

    Args:
        items: What is counted.
        total: How many there will be.
        label: What stands before the bar or the numbers.
        enabled: False shows nothing.
    """
    if not enabled:
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, total, label)
    else:
        yield from _plain(items, total, label)


def _bar(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total)
        for item in items:
            yield item
            progress.advance(task)


def _plain(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    begin = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if done * _LINES // total > (done - 1) * _LINES // total:
            left = (time.monotonic() - begin) / done * (total - done)
            print(f"{label}: {done} of {total}, {left:.0f} s left", file=sys.stderr, flush=True)


CACHE_VARIABLE = "RFKERAS_CACHE_DIR"
MANIFEST = "manifest.json"
_TAG_LENGTH = 12


def default_cache_dir() -> Path:
    """Where generated data goes: $RFKERAS_CACHE_DIR, or the user's cache directory."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("rfkeras"))


def generate(
    root: Path,
    *,
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    sound_font: Path | Sequence[Path] | None = None,
) -> Path:
    """Make the data set under a folder, or finish what an earlier call began.

    Every clip is checked against its checksum; missing and changed ones are made (again).
    Killed at any moment, the next call goes on where this one stopped. A second call on
    the same folder waits for the first to end.

    Args:
        root: Folder that holds all variants; see default_cache_dir.
        size: Number of clips, 2 to 500000; about 19 % of them are the test split. Below
            some 200 not every class occurs in both splits.
        seed: Seed of the composition, 0 or more.
        workers: Processes; None for one on each core.
        progress: Show progress on standard error.
        sound_font: Another SoundFont 2 file, or several of which each clip takes one in
            turn; None for TimGM6mb. The compositions and labels stay the same.

    Returns:
        The folder openmic-2018 in the layout of that data set.

    Raises:
        ConfigError: An argument has a value that is not allowed, or the folder cannot be
            written.
        DatasetError: The sound font lacks sounds, or a clip could not be made.
    """
    train, test = clip_indices(size)
    workers = default_workers() if workers is None else workers
    if seed < 0 or workers < 1:
        raise ConfigError(
            "gm_instruments needs a seed of 0 or more and at least 1 worker. "
            f"Received: seed={seed}, workers={workers}."
        )
    paths = [sound_font] if isinstance(sound_font, Path) else list(sound_font or ())
    fonts = [render.load(path.resolve()) for path in paths or [render.default_path()]]
    tag = "-".join(font.sha256[:_TAG_LENGTH] for font in fonts) if paths else None
    variant = root.expanduser().resolve() / folder_name(seed, size, tag)
    folder = variant / "openmic-2018"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: the folder cannot be made: {error}. Choose another place, or set "
            f"{CACHE_VARIABLE}."
        ) from error

    def announce_wait(holder: str) -> None:
        if progress:
            print(
                f"{variant}: process {holder} is working on this data set; waiting for it.",
                file=sys.stderr,
                flush=True,
            )

    with exclusive(variant / ".lock", announce_wait):
        _complete(variant, [*train, *test], seed, size, fonts, workers, progress=progress)
    return folder


def _complete(
    variant: Path,
    indices: list[int],
    seed: int,
    size: int,
    fonts: Sequence[SoundFont],
    workers: int,
    *,
    progress: bool,
) -> None:
    """Bring a data set whose lock is held to completion."""
    folder, manifest = variant / "openmic-2018", variant / MANIFEST
    remove_leftovers(variant)
    paths = {index: audio_path(clip_key(seed, index)) for index in indices}
    journal = Journal(variant / "clips.sha256")
    good = intact(folder, journal.read())
    missing = [index for index in indices if paths[index] not in good]
    if missing:
        # A manifest stands for a complete data set, so it goes before anything changes.
        manifest.unlink(missing_ok=True)
        clips = make_clips(folder, seed, missing, [font.path for font in fonts], workers)
        shown = tracked(clips, len(missing), "gm_instruments: clips", enabled=progress)
        journal.append((paths[index], value) for index, value in shown)
    if manifest.is_file() and _agrees(manifest, folder, size):
        return
    for path, content in label_files(seed, size).items():
        write_bytes(folder / path, content)
    sums = journal.read()
    listed = {path: sums[path] for path in paths.values()}
    for path in LABEL_FILES:
        listed[path] = checksum(folder / path) or ""
    _write_manifest(manifest, seed, size, fonts, listed)


def _agrees(manifest: Path, folder: Path, size: int) -> bool:
    """Whether the manifest is readable and the label files are as it says."""
    try:
        sums = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        labels = {path: str(sums[path]) for path in LABEL_FILES}
    except (ValueError, KeyError, TypeError):
        return False
    whole = len(sums) == size + len(labels)
    return whole and intact(folder, labels) == set(labels)


def _write_manifest(
    path: Path, seed: int, size: int, fonts: Sequence[SoundFont], sums: dict[str, str]
) -> None:
    """Say what the data set is and what made it; its presence says that all is there."""
    made_with = ("midirenderer", "pretty_midi", "soundfile", "soxr", "numpy")
    content = {
        "name": "gm_instruments",
        "version": VERSION,
        "seed": seed,
        "size": size,
        "label_rate": LABEL_RATE,
        "clip_seconds": CLIP_SECONDS,
        "sound_fonts": [{"file": font.path.name, "sha256": font.sha256} for font in fonts],
        "made_with": {name: importlib.metadata.version(name) for name in made_with},
        "files": dict(sorted(sums.items())),
    }
    write_text(path, json.dumps(content, indent=1) + "\n")
