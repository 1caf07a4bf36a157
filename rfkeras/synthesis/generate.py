"""Generate the built-in data set in a folder, or complete a partial one.

The folder has the layout of OpenMIC-2018. Clips are made by worker processes, and a journal
lists the finished ones, so that `generate` can be killed at any time and continued later.
"""

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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray

from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis.compose import LABEL_RATE, VERSION, compose
from rfkeras.synthesis.mapping import CLASSES
from rfkeras.synthesis.render import SoundFont, default_sound_font, load_sound_font
from rfkeras.synthesis.song import CLIP_SECONDS
from rfkeras.utils.files import (
    exclusive,
    naming_write_errors,
    remove_leftovers,
    write_bytes,
    write_text,
)
from rfkeras.utils.processes import package_path, usable_cores
from rfkeras.utils.progress import track

CACHE_VARIABLE = "RFKERAS_CACHE_DIR"
MANIFEST = "manifest.json"
_SOUND_FONT_TAG_LENGTH = 12

DEFAULT_SIZE = 1000
TEST_SHARE = 3 / 16
FIRST_TEST_INDEX = 900_000
"""Training clips are numbered from 0, test clips from here. Random streams depend on the
number, so no stream is used in both splits."""

MAX_SIZE = 500_000
LABEL_FILES = (
    "openmic-2018.npz",
    "openmic-2018-aggregated-labels.csv",
    "class-map.json",
    "partitions/split01_train.csv",
    "partitions/split01_test.csv",
)
_RESPONSES = 3

_WORKER = "rfkeras.synthesis.render_worker"
_Results = queue.SimpleQueue[tuple[int, str]]

_JOURNAL_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


def default_cache_dir() -> Path:
    """Return the folder for generated data: $RFKERAS_CACHE_DIR or the user's cache folder."""
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
    """Make the data set in a folder, or finish what an earlier call began.

    Every clip is checked against its checksum; missing and changed clips are made again.
    The call may be killed at any time: the next one continues where it stopped. A second
    call on the same folder waits for the first to end.

    Args:
        root: Folder for all variants of the data set; see `default_cache_dir`.
        size: Number of clips, 2 to 500000. About 19 % of them are the test split. With fewer
            than about 200 clips, some classes do not occur in both splits.
        seed: Seed of the composition, 0 or more.
        workers: Number of processes; None for one per core.
        progress: Show progress on standard error.
        sound_font: A SoundFont 2 file to use instead of TimGM6mb, or several files, which
            the clips use in turn. Compositions and labels stay the same.

    Returns:
        The folder openmic-2018, in the layout of that data set.

    Raises:
        ConfigError: An argument has a value that is not allowed, or the folder cannot be
            written.
        DatasetError: The sound font lacks sounds, or a clip could not be made.
    """
    train, test = clip_indices(size)
    workers = usable_cores() if workers is None else workers
    if seed < 0 or workers < 1:
        raise ConfigError(
            "gm_instruments needs a seed of 0 or more and at least 1 worker. "
            f"Received: seed={seed}, workers={workers}."
        )
    paths = [sound_font] if isinstance(sound_font, Path) else list(sound_font or ())
    fonts = [load_sound_font(path.resolve()) for path in paths or [default_sound_font()]]
    tag = "-".join(font.sha256[:_SOUND_FONT_TAG_LENGTH] for font in fonts) if paths else None
    variant = root.expanduser().resolve() / folder_name(seed, size, tag)
    folder = variant / "openmic-2018"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: the folder cannot be created: {error}. Choose another folder, or set "
            f"{CACHE_VARIABLE}."
        ) from error

    def announce_wait(holder: str) -> None:
        if progress:
            print(
                f"{variant}: process {holder} is working on this data set. Waiting for it.",
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
    """Complete a data set whose lock is held."""
    folder, manifest = variant / "openmic-2018", variant / MANIFEST
    remove_leftovers(variant)
    paths = {index: audio_path(clip_key(seed, index)) for index in indices}
    journal = ClipJournal(variant / "clips.sha256")
    good = intact(folder, journal.read())
    missing = [index for index in indices if paths[index] not in good]
    if missing:
        # The manifest marks a complete data set, so it is removed before anything changes.
        manifest.unlink(missing_ok=True)
        clips = make_clips(folder, seed, missing, [font.path for font in fonts], workers)
        tracked = track(
            clips,
            len(missing),
            "Generating gm_instruments",
            unit="clips",
            quiet=not progress,
            plain_lines=10,
        )
        journal.append((paths[index], value) for index, value in tracked)
    if manifest.is_file() and _labels_are_intact(manifest, folder, size):
        return
    for path, content in label_files(seed, size).items():
        write_bytes(folder / path, content)
    sums = journal.read()
    listed = {path: sums[path] for path in paths.values()}
    for path in LABEL_FILES:
        listed[path] = checksum(folder / path) or ""
    _write_manifest(manifest, seed, size, fonts, listed)


def _labels_are_intact(manifest: Path, folder: Path, size: int) -> bool:
    """Return whether the manifest is readable and the label files match it."""
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
    """Write what the data set is and what made it; it marks the data set as complete."""
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


def folder_name(seed: int, size: int, sound_font_tag: str | None) -> str:
    """Return the folder name of one variant of the data set.

    Args:
        seed: Seed of the composition.
        size: Number of clips.
        sound_font_tag: First characters of the sound font's SHA-256; None for the default.
    """
    name = f"gm_instruments-v{VERSION}-seed{seed}-size{size}"
    return name if sound_font_tag is None else f"{name}-font-{sound_font_tag}"


def clip_indices(size: int) -> tuple[range, range]:
    """Return the numbers of the training clips and of the test clips.

    A larger set contains the clips of a smaller one with the same seed.

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
    """Return the key of a clip in the style of OpenMIC: six digits, underscore, a number."""
    return f"{index:06d}_{seed}"


def audio_path(key: str) -> str:
    """Return the path of a clip, relative to the openmic-2018 folder."""
    return f"audio/{key[:3]}/{key}.ogg"


def label_files(seed: int, size: int) -> dict[str, bytes]:
    """Return the content of every file but the audio, by path in the openmic-2018 folder."""
    train, test = clip_indices(size)
    indices = [*train, *test]
    keys = [clip_key(seed, index) for index in indices]
    clips = [compose(seed, index) for index in indices]
    labels = np.array([clip.labels for clip in clips], dtype=np.float64)
    mask = np.array([clip.mask for clip in clips], dtype=bool)

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
        _lines(keys[: len(train)]),
        _lines(keys[len(train) :]),
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
    folder: Path, seed: int, indices: Sequence[int], fonts: Sequence[Path], workers: int
) -> Iterator[tuple[int, str]]:
    """Make clips in the given number of processes.

    Args:
        folder: The openmic-2018 folder.
        seed: Seed of the data set.
        indices: Numbers of the clips.
        fonts: Sound font files; clip number n uses font n modulo their number.
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
    """Start a worker process."""
    environment = {**os.environ, "PYTHONPATH": package_path()}
    # Each worker keeps one core busy; more threads inside would compete for the cores.
    environment.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    return subprocess.Popen(
        [sys.executable, "-P", "-m", _WORKER, str(folder), str(seed), *map(str, fonts)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=environment,
    )


def _feed(
    process: subprocess.Popen[str], tasks: queue.SimpleQueue[int], results: _Results
) -> None:
    """Give one worker clip after clip. An empty answer means that the worker died."""
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
    """Return the checksum in a worker's answer."""
    if not line:
        raise DatasetError(
            f"{folder}: a worker process ended unexpectedly (killed, or out of memory). Run "
            "the same command again; finished clips are kept."
        )
    answer = json.loads(line)
    if "error" in answer:
        raise DatasetError(
            f"{folder}: a clip could not be made: {answer['error']} Finished clips are kept."
        )
    return str(answer["sha256"])
