"""The runs of a sweep, in processes that do one after another: train, score the extra tests.

`run_jobs` starts and watches the processes. Each of them runs this module:

    python -m rfkeras.experiments.sweep_run RUN_FOLDER [RUN_FOLDER ...] [--wait]

It imports TensorFlow once for all of its runs. Each run starts with a new Keras session, so its
results are those of a process of its own. What a run prints is appended to its output.txt. When
a run ends, its status and folder are printed: done, failed or elsewhere. With `--wait`, further
folders are read from standard input until it closes.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.experiments.sweep import (
    TEST_RECORD,
    Job,
    features_dir,
    plan_jobs,
    prepare_job,
    read_extra_tests,
    report_file,
)
from rfkeras.training.launch import (
    LOG,
    last_line,
    slot_environments,
    start_child,
    visible_gpus,
)
from rfkeras.training.run_dir import RunFolder
from rfkeras.utils.files import try_exclusive, write_text
from rfkeras.utils.processes import (
    INTERRUPTED,
    describe_status,
    obey_parent,
    send_line,
    send_signal,
)
from rfkeras.utils.progress import print_status
from rfkeras.utils.text import count as counted
from rfkeras.utils.user_code import import_user_code

if TYPE_CHECKING:
    from rfkeras.experiments.sweep_report import Point

DONE, FAILED, ELSEWHERE = "done", "failed", "elsewhere"
_OUTPUT, _ERRORS = 1, 2  # file descriptors, to which TensorFlow also prints
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class RunOutcome:
    """The outcome of a run.

    Attributes:
        job: The run.
        status: "done", "failed", or "elsewhere" if another process works on it.
        seconds: How long it took.
        reason: Last line of its output, if it failed.
    """

    job: Job
    status: str
    seconds: float
    reason: str = ""


def default_jobs() -> int:
    """Return the default number of simultaneous runs: one per GPU, or one."""
    return max(1, len(visible_gpus()))


def sweep(
    rho: Any,
    *,
    seeds: int | str = 1,
    variants: str | None = None,
    output: str | Path = "sweep",
    jobs: int | None = None,
    recipe: str | None = None,
    **options: Any,
) -> list[Point]:
    """Train at several receptive fields and compare: `rfkeras sweep`.

    The runs are processes of their own, so models, losses and data sets are given by name;
    those of your own are registered in a file that was imported with
    `rfkeras.utils.user_code.import_user_code`. Finished runs are not trained again.

    Args:
        rho: Values of rho: a list, or text as for the command, such as "0:12:4".
        seeds: Number of seeds.
        variants: Variants, separated by commas, such as "plain,shake".
        output: Folder of the sweep, with tables, plot and runs.
        jobs: Number of runs at a time; None: one per GPU, or one.
        recipe: Name or path of a recipe.
        **options: Options of the runs, such as model, dataset and epochs.

    Returns:
        Results by test, variant and rho.

    Raises:
        ConfigError: An option is wrong.
        RFKerasError: A run failed; finished runs are kept.

    Example:
        >>> points = rfkeras.sweep([0, 4, 8], seeds=2, dataset="folder", data_dir="mysounds")
        >>> [(point.rho, point.mAP) for point in points]
    """
    from rfkeras.experiments.sweep_report import finished_runs, write_results

    text = rho if isinstance(rho, str) else ",".join(map(str, rho))
    own = {"rho": text, "seeds": str(seeds), "variants": variants}
    planned = plan_jobs(own, options, recipe, Path(output))
    failed: list[RunOutcome] = []

    def on_end(outcome: RunOutcome) -> None:
        print_status(
            f"{outcome.job.run.name}: {outcome.status}, {outcome.seconds / 60:.1f} min"
        )
        if outcome.status == FAILED:
            failed.append(outcome)

    run_jobs(planned, default_jobs() if jobs is None else jobs, on_end)
    if failed:
        first = failed[0]
        raise RFKerasError(
            f"{counted(len(failed), 'run')} failed, the first with: {first.reason} (see "
            f"{first.job.folder.root}/{LOG}). Call sweep again to repeat it."
        )
    points, _ = write_results(Path(output), planned, finished_runs(planned))
    return points


def run_jobs(jobs: Sequence[Job], count: int, on_end: Callable[[RunOutcome], None]) -> None:
    """Run the jobs that are not done. A failed run does not stop the others.

    Args:
        jobs: The runs, started in this order.
        count: Number of simultaneous processes.
        on_end: Called whenever a run ends.

    Raises:
        ConfigError: `count` is not positive, or a folder holds another run.
        KeyboardInterrupt: Ctrl-C. All processes have saved their state and ended.
    """
    if count < 1:
        raise ConfigError(f"--jobs must be at least 1. Received: {count}.")
    for job in jobs:
        prepare_job(job)
    slots = slot_environments(count, visible_gpus(), os.cpu_count() or 1)
    waiting = [job for job in jobs if not job.is_done]
    running: dict[int, _RunProcess] = {}
    try:
        while waiting or running:
            for slot, environment in enumerate(slots):
                if slot not in running and waiting:
                    running[slot] = _RunProcess(waiting.pop(0), environment)
            time.sleep(_POLL_SECONDS)
            for slot, process in list(running.items()):
                outcome = process.outcome()
                if outcome is None:
                    continue
                on_end(outcome)
                # After an error a process may lack memory, for example.
                if waiting and process.is_alive and outcome.status != FAILED:
                    process.begin(waiting.pop(0))
                else:
                    running.pop(slot).end()
    finally:
        for process in running.values():  # none, unless interrupted
            process.interrupt()
        for process in running.values():
            process.end()


class _RunProcess:
    """A process that does one run after another."""

    def __init__(self, job: Job, environment: dict[str, str]) -> None:
        self._process = start_child(
            "rfkeras.experiments.sweep_run",
            job.folder,
            environment,
            options=["--wait"],
            piped=True,
        )
        self._statuses: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._job, self._started = job, time.monotonic()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._statuses.put(line.decode().split()[0])

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def begin(self, job: Job) -> None:
        """Begin the next run."""
        (job.folder.root / LOG).touch()
        self._job, self._started = job, time.monotonic()
        send_line(self._process, str(job.folder.root))

    def outcome(self) -> RunOutcome | None:
        """Return how the run ended; None while it runs."""
        if not self.is_alive:
            self._reader.join()  # the last status may still be in the pipe
        elif self._statuses.empty():
            return None
        seconds = time.monotonic() - self._started
        status = FAILED if self._statuses.empty() else self._statuses.get()
        if status == ELSEWHERE or (status == DONE and self._job.is_done):
            return RunOutcome(self._job, status, seconds)
        ended = self._process.returncode
        reason = last_line(self._job.folder)
        reason = reason or ("no output" if ended is None else describe_status(ended))
        return RunOutcome(self._job, FAILED, seconds, reason)

    def interrupt(self) -> None:
        """Ask the process to save its state and end."""
        send_signal(self._process, signal.SIGINT)

    def end(self) -> None:
        """Wait until the process has ended. It ends when it waits for a run."""
        send_line(self._process, "")
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()


# The process


def main(arguments: Sequence[str]) -> int:
    """Finish the runs in some folders; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rfkeras.experiments.sweep_run")
    parser.add_argument("folders", nargs="+", type=Path, help="run folders")
    parser.add_argument("--wait", action="store_true", help="read more from standard input")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be inherited as ignored
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    obey_parent(lines.put)
    status = 0
    try:
        with os.fdopen(os.dup(_OUTPUT), "w", encoding="utf-8") as printed:
            for root in _roots(options.folders, lines if options.wait else None):
                ended = _run(RunFolder(root))
                print(ended, root, file=printed, flush=True)
                status = status or int(ended == FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _roots(given: Sequence[Path], lines: queue.SimpleQueue[str] | None) -> Iterator[Path]:
    """Return the given folders, then those from the lines, up to an empty line."""
    yield from given
    while lines is not None and (line := lines.get()):
        yield Path(line)


def _run(folder: RunFolder) -> str:
    """Finish one run; return its status."""
    with _printing_to(folder.root / LOG), try_exclusive(folder.lock) as holder:
        if holder is not None:
            return ELSEWHERE
        try:
            import_user_code()
            _train(folder)
            _score_extra_tests(folder)
        except RFKerasError as error:
            print(f"error: {error}", file=sys.stderr)
            return FAILED
        except Exception:  # noqa: BLE001 - must not stop the other runs
            traceback.print_exc()
            return FAILED
        finally:
            _end_session()
    return DONE


@contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """Append all that is printed in the block to a file, also by native code."""
    with path.open("ab") as file:
        before = [(number, os.dup(number)) for number in (_OUTPUT, _ERRORS)]
        try:
            _redirect([(number, file.fileno()) for number, _ in before])
            yield
        finally:
            _redirect(before)
            for _, copy in before:
                os.close(copy)


def _redirect(descriptors: Sequence[tuple[int, int]]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    for number, target in descriptors:
        os.dup2(target, number)


def _end_session() -> None:
    """Forget the models of a run, and the names that Keras would count on from."""
    if "keras" in sys.modules:
        import keras

        keras.utils.clear_session()
        gc.collect()


def _train(folder: RunFolder) -> None:
    """Train the run, unless it is finished."""
    if folder.is_finished:
        return
    from rfkeras.training.callbacks import Interrupted
    from rfkeras.training.run import train

    try:
        train(folder.read_config(), folder, resume=True, features_dir=features_dir(folder))
    except Interrupted:
        raise KeyboardInterrupt from None


def _score_extra_tests(folder: RunFolder) -> None:
    """Score the extra tests that have no report yet."""
    from rfkeras.evaluation.report import write_report
    from rfkeras.training.scoring import score_model

    for test in read_extra_tests(folder):
        report = report_file(folder, test)
        if report.exists():
            continue
        record = json.dumps(dataclasses.asdict(test), indent=2) + "\n"
        write_text(report.with_name(TEST_RECORD), record)
        config = test.config_for(folder.read_config())
        scored = score_model(
            folder.model,
            config,
            test.split,
            report.with_name("bad_files.csv"),
            trained_in=folder,
            bootstrap_samples=0,  # the sweep resamples all of its runs together
        )
        arrays = (scored.scores, scored.labels, scored.mask)
        write_report(scored.report, report.parent, *arrays, keys=scored.keys)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1:]))
