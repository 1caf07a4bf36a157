"""Judge a soak test, and write its table, picture, summary and page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.report import machine_line, table
from benchmarks.soak_jobs import CHECKPOINT_STEPS, MODEL, Outcome
from benchmarks.soak_watch import Sample, Trace
from benchmarks.suite import Row
from rfkeras.utils.files import write_text
from rfkeras.utils.plotting import BLUE, ORANGE, new_figure, save_png, style_axes

SUMMARY, PICTURE = "soak.json", "soak.png"
TRAINING_MB_PER_HOUR = 10.0
TAGGING_MB_PER_1000 = 5.0
WARM_UP = 0.25  # share of the time or of the files that is not judged
_QUANTITIES = {"rss_mb": "resident memory", "anonymous_mb": "allocated memory"}

_PAGE = """# Soak test

Written by `python -m benchmarks.soak --page DIR` from the results of
`python -m benchmarks.soak --hours 2 --files 5000 --output DIR`.

{table}

{verdict}

![Memory of both jobs over time](../benchmarks/{picture})

**Training** runs `train.py --model {model}` on {clips:,} clips of the built-in data set with
its default recipe. It validates after each epoch, and saves a checkpoint every
{checkpoint_steps} steps and after each epoch. Ctrl-C ended it with status 130, and a second
process resumed from the checkpoint for one more epoch.

**Tagging** runs `rfkeras tag FOLDER --output tags.jsonl` with
`{model}`. The {files:,} files are copies of the same {clips:,} clips under different names, and
each copy is decoded again. Both jobs ran at the same time and shared the machine with other
work, so only memory was measured, not speed.

**What is counted.** The process and its children are sampled from /proc every 10 s (training)
or 0.5 s (tagging). Allocated memory is the part of the resident memory that is not backed by a
file. Growth is the slope of a straight line through all samples after the first quarter. The
first quarter is a warm-up, in which the audio cache fills, TensorFlow traces the model and its
allocator grows. Open files are medians over an eighth of the samples, after the warm-up and at
the end. Files left behind are those in the job's temporary folder (TMPDIR), incomplete files in
its output, and files in /dev/shm that it ever had open.

**What is allowed.** Training may grow by {training_mb:g} MB per hour, which is
{training_bytes:,.0f} bytes per step at this run's speed. Keeping one batch per epoch or a
Python object of 1 kB per step would exceed that. Tagging may grow by {tagging_mb:g} MB per
1,000 files, or 5 kB per file; a decoded clip takes 882 kB. The limits are above zero because
allocators do not return memory immediately, which looks like a slope in short runs.

<small>{machine}</small>
"""


@dataclass(frozen=True)
class Job:
    """A job, and how it is judged.

    Attributes:
        name: Heading of its column.
        outcome: Result of the job.
        unit: Unit of work: "steps" or "files".
        by_time: Measure growth per hour instead of per 1,000 units of work.
        allowed_mb: Growth that is allowed.
    """

    name: str
    outcome: Outcome
    unit: str
    by_time: bool
    allowed_mb: float

    @property
    def per(self) -> str:
        """Unit in which growth is measured."""
        return "hour" if self.by_time else f"1,000 {self.unit}"

    def position(self, sample: Sample) -> float:
        """Return the position of a sample in hours or in thousands of units."""
        return sample.seconds / 3600 if self.by_time else sample.done / 1000

    @property
    def steady(self) -> list[Sample]:
        """Samples after the warm-up."""
        samples = self.outcome.trace.samples
        begin = WARM_UP * max(map(self.position, samples), default=0.0)
        return [sample for sample in samples if self.position(sample) >= begin]

    def growth_mb(self, quantity: str) -> float | None:
        """Fit a straight line to memory after the warm-up.

        Args:
            quantity: "rss_mb" or "anonymous_mb".

        Returns:
            Slope in MB per unit of `per`, or None if there are too few samples.
        """
        positions = np.array([self.position(sample) for sample in self.steady])
        if len(set(positions)) < 3:
            return None
        values = [getattr(sample, quantity) for sample in self.steady]
        return float(np.polyfit(positions - positions[0], values, 1)[0])

    def descriptors(self) -> tuple[float, float]:
        """Return the median number of open files after the warm-up and at the end."""
        counts = [sample.descriptors for sample in self.steady] or [0]
        eighth = max(1, len(counts) // 8)
        return median(counts[:eighth]), median(counts[-eighth:])

    def faults(self, *, judge_growth: bool = True) -> list[str]:
        """Return the problems, one line each."""
        outcome, found = self.outcome, []
        if outcome.status != outcome.expected:
            found.append(f"exit status {outcome.status} instead of {outcome.expected}")
        if outcome.left:
            found.append(
                f"{len(outcome.left)} temporary files left, for example {outcome.left[0]}"
            )
        if outcome.done != outcome.wanted and outcome.wanted is not None:
            found.append(f"{outcome.done:,} of {outcome.wanted:,} {self.unit} done")
        if outcome.expected and not outcome.resumed:
            found.append("a second process could not resume the interrupted run")
        if judge_growth:
            found += self._growth()
        return [f"{self.name}: {fault}" for fault in found]

    def _growth(self) -> list[str]:
        found = []
        for quantity, name in _QUANTITIES.items():
            growth = self.growth_mb(quantity)
            if growth is None:
                found.append(f"too few samples to measure the growth of {name}")
            elif growth > self.allowed_mb:
                found.append(
                    f"{name} grew by {growth:.1f} MB per {self.per} "
                    f"(allowed: {self.allowed_mb:g})"
                )
        after, end = self.descriptors()
        if end > after:
            found.append(f"{end:g} open files at the end, but {after:g} after the warm-up")
        return found


def jobs_of(outcomes: Mapping[str, Outcome]) -> list[Job]:
    """Return the jobs for the outcomes of "training" and "tagging"."""
    return [
        Job("training", outcomes["training"], "steps", True, TRAINING_MB_PER_HOUR),
        Job("tagging", outcomes["tagging"], "files", False, TAGGING_MB_PER_1000),
    ]


def rows(jobs: Sequence[Job]) -> list[Row]:
    """Return the table: one row per quantity, one column per job."""
    columns = [_column(job) for job in jobs]
    return [
        {"": name} | {job.name: column[name] for job, column in zip(jobs, columns, strict=True)}
        for name in columns[0]
    ]


def _column(job: Job) -> dict[str, str]:
    steady = job.steady or [Sample(*[0] * 9)]
    resident = [sample.rss_mb for sample in steady]
    after, end = job.descriptors()
    threads = [sample.threads for sample in steady]
    growth = {name: job.growth_mb(quantity) for quantity, name in _QUANTITIES.items()}
    return {
        "time": f"{steady[-1].seconds / 60:,.0f} min",
        "work done": f"{job.outcome.done:,} {job.unit}",
        "samples": f"{len(job.outcome.trace.samples):,}",
        "resident memory after the warm-up": f"{resident[0]:,.0f} MB",
        "resident memory at the end": f"{resident[-1]:,.0f} MB",
        "peak resident memory": f"{max(resident):,.0f} MB",
        **{
            f"growth of {name}": "-" if mb is None else f"{mb:+.2f} MB per {job.per}"
            for name, mb in growth.items()
        },
        "allowed growth": f"{job.allowed_mb:g} MB per {job.per}",
        "open files (after the warm-up, at the end)": f"{after:g}, {end:g}",
        "threads (min to max)": f"{min(threads)} to {max(threads)}",
        "processes (max)": f"{max(sample.processes for sample in steady)}",
        "temporary files (max at a time)": f"{max(sample.temporary for sample in steady)}",
        "temporary files left": f"{len(job.outcome.left)}",
        "exit status": f"{job.outcome.status}",
    }


def draw(jobs: Sequence[Job], path: Path) -> None:
    """Plot the memory of each job over time, with the warm-up in grey."""
    key = "MB (grey: warm-up, not judged)"
    figure = new_figure(4.2 * len(jobs), 3.2, "Memory of long jobs", key)
    panels = figure.subplots(1, len(jobs), squeeze=False)[0]
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.16, top=0.76, wspace=0.22)
    for panel, job in zip(panels, jobs, strict=True):
        style_axes(panel)
        samples = job.outcome.trace.samples
        positions = [job.position(sample) for sample in samples]
        for quantity, colour in zip(_QUANTITIES, (BLUE, ORANGE), strict=True):
            values = [getattr(sample, quantity) for sample in samples]
            panel.plot(
                positions, values, color=colour, linewidth=1, label=_QUANTITIES[quantity]
            )
        panel.axvspan(0, WARM_UP * max(positions, default=0.0), color="0.93", zorder=0)
        panel.set_ylim(0, 1.2 * max((sample.rss_mb for sample in samples), default=1.0))
        panel.set_xlim(left=0)
        panel.set_xlabel("hours" if job.by_time else f"thousands of {job.unit}", fontsize=8)
        panel.set_title(job.name, fontsize=9, loc="left")
    panels[0].legend(frameon=False, fontsize=8, loc="lower right")
    save_png(figure, path)


def write_summary(
    path: Path,
    outcomes: Mapping[str, Outcome],
    faults: Sequence[str],
    clips: int,
    machine: dict[str, Any],
) -> None:
    """Write the results of a soak test as JSON.

    Args:
        path: File to write.
        outcomes: Outcomes of "training" and "tagging", including samples.
        faults: Problems, one line each.
        clips: Number of audio files used for training.
        machine: Result of `describe_machine`.
    """
    found = {name: asdict(outcome) for name, outcome in outcomes.items()}
    for outcome in found.values():
        outcome["trace"]["shared_files"] = sorted(outcome["trace"]["shared_files"])
    content = {"machine": machine, "clips": clips, "faults": list(faults), "jobs": found}
    write_text(path, json.dumps(content) + "\n")


def read_outcomes(summary: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return the outcomes in a summary."""
    result = {}
    for name, job in summary["jobs"].items():
        trace = Trace(
            [Sample(**sample) for sample in job["trace"]["samples"]],
            set(job["trace"]["shared_files"]),
        )
        result[name] = Outcome(**{**job, "trace": trace})
    return result


def write_page(folder: Path, docs: Path) -> Path:
    """Write the page of a soak test and its picture.

    Args:
        folder: Output folder of the soak test.
        docs: Folder for `robustness/soak.md` and `benchmarks/soak.png`.

    Returns:
        Path of the page.
    """
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    outcomes = read_outcomes(summary)
    jobs = jobs_of(outcomes)
    training, tagging = outcomes["training"], outcomes["tagging"]
    steps_per_hour = training.done / (training.trace.samples[-1].seconds / 3600)
    faults = [fault for job in jobs for fault in job.faults()]
    text = _PAGE.format(
        table=table(rows(jobs)),
        verdict="\n".join(f"- **{fault}**" for fault in faults)
        or "No growth beyond the limits, and no files left.",
        picture=PICTURE,
        model=MODEL,
        clips=summary["clips"],
        checkpoint_steps=CHECKPOINT_STEPS,
        files=tagging.wanted,
        training_mb=TRAINING_MB_PER_HOUR,
        training_bytes=1e6 * TRAINING_MB_PER_HOUR / steps_per_hour,
        tagging_mb=TAGGING_MB_PER_1000,
        machine=machine_line(summary["machine"]),
    )
    draw(jobs, docs / "benchmarks" / PICTURE)
    page = docs / "robustness" / "soak.md"
    write_text(page, text)
    return page
