"""Clips made by several processes, handed back as they are finished.

The workers are plain subprocesses fed through pipes, not a multiprocessing pool: they
import nothing of the caller's script (TensorFlow least of all), need no
`if __name__ == "__main__"` there, and end by themselves when the parent is killed.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import rfkeras
from rfkeras.errors import DatasetError

_WORKER = "rfkeras.data.sources.gm_instruments.worker"
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
