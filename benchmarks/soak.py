"""Check that memory stays flat during hours of work and that no files are left behind.

`python -m benchmarks.soak --hours 2 --files 5000 --output DIR` trains from the command line
until Ctrl-C and tags a folder of files at the same time. Both processes are sampled from /proc.
The exit status is 1 if memory grew or files were left. `--page DIR` then writes the page of
the documentation.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.report import describe_machine, table
from benchmarks.soak_jobs import Plan, Start, soak_tagging, soak_training, start
from benchmarks.soak_report import (
    PICTURE,
    SUMMARY,
    draw,
    jobs_of,
    rows,
    write_page,
    write_summary,
)

CLIPS = 1000
SHORT_OPTIONS = "--rho 1 --width 4 --batch-size 4 --excerpt-seconds 0.5 --test-share 0.3"


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "--hours", type=float, default=2.0, help="hours of training (default: 2)"
    )
    result.add_argument(
        "--files", type=int, default=5000, help="number of files to tag (default: 5000)"
    )
    result.add_argument(
        "--output",
        type=Path,
        default=Path("benchmark_results/soak"),
        help="folder for the results",
    )
    result.add_argument(
        "--short",
        action="store_true",
        help="run for a few seconds, only to check that it works",
    )
    result.add_argument(
        "--page",
        type=Path,
        metavar="DIR",
        help="write the page for the results in DIR, and exit",
    )
    result.add_argument(
        "--docs",
        type=Path,
        default=Path("docs"),
        help="folder that --page writes to (default: docs)",
    )
    return result


def main() -> int:
    """Run a soak test, or write its page."""
    options = parser().parse_args()
    if options.page is not None:
        print(f"Page: {write_page(options.page, options.docs)}")
        return 0
    if options.hours <= 0 or options.files < 1:
        parser().error("--hours and --files must be greater than 0.")
    return soak(options.output, options.hours, options.files, short=options.short)


def soak(output: Path, hours: float, files: int, *, short: bool, start: Start = start) -> int:
    """Run a soak test: print the table, and write `soak.json` and the picture.

    Args:
        output: Folder for the results and for the files of both jobs.
        hours: Hours of training. A short soak stops after its first epoch.
        files: Number of files to tag.
        short: Use tiny data and do not judge growth.
        start: Function that starts the processes of the jobs.

    Returns:
        Exit status: 1 if there is a problem.
    """
    output.mkdir(parents=True, exist_ok=True)
    machine = describe_machine(len(os.sched_getaffinity(0)))
    data, clips = _tones(output / "tones") if short else _embedded()
    plan = Plan(
        output=output,
        train_seconds=0.0 if short else 3600 * hours,
        files=files,
        data=data,
        clips=clips,
        train_every_seconds=0.1 if short else 10.0,
        tag_every_seconds=0.05 if short else 0.5,
        start=start,
    )
    with ThreadPoolExecutor() as threads:
        training, tagging = (threads.submit(job, plan) for job in (soak_training, soak_tagging))
        outcomes = {"training": training.result(), "tagging": tagging.result()}
    jobs = jobs_of(outcomes)
    faults = [fault for job in jobs for fault in job.faults(judge_growth=not short)]
    write_summary(output / SUMMARY, outcomes, faults, len(clips), machine)
    draw(jobs, output / PICTURE)
    print(table(rows(jobs)))
    print("\n".join(faults) or "No growth, and no files left.")
    return 1 if faults else 0


def _embedded(size: int = CLIPS) -> tuple[list[str], list[Path]]:
    """Return the options of `train.py` for the built-in data set, and its audio files."""
    from rfkeras.synthesis import default_cache_dir, generate

    folder = generate(default_cache_dir(), size=size)
    return ["--dataset-size", str(size)], sorted(folder.glob("audio/**/*.ogg"))


def _tones(folder: Path) -> tuple[list[str], list[Path]]:
    """Write two classes of half-second tones for a short soak; return options and files."""
    import numpy as np
    import soundfile

    seconds = np.arange(11_025) / 22_050
    for name, hz in (("low", 200.0), ("high", 2000.0)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(8):
            tone = 0.2 * np.sin(2 * np.pi * (hz + 10 * number) * seconds)
            soundfile.write(folder / name / f"{number}.wav", tone, 22_050)
    options = ["--dataset", "folder", "--data-dir", str(folder), *SHORT_OPTIONS.split()]
    return options, sorted(folder.rglob("*.wav"))


if __name__ == "__main__":
    sys.exit(main())
