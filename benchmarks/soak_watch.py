"""Sample the resources of a process and its children from /proc."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Protocol

SHARED_MEMORY = "/dev/shm/"
PARTIAL_SUFFIX = ".partial"  # extension of incomplete files


class Process(Protocol):
    """The part of `subprocess.Popen` that a soak test uses."""

    pid: int

    def poll(self) -> int | None: ...

    def send_signal(self, number: int, /) -> None: ...


@dataclass(frozen=True)
class Sample:
    """Resources of a process and its children at one point in time.

    Attributes:
        seconds: Seconds since the first sample.
        done: Units of work done (steps or files).
        rss_mb: Resident memory.
        anonymous_mb: Resident memory not backed by a file, which the program allocated.
        descriptors: Number of open file descriptors.
        threads: Number of threads.
        processes: Number of processes, including the process itself.
        shared: Number of open files in /dev/shm.
        temporary: Number of files in its temporary folder.
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
    """The samples of a process.

    Attributes:
        samples: Samples in order of time.
        shared_files: All files in /dev/shm that it ever had open.
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
        process: A running process.
        every_seconds: Interval between samples.
        done: Function that returns the units of work done.
        is_enough: Function that returns True to stop after a sample.
        temporary: Temporary folder (TMPDIR) of the process.
        table: CSV file to which each sample is written immediately.
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
    """Take a sample; return None if the process has ended."""
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
        except (OSError, KeyError):  # the process has just ended
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
    for member in family:  # the list grows during the loop
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
        return ""  # closed in the meantime


def files_under(folder: Path) -> list[str]:
    """Return the names of all files in a folder and its subfolders."""
    return [name for _, _, names in os.walk(folder) for name in names]


def left_behind(trace: Trace, temporary: Path, written: Path) -> list[str]:
    """Return the files that a process should have removed before it ended.

    Args:
        trace: Samples of the process.
        temporary: Temporary folder (TMPDIR) of the process.
        written: Output folder, which must not contain incomplete files.
    """
    return [
        *files_under(temporary),
        *(name for name in files_under(written) if name.endswith(PARTIAL_SUFFIX)),
        *(name for name in sorted(trace.shared_files) if Path(name).exists()),
    ]
