"""The two long jobs: training until Ctrl-C, and tagging a folder of many files."""

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

from benchmarks.launch import start_python
from benchmarks.soak_watch import Process, Trace, left_behind, watch

ROOT = Path(__file__).parents[1]
MODEL = "resnet_rf_tiny"
CHECKPOINT_STEPS = 300
INTERRUPTED = 130
SECONDS_TO_END = 420.0

Start = Callable[[Sequence[str], Path, Path], Process]


@dataclass(frozen=True)
class Plan:
    """How long to soak, and on what.

    Attributes:
        output: Folder of everything that is written.
        train_seconds: Time of training, from the end of its first epoch.
        files: Number of files to tag.
        data: Options of `train.py` that name the data set.
        clips: Its audio.
        train_every_seconds: Between two samples of the training.
        tag_every_seconds: And of the tagging.
        start: Starts `python ARGUMENTS`, printing to a file, with a folder as its TMPDIR.
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
    """A job that has ended.

    Attributes:
        trace: What it held while it ran.
        status: Exit status.
        expected: The one that it should have.
        left: Temporary files left behind.
        done: Units of work: steps, files.
        wanted: How many it should have done; None if it was to be interrupted.
        resumed: Whether a second process went on where this one was interrupted.
    """

    trace: Trace
    status: int | None
    expected: int
    left: Sequence[str]
    done: int
    wanted: int | None = None
    resumed: bool = False


def start(arguments: Sequence[str], log: Path, temporary: Path) -> Process:
    """Start the interpreter on all processors."""
    with log.open("w", encoding="utf-8") as file:
        return start_python(
            arguments,
            len(os.sched_getaffinity(0)),
            {"TMPDIR": str(temporary)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def soak_training(plan: Plan) -> Outcome:
    """Train for the planned time, interrupt, and see that the run can be resumed."""
    run, temporary = plan.output / "run", _empty(plan.output / "tmp_train")
    arguments = [str(ROOT / "train.py"), "--model", MODEL, "--run-dir", str(run)]
    # More epochs than ever come, so that the run is at work when it is interrupted.
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
    """Whether the run goes on from so many steps, and ends one epoch more."""
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
    went_on = _lines(run / "log.csv") > epochs
    status = _interrupt(process)
    return went_on and status == INTERRUPTED and _steps(run) > steps


def soak_tagging(plan: Plan) -> Outcome:
    """Tag a folder of so many files."""
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
    """So many files of the clips, which come round again under other names."""
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
    """Steps done, as the run's snapshot says; 0 if there is no readable one."""
    from rfkeras.errors import CheckpointError
    from rfkeras.training.run_dir import RunFolder, read_record

    try:
        return int(read_record(RunFolder(run).last)["steps_done"])
    except CheckpointError:
        return 0


def _interrupt(process: Process) -> int | None:
    """Ctrl-C; the exit status, or None if it had to be killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + SECONDS_TO_END
    while process.poll() is None:
        if time.monotonic() > deadline:
            process.send_signal(signal.SIGKILL)
            return None
        time.sleep(0.1)
    return process.poll()
