"""Results of the receptive-field experiment: gather them from sweeps, read and compare them.

`python -m tools.experiment_results SWEEP ... --data CLIPS --out docs/rf_sweep/to_the_end`

SWEEP is a folder of `tools.sweep_on_jax`, CLIPS that of `tools.experiment_clips`. OUT gets
runs.csv, with a row for each of the ten points of every run, CONDITION.npz with the logits of
the test clips at the end, and labels.npz. Runs that are there stay, so that a sweep can be
added to an earlier one.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import DatasetError, RFKerasError
from rfkeras.evaluation.bootstrap import (
    Interval,
    MeanAveragePrecision,
    average_precision_of_counts,
    bootstrap_mean_average_precision,
)
from rfkeras.evaluation.metrics import FloatArray
from rfkeras.evaluation.result import ClipScores
from rfkeras.utils.files import open_npz, write_npz, write_text
from rfkeras.utils.table import csv_text
from tools.experiment_clips import PATTERNS
from tools.feature_parts import read_parts

SETS = ("new", "font", "recordings", "near", "far")
CONVERGED = 0.98  # lowest mAP on its training clips of a network that is trained to the end
SAMPLES = 1000
RUNS_FILE, LABELS_FILE = "runs.csv", "labels.npz"
_ROW = ("run", "condition", "rho", "seed", "parameters", "clips", "device", "seconds")


def gather(sweep: Path, clips: Path, out: Path) -> int:
    """Add the runs of a sweep to the results; return their number.

    Args:
        sweep: Folder of `tools.sweep_on_jax`.
        clips: Folder of the clips that it was scored on.
        out: Folder of the results.

    Raises:
        DatasetError: A run is in the results already, with other figures.
    """
    runs = sweep / "runs.jsonl"
    if not runs.is_file():
        raise DatasetError(f"{sweep} has no runs.jsonl, so it is no folder of a sweep.")
    lines = [json.loads(line) for line in runs.read_text(encoding="utf-8").splitlines()]
    rows = _read_rows(out / RUNS_FILE)
    logits: dict[str, dict[str, Any]] = {}
    for line in lines:
        new = [
            {name: str(value) for name, value in row.items()}
            for point in line.pop("curve")
            for row in [{**{name: line[name] for name in _ROW}, **point}]
        ]
        old = [row for row in rows if row["run"] == line["run"]]
        if old and [_without_empty(row) for row in old] != new:
            raise DatasetError(f"{out} has another run {line['run']}. Use another folder.")
        if not old:
            rows += new
        with open_npz(sweep / f"{line['run']}.npz") as file:
            arrays = {f"{line['run']}/{n}": file[n] for n in file.files if n != "train"}
        logits.setdefault(line["condition"], {}).update(arrays)
    sets = [name for name in SETS if any(name in row for row in rows)]
    columns = [*_ROW, "step", "loss", "train", *sets]
    write_text(out / RUNS_FILE, csv_text([{c: r.get(c, "") for c in columns} for r in rows]))
    for condition, arrays in logits.items():
        path = out / f"{condition}.npz"
        if path.is_file():
            with open_npz(path) as file:
                arrays = {name: file[name] for name in file.files} | arrays
        write_npz(path, arrays)
    write_npz(out / LABELS_FILE, _labels(clips, sets))
    return len(lines)


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _without_empty(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if value != ""}


def _labels(clips: Path, sets: Sequence[str]) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for name in sets:
        found = read_parts(sorted(clips.glob(f"{name}-[0-9]*.npz")), lambda text: None)
        arrays["tags"] = np.array(found.scale.label_names)
        arrays[f"{name}/labels"] = found.labels >= 0.5
        arrays[f"{name}/mask"] = np.asarray(found.mask, bool)
    return arrays


class Results:
    """The results in a folder of `gather`.

    Args:
        folder: The folder.

    Raises:
        DatasetError: It has no results.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows = _read_rows(folder / RUNS_FILE)
        if not self.rows:
            raise DatasetError(
                f"{folder} has no {RUNS_FILE}. Write it with tools.experiment_results."
            )
        with open_npz(folder / LABELS_FILE) as file:
            self._labels = {name: file[name] for name in file.files}
        self._logits: dict[str, dict[str, NDArray[np.float16]]] = {}
        self.group = cache(self._group)

    @cached_property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions, in the order of the file."""
        return tuple(dict.fromkeys(row["condition"] for row in self.rows))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the runs, in the order of the file."""
        return tuple(dict.fromkeys(row["run"] for row in self.rows))

    def rhos(self, condition: str) -> tuple[str, ...]:
        """Return the values of rho of a condition, the smallest first."""
        found = {row["rho"] for row in self.rows if row["condition"] == condition}
        return tuple(sorted(found, key=lambda rho: [int(part) for part in rho.split("x")]))

    def runs(self, condition: str, rho: str) -> tuple[str, ...]:
        """Return the names of the runs at one rho, a run for each seed."""
        return tuple(
            dict.fromkeys(
                row["run"]
                for row in self.rows
                if (row["condition"], row["rho"]) == (condition, rho)
            )
        )

    def sets(self, condition: str) -> tuple[str, ...]:
        """Return the test sets of a condition."""
        row = next(row for row in self.rows if row["condition"] == condition)
        return tuple(name for name in SETS if row.get(name))

    def curve(self, run: str, column: str) -> FloatArray:
        """Return a column of runs.csv at the ten points of a run."""
        return np.array([float(row[column]) for row in self.rows if row["run"] == run])

    def column(self, condition: str, rho: str, column: str) -> FloatArray:
        """Return a column of runs.csv at the end of the runs at one rho, (seeds,)."""
        return np.array([self.curve(run, column)[-1] for run in self.runs(condition, rho)])

    def clip_scores(self, run: str, test: str) -> ClipScores:
        """Return the scores of a run on the clips of a test set."""
        condition = next(row["condition"] for row in self.rows if row["run"] == run)
        if condition not in self._logits:
            with open_npz(self.folder / f"{condition}.npz") as file:
                self._logits[condition] = {name: file[name] for name in file.files}
        logits = self._logits[condition][f"{run}/{test}"].astype(float)
        labels, mask = self._labels[f"{test}/labels"], self._labels[f"{test}/mask"]
        # Networks of the instruments know the first tags, those of the patterns the last.
        knows_patterns = logits.shape[1] == len(PATTERNS)
        own = slice(-len(PATTERNS), None) if knows_patterns else slice(logits.shape[1])
        keys = np.array([f"{test}/{number}" for number in range(len(logits))])
        return ClipScores(logits, labels[:, own] & mask[:, own], mask[:, own], keys)

    def _group(self, condition: str, rho: str, test: str) -> MeanAveragePrecision:
        """Return mAP of the runs at one rho; all groups have the same resamples."""
        scores = [self.clip_scores(run, test) for run in self.runs(condition, rho)]
        return bootstrap_mean_average_precision(scores, SAMPLES)

    def mean(self, condition: str, rho: str, test: str) -> float:
        """Return mAP at the end, as a mean over the seeds."""
        return float(self.column(condition, rho, test).mean())

    def resampled(self, condition: str, rho: str, test: str) -> FloatArray:
        """Return that mean on resamples of clips and seeds, (SAMPLES,)."""
        group = self.group(condition, rho, test)
        return group.replicates + group.seed_deviations(_generator(condition, rho))

    def contrast(self, terms: Sequence[tuple[float, str, str]], test: str) -> Interval:
        """Return a sum of means over seeds, with its interval over clips and seeds.

        Args:
            terms: Factor, condition and rho of each mean.
            test: The test set.
        """
        value = sum(f * self.mean(condition, rho, test) for f, condition, rho in terms)
        drawn = np.sum(
            [f * self.resampled(condition, rho, test) for f, condition, rho in terms], axis=0
        )
        high, low = 2 * value - np.quantile(drawn, [0.025, 0.975])
        return Interval(float(value), float(low), float(high))

    def difference(self, condition: str, rho: str, other: str, test: str) -> Interval:
        """Return the difference between two values of rho."""
        return self.contrast([(1.0, condition, rho), (-1.0, condition, other)], test)

    def best_on_a_half(self, condition: str, test: str) -> dict[str, Any]:
        """Test whether an optimum found on one half of the clips holds on the other.

        In each of many draws the seeds are resampled and the clips are divided at random. The
        best rho on one half is compared with the lowest and the highest rho on the other.

        Args:
            condition: The condition.
            test: The test set.

        Returns:
            "chosen": share of the draws that chose each rho. "over lowest", "over highest":
            its lead on the other half, with the interval over the draws.
        """
        rhos = self.rhos(condition)
        rng = np.random.default_rng(0)
        first = self.clip_scores(self.runs(condition, rhos[0])[0], test)
        halves = np.zeros((SAMPLES, len(first.scores)), np.int32)
        for row in halves:
            row[rng.permutation(len(row))[: len(row) // 2]] = 1
        table = []
        for rho in rhos:
            runs = self.runs(condition, rho)
            drawn = rng.integers(len(runs), size=(SAMPLES, len(runs)))
            sides = [
                np.stack(
                    [
                        average_precision_of_counts(self.clip_scores(run, test), side)
                        for run in runs
                    ]
                )[drawn, np.arange(SAMPLES)[:, None]].mean(axis=1)
                for side in (halves, 1 - halves)
            ]
            table.append(sides)
        chosen_on, seen_on = np.array(table).transpose(1, 0, 2)
        best = chosen_on.argmax(axis=0)
        lead = seen_on[best, np.arange(SAMPLES)] - seen_on

        def estimate(values: FloatArray) -> Interval:
            low, high = np.quantile(values, [0.025, 0.975])
            return Interval(float(values.mean()), float(low), float(high))

        return {
            "chosen": {rho: float((best == n).mean()) for n, rho in enumerate(rhos)},
            "over lowest": estimate(lead[0]),
            "over highest": estimate(lead[-1]),
        }


def _generator(condition: str, rho: str) -> np.random.Generator:
    """Return the generator of the draws of seeds of a group; groups draw independently."""
    return np.random.default_rng([*f"{condition}/{rho}".encode()])


def main(argv: Sequence[str] | None = None) -> int:
    """Gather sweeps; 2 if one cannot be read."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True, help="folder of the clips")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        for sweep in given.sweep:
            print(f"{sweep}: {gather(sweep, given.data, given.out)} runs")
    except RFKerasError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
