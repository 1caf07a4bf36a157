"""`rfkeras sweep`: train at many receptive fields and compare the results."""

from __future__ import annotations

import argparse
import math
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.cli.main import COMMANDS
from rfkeras.config.resolve import add_flags
from rfkeras.errors import RFKerasError
from rfkeras.utils.text import count

if TYPE_CHECKING:
    from rfkeras.experiments.sweep import Job
    from rfkeras.experiments.sweep_report import Point

OWN_FLAGS = (
    "command",
    "run",
    "recipe",
    "rhos",
    "seeds",
    "variants",
    "also_test",
    "output",
    "jobs",
    "report_only",
)
SWEPT = ("rho", "seed", "shake", "frequency_aware", "damping", "decomposition")


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "sweep",
        help=COMMANDS["sweep"],
        description=(
            "Train every variant at every rho with every seed, each in its own run folder, and "
            "compare test mAP by receptive field in tables, CSV files and a plot. The same "
            "command resumes a stopped sweep. Several machines may run it on one shared folder."
        ),
        epilog=(
            "All other options are those of `rfkeras train` and apply to every run. Runs "
            "export no SavedModel unless you give --export. A recipe may have a table `sweep` "
            "with defaults for --rho, --seeds, --variants and --also-test, as choose_rho does."
        ),
    )
    parser.add_argument(
        "--rho",
        dest="rhos",
        metavar="RHOS",
        help='values of rho: "0:22:2" (first, last, step), "0,3,7" or "7x5,7x7" (time x '
        "frequency); needed unless the recipe has them",
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="use seeds 0 to N-1 (default: 3)"
    )
    parser.add_argument(
        "--variants",
        metavar="NAMES",
        help="plain, shake, fa, damped, decomposed or combinations, such as "
        "plain,shake,shake+fa (default: plain)",
    )
    parser.add_argument(
        "--also-test",
        action="append",
        metavar="TEST",
        help="also test every model on other data: NAME:option=value,... with data options, "
        'such as "other font:sound_font=F.sf2" or "training clips:split=train"',
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("sweep"),
        metavar="DIR",
        help="folder of the sweep (default: sweep)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="number of runs at a time (default: one per GPU, or 1)",
    )
    parser.add_argument(
        "--report-only",
        action="store_true",
        help="train nothing; write tables and plot from the finished runs",
    )
    parser.add_argument(
        "--recipe",
        metavar="FILE",
        help="YAML table of options, or the name of a recipe in zoo/recipes (default: the "
        "recipe of the data set, if there is one)",
    )
    add_flags(parser, leave_out=SWEPT)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rfkeras.experiments.sweep_report import finished_runs, write_results

    jobs = plan(options)
    print(f"Sweep: {options.output}, {count(len(jobs), 'run')}", flush=True)
    if not options.report_only:
        _run_all(jobs, options.jobs)
    finished = finished_runs(jobs)
    if not finished:
        raise RFKerasError(f"No run in {options.output} is finished, so there are no results.")
    points, conclusions = write_results(options.output, jobs, finished)
    _print(points, jobs[0].config.monitor)
    print("", *conclusions, sep="\n")
    print(f"Tables and plot: {options.output}/runs.csv, summary.csv and .md, sweep.png")
    missing = len(jobs) - len(finished)
    if missing:
        print(
            f"Not finished: {missing} of {count(len(jobs), 'run')}. Resume with the same "
            "command."
        )
    return 1 if missing and not options.report_only else 0


def plan(options: argparse.Namespace) -> list[Job]:
    """Return the runs of the sweep; see `rfkeras.experiments.sweep.plan_jobs`."""
    from rfkeras.experiments.sweep import plan_jobs

    flags = {key: value for key, value in vars(options).items() if key not in OWN_FLAGS}
    own = {
        "rho": options.rhos,
        "seeds": options.seeds,
        "variants": options.variants,
        "also_test": options.also_test,
    }
    return plan_jobs(own, flags, options.recipe, options.output)


def _run_all(jobs: list[Job], side_by_side: int | None) -> None:
    """Run the unfinished runs; print a line when one ends."""
    from rfkeras.experiments.sweep_run import RunOutcome, default_jobs, run_jobs

    done = sum(job.is_done for job in jobs)
    if done:
        print(f"{done} of {count(len(jobs), 'run')} already done", flush=True)
    started, ended = time.monotonic(), 0

    def on_end(outcome: RunOutcome) -> None:
        nonlocal ended
        ended += 1
        left = len(jobs) - done - ended
        each = (time.monotonic() - started) / ended
        print(
            f"[{done + ended}/{len(jobs)}] {outcome.job.run.name}: {_status(outcome)}, "
            f"{outcome.seconds / 60:.1f} min; about {math.ceil(each * left / 60)} min left",
            flush=True,
        )

    # Job systems stop programs with SIGTERM. In the background of a script SIGINT is ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        at_once = default_jobs() if side_by_side is None else side_by_side
        run_jobs(jobs, at_once, on_end)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Saved. Resume with the same command.") from None


def _status(outcome: Any) -> str:
    if outcome.status == "failed":
        return f"FAILED: {outcome.reason} (see {outcome.job.folder.root}/output.txt)"
    return {"done": "done", "elsewhere": "another process is training it"}[outcome.status]


def _print(points: list[Point], monitor: str) -> None:
    from rfkeras.experiments.sweep_report import best_on_validation
    from rfkeras.utils.table import Table, open_console

    for test in dict.fromkeys(point.test for point in points):
        of_test = [point for point in points if point.test == test]
        seeds = " or ".join(str(count) for count in sorted({p.seeds for p in of_test}))
        title = f"\n{test} (seeds: {seeds})"
        difference = "difference from largest RF (95 % CI)"
        headings = ["variant", "rho", "RF (pixels)", "RF (s)", "mAP", "seeds", difference]
        table = Table(headings, fixed=headings, title=title)
        for p in of_test:
            sizes = dict.fromkeys((p.rf_time_pixels, p.rf_frequency_pixels))
            less = f"{p.difference:+.3f} ({p.difference_low:+.3f} to {p.difference_high:+.3f})"
            table.add_row(
                p.variant,
                p.rho,
                " x ".join(map(str, sizes)),
                f"{p.rf_time_ms / 1000:.2f}",
                f"{p.mAP:.3f}",
                f"{p.seed_lowest:.3f}-{p.seed_highest:.3f}",
                "" if p.is_largest else less,
            )
        open_console(least_width=100).print(table.to_rich())
        for best in best_on_validation(of_test, monitor):
            print(f"Best on validation: {best.variant} rho {best.rho}, here {best.mAP:.3f}")
