"""The files of a soak: its summary, and the page of the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.report import machine_line, table
from benchmarks.soak_jobs import CHECKPOINT_STEPS, MODEL, Outcome
from benchmarks.soak_report import TAGGING_MB_PER_1000, TRAINING_MB_AN_HOUR, draw, jobs_of, rows
from benchmarks.soak_watch import Sample, Trace
from rfkeras.utils.files import write_text

SUMMARY, PICTURE = "soak.json", "soak.png"

_PAGE = """# Soak: hours of work, flat memory

Written by `python -m benchmarks.soak --page DIR` from what
`python -m benchmarks.soak --hours 2 --files 5000 --output DIR` measured.

{table}

{verdict}

![Memory of both jobs along the way](../benchmarks/{picture})

**Training** is `train.py --model {model}` on {clips:,} clips of the embedded data set, by its
own recipe, validated each epoch, a checkpoint every {checkpoint_steps} steps and at each
epoch's end. It was ended by Ctrl-C: status 130, and a second process went on from the
checkpoint for one epoch more. **Tagging** is `rfkeras tag FOLDER --output tags.jsonl`, with
`{model}`; the {files:,} files are the same {clips:,} clips under other names, and each is
decoded anew. Both ran at the same time, and nothing kept other work off the machine: memory is
what was measured, not speed.

**What is counted**: the process and its children, from /proc, every 10 s (training) and 0.5 s
(tagging). Allocated memory is the part of the resident one that no file stands behind. Growth
is the slope of the straight line through all samples after the first quarter, which is the
warm-up: the audio cache fills, TensorFlow traces, its allocator finds its size. Open files are
medians over an eighth of the samples, after the warm-up and at the end. "Left" are files in
the job's folder for temporary files (TMPDIR), half-written ones in its output, and those in
/dev/shm that it ever held open.

**What is allowed**: {training_mb:g} MB an hour for training, {training_bytes:,.0f} bytes a
step at this run's speed; one batch that is kept each epoch, or a Python object of 1 kB each
step, is more. {tagging_mb:g} MB for 1,000 files, 5 kB each; a decoded clip has 882 kB. The
allowance is not zero because allocators give memory back when they like: it is seen on a short
time as a slope that longer runs do not have.

<small>{machine}</small>
"""


def write_summary(
    path: Path,
    outcomes: Mapping[str, Outcome],
    faults: Sequence[str],
    clips: int,
    machine: dict[str, Any],
) -> None:
    """Write all that a soak found, as JSON.

    Args:
        path: The file.
        outcomes: Of "training" and "tagging", samples included.
        faults: What is not as it should be.
        clips: Number of audio files that were trained on.
        machine: Of `describe_machine`.
    """
    found = {name: asdict(outcome) for name, outcome in outcomes.items()}
    for outcome in found.values():
        outcome["trace"]["shared_files"] = sorted(outcome["trace"]["shared_files"])
    content = {"machine": machine, "clips": clips, "faults": list(faults), "jobs": found}
    write_text(path, json.dumps(content) + "\n")


def read_outcomes(summary: Mapping[str, Any]) -> dict[str, Outcome]:
    """The outcomes in a summary."""
    result = {}
    for name, job in summary["jobs"].items():
        trace = Trace(
            [Sample(**sample) for sample in job["trace"]["samples"]],
            set(job["trace"]["shared_files"]),
        )
        result[name] = Outcome(**{**job, "trace": trace})
    return result


def write_page(folder: Path, docs: Path) -> Path:
    """Write the page of a soak, and its picture.

    Args:
        folder: Output of the soak.
        docs: Gets `robustness/soak.md` and `benchmarks/soak.png`.

    Returns:
        The page.
    """
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    outcomes = read_outcomes(summary)
    jobs = jobs_of(outcomes)
    training, tagging = outcomes["training"], outcomes["tagging"]
    steps_an_hour = training.done / (training.trace.samples[-1].seconds / 3600)
    faults = [fault for job in jobs for fault in job.faults()]
    text = _PAGE.format(
        table=table(rows(jobs)),
        verdict="\n".join(f"- **{fault}**" for fault in faults)
        or "Nothing grew more than allowed, and nothing was left.",
        picture=PICTURE,
        model=MODEL,
        clips=summary["clips"],
        checkpoint_steps=CHECKPOINT_STEPS,
        files=tagging.wanted,
        training_mb=TRAINING_MB_AN_HOUR,
        training_bytes=1e6 * TRAINING_MB_AN_HOUR / steps_an_hour,
        tagging_mb=TAGGING_MB_PER_1000,
        machine=machine_line(summary["machine"]),
    )
    draw(jobs, docs / "benchmarks" / PICTURE)
    page = docs / "robustness" / "soak.md"
    write_text(page, text)
    return page
