"""A process and its children, sampled from /proc while they run."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Protocol

SHARED_MEMORY = "/dev/shm/"
MARK_OF_ASIDE = ".partial"  # of files that are still being written


class Process(Protocol):
    """The part of `subprocess.Popen` that is used here."""

    pid: int

    def poll(self) -> int | None: ...

    def send_signal(self, number: int, /) -> None: ...


@dataclass(frozen=True)
class Sample:
    """What a process and its children hold at one moment.

    Attributes:
        seconds: Since it was first sampled.
        done: Units of work done: steps, files.
        rss_mb: Resident memory.
        anonymous_mb: The part of it that no file stands behind: what the program allocated.
        descriptors: Open file descriptors.
        threads: Threads.
        processes: Processes, itself among them.
        shared: Its files in /dev/shm.
        temporary: Files in its folder for temporary ones.
    """

    seconds: float
    done: int
    rss_mb: float
    anonymous_mb: float
    descriptors: int
    threads: int
    processes: int
    shared: int
    temporary: int


@dataclass
class Trace:
    """A watched process.

    Attributes:
        samples: In the order of time.
        shared_files: Every file of /dev/shm that it ever held open.
    """

    samples: list[Sample] = field(default_factory=list)
    shared_files: set[str] = field(default_factory=set)


def watch(
    process: Process,
    *,
    every_seconds: float,
    done: Callable[[], int],
    is_enough: Callable[[Sample], bool],
    temporary: Path,
    table: Path,
) -> Trace:
    """Sample a process until it ends or has run for long enough.

    Args:
        process: Started before.
        every_seconds: From one sample to the next.
        done: Units of work done so far.
        is_enough: Whether to stop watching after this sample.
        temporary: The folder that its TMPDIR names.
        table: CSV file; each sample is written as it is taken.
    """
    trace = Trace()
    started = time.monotonic()
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [column.name for column in fields(Sample)])
        writer.writeheader()
        while process.poll() is None:
            sample = _sample(process.pid, time.monotonic() - started, done(), temporary, trace)
            if sample is not None:
                trace.samples.append(sample)
                writer.writerow(asdict(sample))
                file.flush()
                if is_enough(sample):
                    break
            time.sleep(every_seconds)
    return trace


def _sample(
    pid: int, seconds: float, done: int, temporary: Path, trace: Trace
) -> Sample | None:
    """None if the process ended meanwhile."""
    family = _family(pid)
    rss = anonymous = descriptors = threads = 0
    shared: set[str] = set()
    for member in family:
        folder = Path(f"/proc/{member}")
        try:
            sizes = _kilobytes(folder / "smaps_rollup")
            rss += sizes["Rss"]
            anonymous += sizes["Anonymous"]
            threads += len(list((folder / "task").iterdir()))
            links = [_target(link) for link in (folder / "fd").iterdir()]
        except (OSError, KeyError):  # it has just ended
            if member == pid:
                return None
            continue
        descriptors += len(links)
        shared |= {link for link in links if link.startswith(SHARED_MEMORY)}
    trace.shared_files |= shared
    return Sample(
        seconds=round(seconds, 2),
        done=done,
        rss_mb=round(rss / 1024, 2),
        anonymous_mb=round(anonymous / 1024, 2),
        descriptors=descriptors,
        threads=threads,
        processes=len(family),
        shared=len(shared),
        temporary=len(files_under(temporary)),
    )


def _family(pid: int) -> list[int]:
    family = [pid]
    for member in family:  # grows while it is walked
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                family += [int(child) for child in children.read_text().split()]
            except OSError:
                continue  # the thread has ended
    return family


def _kilobytes(path: Path) -> dict[str, int]:
    lines = path.read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""  # closed since it was listed


def files_under(folder: Path) -> list[str]:
    """Names of all files below a folder."""
    return [name for _, _, names in os.walk(folder) for name in names]


def left_behind(trace: Trace, temporary: Path, written: Path) -> list[str]:
    """Files that an ended process should have removed.

    Args:
        trace: Of the process.
        temporary: The folder that its TMPDIR named.
        written: The folder it wrote to, where nothing half-written may lie.
    """
    return [
        *files_under(temporary),
        *(name for name in files_under(written) if name.endswith(MARK_OF_ASIDE)),
        *(name for name in sorted(trace.shared_files) if Path(name).exists()),
    ]
