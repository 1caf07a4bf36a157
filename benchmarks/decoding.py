"""Compare the CPU time of reading audio with that of libsndfile alone.

`python -m benchmarks.decoding` prints one line per format, length and excerpt. Both sides take
turns in one process. The excerpt is 2.5 s in the middle; "first" is the first opening of a
file, which finds out its true length.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import soundfile

from benchmarks.audio import SAMPLE_RATE_HZ, write_audio
from rfkeras.audio.io import AudioFile, AudioFormat, probe

SUFFIXES = ("wav", "flac", "mp3", "ogg")
SECONDS = (10.0, 180.0)
EXCERPT_SECONDS = 2.5
_AUDIO = AudioFormat(SAMPLE_RATE_HZ, 2)


def ours(path: Path, first: int, count: int | None) -> None:
    """Read with rfkeras."""
    with AudioFile(path, _AUDIO) as file:
        file.read(first, count)


def libsndfile(path: Path, first: int, count: int | None) -> None:
    """Read with soundfile."""
    with soundfile.SoundFile(path) as file:
        file.seek(first)
        file.read(-1 if count is None else count, dtype="float32", always_2d=True)


def cpu_ms(function: Callable[[], object]) -> float:
    """Return the CPU time of a call in milliseconds."""
    begin = time.process_time()
    function()
    return 1e3 * (time.process_time() - begin)


def in_turns(path: Path, first: int, count: int | None, rounds: int) -> tuple[float, float]:
    """Return the median milliseconds of both sides."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for read, measured in zip((ours, libsndfile), times, strict=True):
            measured.append(cpu_ms(lambda read=read: read(path, first, count)))  # type: ignore[misc]
    return median(times[0]), median(times[1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    print(f"{os.cpu_count()} cores, libsndfile {soundfile.__libsndfile_version__}")
    print(f"{'format':8}{'seconds':>8}  {'what':8}{'rfkeras':>10}{'soundfile':>11}{'ratio':>7}")
    with TemporaryDirectory() as folder:
        for suffix in SUFFIXES:
            for seconds in SECONDS:
                path = Path(folder) / f"{seconds:g}.{suffix}"
                write_audio(path, seconds)
                first_ms = cpu_ms(lambda path=path: probe(path))  # type: ignore[misc]
                middle = round(0.5 * seconds * SAMPLE_RATE_HZ)
                excerpt = round(EXCERPT_SECONDS * SAMPLE_RATE_HZ)
                for what, first, count in (("whole", 0, None), ("excerpt", middle, excerpt)):
                    here, there = in_turns(path, first, count, rounds)
                    print(
                        f"{suffix:8}{seconds:8g}  {what:8}{here:7.1f} ms{there:8.1f} ms"
                        f"{here / there:7.2f}"
                    )
                print(f"{suffix:8}{seconds:8g}  {'first':8}{first_ms:7.1f} ms")


if __name__ == "__main__":
    main()
