"""Hours of training and thousands of files tagged: is memory flat, is nothing left behind?

`python -m benchmarks.soak --hours 2 --files 5000 --output DIR` trains by the command line
until Ctrl-C, and at the same time tags a folder of files; both are sampled from /proc. The
exit status is 1 if something grew or was left. `--page DIR` then writes the page of it.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import soak_data
from benchmarks.machine import describe_machine
from benchmarks.report import table
from benchmarks.soak_jobs import Plan, Start, soak_tagging, soak_training, start
from benchmarks.soak_page import PICTURE, SUMMARY, write_page, write_summary
from benchmarks.soak_report import draw, jobs_of, rows


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--hours", type=float, default=2.0, help="of training (default 2)")
    result.add_argument("--files", type=int, default=5000, help="to tag (default 5000)")
    result.add_argument("--output", type=Path, default=Path("benchmark_results/soak"))
    result.add_argument(
        "--short", action="store_true", help="seconds: shows that it runs, not that it is flat"
    )
    result.add_argument(
        "--page", type=Path, metavar="DIR", help="write the page of a soak's output, and leave"
    )
    result.add_argument(
        "--docs", type=Path, default=Path("docs"), help="where --page writes (default: docs)"
    )
    return result


def main() -> int:
    """Soak, or write the page of a soak."""
    options = parser().parse_args()
    if options.page is not None:
        print(f"Written: {write_page(options.page, options.docs)}")
        return 0
    if options.hours <= 0 or options.files < 1:
        parser().error("--hours and --files take numbers above 0.")
    return soak(options.output, options.hours, options.files, short=options.short)


def soak(output: Path, hours: float, files: int, *, short: bool, start: Start = start) -> int:
    """Soak, print the table, write `soak.json` and the picture.

    Args:
        output: Folder for them and for all that the jobs write.
        hours: Of training. A short soak stops after its first epoch.
        files: To tag.
        short: Tiny data, and growth is not judged.
        start: Starts the jobs' processes.

    Returns:
        Exit status: 1 if something is not as it should be.
    """
    output.mkdir(parents=True, exist_ok=True)
    machine = describe_machine(len(os.sched_getaffinity(0)))
    data, clips = soak_data.tones(output / "tones") if short else soak_data.embedded()
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
    print("\n".join(faults) or "Nothing grew, and nothing was left.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
