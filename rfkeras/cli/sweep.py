"""`rfkeras sweep`: train at many receptive fields and compare."""

from __future__ import annotations

import argparse
import math
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.cli.main import COMMANDS
from rfkeras.config.recipes import complete, recipes_for
from rfkeras.config.train_config import TrainConfig, add_flags, resolve
from rfkeras.errors import RFKerasError
from rfkeras.utils.files import write_text

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
            "Train every variant at every rho with every seed, one run folder each, and show "
            "test mAP against receptive field: tables, CSV files and a plot. The same command "
            "goes on with a sweep that was stopped, and several machines may run it on one "
            "shared folder."
        ),
        epilog=(
            "Other options are those of `rfkeras train` and hold for all runs. Exported "
            "SavedModels are left out unless --export is given."
        ),
    )
    parser.add_argument(
        "--rho",
        dest="rhos",
        required=True,
        metavar="RHOS",
        help='such as "0:22:2" (first, last, step), "0,3,7" or, for the axes, "7x5,7x7"',
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1 (3)")
    parser.add_argument(
        "--variants",
        default="plain",
        metavar="NAMES",
        help="plain, shake, fa, damped, decomposed, or several joined, such as "
        "plain,shake,shake+fa (plain)",
    )
    parser.add_argument(
        "--also-test",
        action="append",
        default=[],
        metavar="TEST",
        help="further data to test every model on, NAME:option=value,... with options of the "
        'data, such as "other font:sound_font=F.sf2" or "training clips:split=train"',
    )
    parser.add_argument(
        "--output", type=Path, default=Path("sweep"), metavar="DIR", help="its folder (sweep)"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs side by side (default: one for each GPU, else 1)",
    )
    parser.add_argument(
        "--report-only",
        action="store_true",
        help="train nothing; tables and plot from what is done",
    )
    parser.add_argument(
        "--recipe",
        metavar="FILE",
        help="YAML table of options, or the name of a recipe in zoo/recipes (default: the data "
        "set's own, if there is one)",
    )
    add_flags(parser, TrainConfig, leave_out=SWEPT)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rfkeras.experiments.sweep_report import (
        finished_runs,
        markdown_tables,
        summarise,
        write_tables,
    )

    jobs = plan(options)
    print(f"Sweep: {options.output}, {len(jobs)} runs", flush=True)
    if not options.report_only:
        _run_all(jobs, options.jobs)
    finished = finished_runs(jobs)
    if not finished:
        raise RFKerasError(f"No run of {options.output} is finished, so there is no result.")
    points = summarise(finished)
    write_tables(options.output, finished, points)
    write_text(options.output / "summary.md", markdown_tables(points))
    _write_plot(options.output / "sweep.png", points, jobs, len(finished))
    _print(points, jobs[0].config.monitor)
    print(f"Tables and plot: {options.output}/runs.csv, summary.csv and .md, sweep.png")
    missing = len(jobs) - len(finished)
    if missing:
        print(f"Not finished: {missing} of {len(jobs)} runs; the same command goes on.")
    return 1 if missing and not options.report_only else 0


def plan(options: argparse.Namespace) -> list[Job]:
    """The runs that the command line asks for.

    Raises:
        ConfigError: An option is wrong, or the model has not what a variant sets.
    """
    import zoo
    from rfkeras.errors import ConfigError
    from rfkeras.experiments.sweep import (
        Job,
        check_free,
        check_names,
        make_grid,
        parse_extra_test,
        parse_rhos,
        parse_variants,
    )
    from rfkeras.training.run_dir import RunFolder

    if options.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1. Received: {options.seeds}.")
    variants, rhos = parse_variants(options.variants), parse_rhos(options.rhos)
    grid = make_grid(variants, rhos, options.seeds)
    tests = tuple(parse_extra_test(text) for text in options.also_test)
    check_names(tests)
    flags = {key: value for key, value in vars(options).items() if key not in OWN_FLAGS}
    recipes = recipes_for(flags, options.recipe)
    for source, given in recipes:
        check_free(f"Recipe {source}", given)
    flags.setdefault("export", False)
    model = resolve(TrainConfig, flags, recipes).model
    check_free(f"Model {model!r}", zoo.model_info(model).options)
    jobs = []
    for cell in grid:
        config = complete(resolve(TrainConfig, {**flags, **cell.options()}, recipes))
        resolved = [complete(test.config_for(config)) for test in tests]
        own = tuple(
            replace(test, options={name: getattr(full, name) for name in test.options})
            for test, full in zip(tests, resolved, strict=True)
        )
        jobs.append(Job(cell, RunFolder(options.output / "runs" / cell.name), config, own))
    return jobs


def _run_all(jobs: list[Job], side_by_side: int | None) -> None:
    """Run what is not done, a line for each run that ends."""
    from rfkeras.experiments.sweep_run import Outcome, default_jobs, run_jobs

    done = sum(job.is_done for job in jobs)
    if done:
        print(f"{done} of {len(jobs)} runs are done already", flush=True)
    started, ended = time.monotonic(), 0

    def on_end(outcome: Outcome) -> None:
        nonlocal ended
        ended += 1
        left = len(jobs) - done - ended
        each = (time.monotonic() - started) / ended
        print(
            f"[{done + ended}/{len(jobs)}] {outcome.job.cell.name}: {_told(outcome)}, "
            f"{outcome.seconds / 60:.1f} min; about {math.ceil(each * left / 60)} min left",
            flush=True,
        )

    # Job systems stop a program by SIGTERM; in the background of a script SIGINT is ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        count = default_jobs() if side_by_side is None else side_by_side
        run_jobs(jobs, count, on_end)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Saved; the same command goes on.") from None


def _told(outcome: Any) -> str:
    if outcome.status == "failed":
        return f"FAILED: {outcome.reason} (see {outcome.job.folder.root}/output.txt)"
    return {"done": "done", "elsewhere": "another process works on it"}[outcome.status]


def _write_plot(path: Path, points: list[Point], jobs: list[Job], finished: int) -> None:
    from rfkeras.experiments.sweep_report import write_plot

    config = jobs[0].config
    epochs = f"{config.epochs} epochs of {config.excerpt_seconds:g} s excerpts"
    width = "" if config.width is None else f", width {config.width}"
    write_plot(
        path, points, f"{config.model}{width} on {config.dataset}, {epochs}; {finished} runs"
    )


def _print(points: list[Point], monitor: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from rfkeras.experiments.sweep_report import best_on_validation

    for test in dict.fromkeys(point.test for point in points):
        of_test = [point for point in points if point.test == test]
        seeds = " or ".join(str(count) for count in sorted({p.seeds for p in of_test}))
        title = f"\n{test} (seeds: {seeds})"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for heading in ("variant", "rho", "RF (pixels)", "RF (s)", "mAP", "seeds"):
            table.add_column(heading, no_wrap=True)
        table.add_column("less largest RF (95 %)", no_wrap=True)
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
        Console().print(table)
        for best in best_on_validation(of_test, monitor):
            print(f"Best on validation: {best.variant} rho {best.rho}, here {best.mAP:.3f}")
