"""The two jobs of a soak test: training until Ctrl-C, and tagging a folder of many files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from benchmarks.processes import start_python
from benchmarks.soak_watch import Process, Trace, left_behind, watch

ROOT = Path(__file__).parents[1]
MODEL = "resnet_rf_tiny"
CHECKPOINT_STEPS = 300
INTERRUPTED = 130
SECONDS_TO_END = 420.0

Start = Callable[[Sequence[str], Path, Path], Process]


@dataclass(frozen=True)
class Plan:
    """Settings of a soak test.

    Attributes:
        output: Folder for all output.
        train_seconds: Time of training after the end of its first epoch.
        files: Number of files to tag.
        data: Options of `train.py` that select the data set.
        clips: Audio files of the data set.
        train_every_seconds: Interval between two samples of the training process.
        tag_every_seconds: Interval between two samples of the tagging process.
        start: Function that starts `python ARGUMENTS` with a log file and a TMPDIR.
    """

    output: Path
    train_seconds: float
    files: int
    data: Sequence[str]
    clips: Sequence[Path]
    train_every_seconds: float
    tag_every_seconds: float
    start: Start


@dataclass(frozen=True)
class Outcome:
    """The result of a job.

    Attributes:
        trace: Samples of its resources.
        status: Exit status, or None if it was killed.
        expected: Expected exit status.
        left: Temporary files left behind.
        done: Units of work done (steps or files).
        wanted: Units of work expected, or None for a job that is interrupted.
        resumed: Whether a second process resumed the interrupted job.
    """

    trace: Trace
    status: int | None
    expected: int
    left: Sequence[str]
    done: int
    wanted: int | None = None
    resumed: bool = False


def start(arguments: Sequence[str], log: Path, temporary: Path) -> Process:
    """Start Python on all processors."""
    with log.open("w", encoding="utf-8") as file:
        return start_python(
            arguments,
            len(os.sched_getaffinity(0)),
            {"TMPDIR": str(temporary)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def soak_training(plan: Plan) -> Outcome:
    """Train for the planned time, interrupt the run, and check that it can be resumed."""
    run, temporary = plan.output / "run", _empty(plan.output / "tmp_train")
    arguments = [str(ROOT / "train.py"), "--model", MODEL, "--run-dir", str(run)]
    # Enough epochs that the run is still training when it is interrupted.
    arguments += ["--epochs", "1000000", "--checkpoint-steps", str(CHECKPOINT_STEPS)]
    process = plan.start(
        [*arguments, "--no-export", *plan.data], plan.output / "train.log", temporary
    )
    began: list[float] = []

    def epochs() -> int:
        done = _lines(run / "log.csv") - 1
        if done > 0 and not began:
            began.append(time.monotonic())
        return max(0, done)

    trace = watch(
        process,
        every_seconds=plan.train_every_seconds,
        done=epochs,
        is_enough=lambda _: bool(began) and time.monotonic() - began[0] > plan.train_seconds,
        temporary=temporary,
        table=plan.output / "train.csv",
    )
    status = _interrupt(process)
    left = left_behind(trace, temporary, run)
    steps = _steps(run)
    resumed = status == INTERRUPTED and steps > 0 and _resume(plan, run, steps)
    return Outcome(trace, status, INTERRUPTED, left, steps, resumed=resumed)


def _resume(plan: Plan, run: Path, steps: int) -> bool:
    """Return whether the run resumes after these steps and finishes one more epoch."""
    epochs = _lines(run / "log.csv")
    temporary = _empty(plan.output / "tmp_resume")
    process = plan.start(
        [str(ROOT / "train.py"), "--resume", str(run)], plan.output / "resume.log", temporary
    )
    deadline = time.monotonic() + SECONDS_TO_END
    while process.poll() is None and _lines(run / "log.csv") == epochs:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    continued = _lines(run / "log.csv") > epochs
    status = _interrupt(process)
    return continued and status == INTERRUPTED and _steps(run) > steps


def soak_tagging(plan: Plan) -> Outcome:
    """Tag a folder with the planned number of files."""
    audio = plan.output / "audio"
    _fill(audio, plan.clips, plan.files)
    tags, temporary = (
        _empty(plan.output / "tags") / "tags.jsonl",
        _empty(plan.output / "tmp_tag"),
    )
    arguments = [
        "-m",
        "rfkeras.cli",
        "tag",
        str(audio),
        "--output",
        str(tags),
        "--model",
        MODEL,
    ]
    process = plan.start(arguments, plan.output / "tag.log", temporary)
    trace = watch(
        process,
        every_seconds=plan.tag_every_seconds,
        done=lambda: _lines(tags),
        is_enough=lambda _: False,
        temporary=temporary,
        table=plan.output / "tag.csv",
    )
    outcome = Outcome(
        trace,
        process.poll(),
        0,
        left_behind(trace, temporary, tags.parent),
        _lines(tags),
        wanted=plan.files,
    )
    shutil.rmtree(audio)
    return outcome


def _fill(folder: Path, clips: Sequence[Path], count: int) -> None:
    """Fill a folder with copies of the clips, repeating them under different names."""
    _empty(folder)
    for number, clip in enumerate(islice(cycle(clips), count)):
        shutil.copyfile(clip, folder / f"{number:05d}{clip.suffix}")


def _empty(folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def _lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _steps(run: Path) -> int:
    """Return the steps done according to the checkpoint, or 0 if there is none."""
    from rfkeras.errors import CheckpointError
    from rfkeras.training.run_dir import RunFolder, read_record

    try:
        return int(read_record(RunFolder(run).last)["steps_done"])
    except CheckpointError:
        return 0


def _interrupt(process: Process) -> int | None:
    """Send Ctrl-C; return the exit status, or None if the process had to be killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + SECONDS_TO_END
    while process.poll() is None:
        if time.monotonic() > deadline:
            process.send_signal(signal.SIGKILL)
            return None
        time.sleep(0.1)
    return process.poll()
