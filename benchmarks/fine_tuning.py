"""Compare options for fine-tuning on small data sets of recorded notes.

    python -m benchmarks.fine_tuning RECORDINGS

RECORDINGS is a folder with a table notes.csv (columns path, class and instrument) and its audio
files. A task has 3 instruments with 15 clips each for training and validation, and up to 30
other clips of each instrument for testing. Options are compared on some tasks and confirmed on
others.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import shlex
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

TASKS = {
    "plucked": ("nylon_guitar", "ukulele", "6_string_banjo"),
    "keys": ("grand_piano", "vibraphone", "electric_piano"),
    "winds": ("baritone_saxophone", "trombone", "flute"),
    "low": ("double_bass_pizz", "electric_bass", "cello"),
    "held": ("transistor_organ", "harmonium", "violin_section"),
}
COMPARED, CONFIRMED = ("plucked", "keys", "winds"), ("low", "held")
CLIPS, TEST_CLIPS = 15, 30
COMMON = (
    "--model resnet_rf_tiny --init-weights gm_instruments --dataset folder --no-export "
    "--excerpt-seconds 5 --window-seconds 5"  # the notes are shorter
)
SIDES = {
    "0.1.0": "--freeze trunk --unfreeze-after 5 --learning-rate 1e-4 --trunk-lr-scale 1",
    "default": "--freeze trunk --unfreeze-after 5",
}


def main() -> int:
    """Train every side on every task with every seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recordings", type=Path, help="folder with notes.csv")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of a run (default: 20)")
    parser.add_argument(
        "--side",
        action="append",
        default=[],
        metavar="NAME=FLAGS",
        help="options to compare (default: those of version 0.1.0, and the defaults)",
    )
    options = parser.parse_args()
    sides = dict(side.split("=", 1) for side in options.side) or SIDES
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="rfkeras-fine-tuning-") as scratch:
        for task in options.tasks:
            table = _write_task(options.recordings, task, Path(scratch))
            for seed in range(options.seeds):
                for side, flags in sides.items():
                    started = time.perf_counter()
                    fixed = f"{COMMON} --epochs {options.epochs} --seed {seed}"
                    root = Path(scratch) / f"{task}-{side.replace('/', '_')}-{seed}"
                    score = _test_map(shlex.split(f"{fixed} {flags}"), table, root)
                    scores[task, side].append(score)
                    seconds = time.perf_counter() - started
                    print(f"{task} {side} {seed}: {score:.3f} {seconds:.0f} s", file=sys.stderr)
    print("| task | " + " | ".join(sides) + " |\n|---" * 1 + "|---" * len(sides) + "|")
    for task in options.tasks:
        cells = [f"{np.mean(scores[task, s]):.2f}" for s in sides]
        lowest = [f"{min(scores[task, s]):.2f}" for s in sides]
        row = " | ".join(f"{m} (from {low})" for m, low in zip(cells, lowest, strict=True))
        print(f"| {task}: {', '.join(TASKS[task])} | {row} |")
    return 0


def _write_task(recordings: Path, task: str, scratch: Path) -> Path:
    """Write the table of a task; the choice of clips does not depend on the seed."""
    with (recordings / "notes.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(0)
    path = scratch / f"{task}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "labels", "split"])
        for instrument in TASKS[task]:
            own = [row["path"] for row in rows if row["instrument"] == instrument]
            for i, place in enumerate(rng.permutation(len(own))[: CLIPS + TEST_CLIPS]):
                split = "train" if i < CLIPS - 3 else "validation" if i < CLIPS else "test"
                audio = (recordings / own[place]).resolve()
                writer.writerow([audio, instrument, split])
    return path


def _test_map(flags: list[str], table: Path, root: Path) -> float:
    """Train one run and return its macro mAP on the test clips."""
    from rfkeras.cli.main import build_parser
    from rfkeras.cli.train import configure
    from rfkeras.training.run import fit
    from rfkeras.training.run_dir import create_run_folder
    from rfkeras.training.scoring import score_split

    data = ["--data-dir", str(table), "--allow-absolute", "--run-dir", str(root)]
    options = build_parser(("train",)).parse_args(["train", *flags, *data])
    vars(options).pop("imports", None)  # an option of all commands, not of a run
    config = configure(options)
    with contextlib.redirect_stderr(io.StringIO()):
        fitted = fit(config, create_run_folder(config, root))
        scored = score_split(fitted.model, fitted.inputs, "test", bootstrap_samples=0)
    return float(scored.report.summary["macro"]["average_precision"])


if __name__ == "__main__":
    sys.exit(main())
