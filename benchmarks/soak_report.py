"""Whether a soak was flat: the fit, the checks, the table and the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.soak_jobs import Outcome
from benchmarks.soak_watch import Sample
from benchmarks.suite import Row
from rfkeras.utils.plotting import BLUE, GREY, ORANGE, bare, label, new_figure, save_png

TRAINING_MB_AN_HOUR = 10.0
TAGGING_MB_PER_1000 = 5.0
WARM_UP = 0.25  # share of the time, or of the files, that is not judged
_QUANTITIES = {"rss_mb": "resident memory", "anonymous_mb": "allocated memory"}


@dataclass(frozen=True)
class Job:
    """What is judged of a job.

    Attributes:
        name: Heading of its column.
        outcome: How it went.
        unit: Of its work: "steps", "files".
        by_time: Whether growth is told by the hour, not by 1,000 units of work.
        allowed_mb: Growth that counts as none.
    """

    name: str
    outcome: Outcome
    unit: str
    by_time: bool
    allowed_mb: float

    @property
    def per(self) -> str:
        """Of what growth is told."""
        return "an hour" if self.by_time else f"1,000 {self.unit}"

    def place(self, sample: Sample) -> float:
        """Where on the way a sample was taken: hours, or thousands of units."""
        return sample.seconds / 3600 if self.by_time else sample.done / 1000

    @property
    def steady(self) -> list[Sample]:
        """The samples after the warm-up."""
        samples = self.outcome.trace.samples
        begin = WARM_UP * max(map(self.place, samples), default=0.0)
        return [sample for sample in samples if self.place(sample) >= begin]

    def growth_mb(self, quantity: str) -> float | None:
        """Slope of the straight line through memory after the warm-up.

        Args:
            quantity: "rss_mb" or "anonymous_mb".

        Returns:
            MB by `per`; None if there are too few samples for a line.
        """
        places = np.array([self.place(sample) for sample in self.steady])
        if len(set(places)) < 3:
            return None
        values = [getattr(sample, quantity) for sample in self.steady]
        return float(np.polyfit(places - places[0], values, 1)[0])

    def descriptors(self) -> tuple[float, float]:
        """Median number of open files after the warm-up and at the end: an eighth each."""
        counts = [sample.descriptors for sample in self.steady] or [0]
        eighth = max(1, len(counts) // 8)
        return median(counts[:eighth]), median(counts[-eighth:])

    def faults(self, *, judge_growth: bool = True) -> list[str]:
        """What is not as it should be, a line each."""
        outcome, found = self.outcome, []
        if outcome.status != outcome.expected:
            found.append(f"exit status {outcome.status}, not {outcome.expected}")
        if outcome.left:
            found.append(f"{len(outcome.left)} temporary files left, {outcome.left[0]} first")
        if outcome.done != outcome.wanted and outcome.wanted is not None:
            found.append(f"{outcome.done:,} of {outcome.wanted:,} {self.unit}")
        if outcome.expected and not outcome.resumed:
            found.append("a second process did not go on where this one was interrupted")
        if judge_growth:
            found += self._growth()
        return [f"{self.name}: {fault}" for fault in found]

    def _growth(self) -> list[str]:
        found = []
        for quantity, name in _QUANTITIES.items():
            growth = self.growth_mb(quantity)
            if growth is None:
                found.append(f"too few samples to tell the growth of {name}")
            elif growth > self.allowed_mb:
                found.append(
                    f"{name} grew by {growth:.1f} MB {self.per}, allowed {self.allowed_mb:g}"
                )
        after, end = self.descriptors()
        if end > after:
            found.append(f"{end:g} open files at the end, {after:g} after the warm-up")
        return found


def jobs_of(outcomes: Mapping[str, Outcome]) -> list[Job]:
    """What is judged of the outcomes of "training" and "tagging"."""
    return [
        Job("training", outcomes["training"], "steps", True, TRAINING_MB_AN_HOUR),
        Job("tagging", outcomes["tagging"], "files", False, TAGGING_MB_PER_1000),
    ]


def rows(jobs: Sequence[Job]) -> list[Row]:
    """The table: a line a quantity, a column a job."""
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
        "at the end": f"{resident[-1]:,.0f} MB",
        "largest": f"{max(resident):,.0f} MB",
        **{
            f"growth of {name}": "-" if mb is None else f"{mb:+.2f} MB {job.per}"
            for name, mb in growth.items()
        },
        "growth that is allowed": f"{job.allowed_mb:g} MB {job.per}",
        "open files after the warm-up, at the end": f"{after:g}, {end:g}",
        "threads, least to most": f"{min(threads)} to {max(threads)}",
        "processes, most": f"{max(sample.processes for sample in steady)}",
        "temporary files, most at once": f"{max(sample.temporary for sample in steady)}",
        "temporary files left": f"{len(job.outcome.left)}",
        "exit status": f"{job.outcome.status}",
    }


def draw(jobs: Sequence[Job], path: Path) -> None:
    """A panel for each job: its memory along the way, the warm-up in grey."""
    figure = new_figure(4.2 * len(jobs), 3.2)
    panels = figure.subplots(1, len(jobs), squeeze=False)[0]
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.16, top=0.76, wspace=0.22)
    for panel, job in zip(panels, jobs, strict=True):
        bare(panel)
        samples = job.outcome.trace.samples
        places = [job.place(sample) for sample in samples]
        for quantity, colour in zip(_QUANTITIES, (BLUE, ORANGE), strict=True):
            values = [getattr(sample, quantity) for sample in samples]
            panel.plot(places, values, color=colour, linewidth=1, label=_QUANTITIES[quantity])
        panel.axvspan(0, WARM_UP * max(places, default=0.0), color="0.93", zorder=0)
        panel.set_ylim(0, 1.2 * max((sample.rss_mb for sample in samples), default=1.0))
        panel.set_xlim(left=0)
        panel.set_xlabel("hours" if job.by_time else f"thousands of {job.unit}", fontsize=8)
        panel.set_title(job.name, fontsize=9, loc="left")
    panels[0].legend(frameon=False, fontsize=8, loc="lower right")
    label(figure, 0.02, 0.98, "Memory of long jobs", 10, bold=True)
    label(figure, 0.02, 0.91, "MB; grey: warm-up, not judged", 8, colour=GREY)
    save_png(figure, path)
