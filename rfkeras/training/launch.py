"""Several workers on one host, started together and, when one is lost, started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import IO, Any

import rfkeras
from rfkeras.training.callbacks import say
from rfkeras.training.distributed import RESTART_STATUS, VARIABLE, describe
from rfkeras.training.run_dir import RunFolder

LOG = "output.txt"  # in the run's folder: what its process printed
INTERRUPTED = 130  # exit status after Ctrl-C


def start_child(
    module: str, folder: RunFolder, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE FOLDER`; the module must call `end_with_parent`.

    Args:
        module: Full name of the module.
        folder: The run's folder; output is added to its output.txt.
        environment: Variables of its own.
    """
    with (folder.root / LOG).open("a", encoding="utf-8") as output:
        return subprocess.Popen(
            command(module, folder),
            env={**os.environ, "PYTHONPATH": package_path(), **(environment or {})},
            stdin=subprocess.PIPE,  # ends with this process, however that ends
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C comes to it from here, once
        )


def package_path() -> str:
    """PYTHONPATH with which a process finds this package, also where it is not installed."""
    root = str(Path(rfkeras.__file__).parents[1])
    known = os.environ.get("PYTHONPATH")
    return os.pathsep.join([root, known] if known else [root])


def command(module: str, folder: RunFolder) -> list[str]:
    """The command line of a run's process."""
    return [sys.executable, "-m", module, str(folder.root)]


def end_with_parent() -> None:
    """From now on, end this process when its standard input does."""
    threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(INTERRUPTED)


def last_line(folder: RunFolder) -> str:
    """The last line that a run's process printed; "" if none."""
    text = (folder.root / LOG).read_text(encoding="utf-8", errors="replace")
    lines = (line.strip() for line in reversed(text.splitlines()))
    return next((line for line in lines if line), "")


VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if VISIBLE_GPUS in os.environ:
        return [name for name in os.environ[VISIBLE_GPUS].split(",") if name not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False
    )
    gpus = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(gpus))]


def slot_environments(jobs: int, gpus: list[str], cores: int) -> list[dict[str, str]]:
    """What each of so many processes side by side finds in its environment.

    With GPUs they take turns at them; without, each has its share of the cores, for
    TensorFlow would start as many threads as there are cores in every one of them.
    """
    if gpus:
        return [{VISIBLE_GPUS: gpus[slot % len(gpus)]} for slot in range(jobs)]
    if jobs == 1:
        return [{}]
    threads = str(max(1, cores // jobs))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return [dict.fromkeys(names, threads) for _ in range(jobs)]


TERMINATED = 128 + signal.SIGTERM
_POLL_SECONDS = 0.1
_LEAVE_SECONDS = 30.0  # for workers to find out that one is gone
_STOPPING = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


class Launcher:
    """Runs the workers of a job on this host until the job is done.

    A worker that was killed, or lost another, makes all of them start again from the last
    step saved. A worker that ends by an error of its own ends the job: it would come again.

    Args:
        folder: The run's folder, with its configuration.
        count: Workers.
        max_restarts: Times that all workers are started again without a step saved between.
    """

    def __init__(self, folder: RunFolder, count: int, max_restarts: int):
        self.folder = folder
        self.count = count
        self.max_restarts = max_restarts
        self._workers: list[subprocess.Popen[bytes]] = []
        self._stopped_by: int | None = None

    def run(self) -> int:
        """Run the job; returns its exit status, that of the worker which decided it."""
        old = {number: signal.signal(number, self._on_signal) for number in _STOPPING}
        try:
            return self._run()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _run(self) -> int:
        restarts = 0
        while True:
            saved = self._last_saved()
            status = self._run_once()
            if self._stopped_by is not None:
                return _STOPPING[signal.Signals(self._stopped_by)]
            if not _is_lost(status):
                return status
            restarts = 0 if self._last_saved() != saved else restarts + 1
            if restarts > self.max_restarts:
                say(
                    f"The workers were lost {restarts} times without a step saved between; "
                    f"their output is in {self._output(1).parent}."
                )
                return RESTART_STATUS
            say("Starting all workers again, from the last step saved")

    def _run_once(self) -> int:
        """Start all workers and wait for them; the status of the first that failed, or 0."""
        with ExitStack() as stack:
            self._start(stack)
            try:
                return self._wait()
            finally:
                self._end()

    def _start(self, stack: ExitStack) -> None:
        addresses = [f"127.0.0.1:{port}" for port in _free_ports(self.count)]
        environments = _environments(self.count)
        self._workers = []
        for index in range(self.count):
            output: IO[bytes] | None = None  # the chief's is this one's
            if index:
                path = self._output(index)
                path.parent.mkdir(exist_ok=True)
                output = stack.enter_context(path.open("ab"))
            environment = {
                **os.environ,
                **environments[index],
                VARIABLE: describe(addresses, index),
                "PYTHONPATH": package_path(),
            }
            worker = subprocess.Popen(
                command("rfkeras.cli.training_worker", self.folder),
                env=environment,
                stdin=subprocess.PIPE,  # ends with this process, however that ends
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C comes to the chief from here, once
            )
            self._workers.append(worker)

    def _wait(self) -> int:
        while True:
            statuses = [worker.poll() for worker in self._workers]
            failed = [i for i, status in enumerate(statuses) if status]
            if failed:
                return self._first_cause(failed)
            if all(status == 0 for status in statuses):
                return 0
            time.sleep(_POLL_SECONDS)

    def _first_cause(self, failed: Sequence[int]) -> int:
        """Status of the worker that failed by itself, the chief before others."""
        deadline = time.monotonic() + _LEAVE_SECONDS
        # The others follow within seconds; one of them may be the cause.
        while time.monotonic() < deadline and any(w.poll() is None for w in self._workers):
            time.sleep(_POLL_SECONDS)
        ended = [(i, w.returncode) for i, w in enumerate(self._workers) if w.returncode]
        own = [(i, s) for i, s in ended if s != RESTART_STATUS] or ended
        index, status = min(own, key=lambda item: (_is_lost(item[1]), item[0]))
        if self._stopped_by is None:
            say(f"Worker {index} ended with {_spoken(status)}")
            if index and not _is_lost(status):
                say(self._output(index).read_text(encoding="utf-8", errors="replace")[-2000:])
        return status

    def _end(self) -> None:
        """End what still runs."""
        for worker in self._workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
            assert worker.stdin is not None
            worker.stdin.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopped_by is not None or not self._workers:
            self._end()
        self._stopped_by = number
        if self._workers and self._workers[0].poll() is None:
            self._workers[0].send_signal(number)  # the chief saves, and the others follow

    def _last_saved(self) -> int:
        path = self.folder.last
        return path.stat().st_mtime_ns if path.exists() else 0

    def _output(self, index: int) -> Path:
        return self.folder.root / "workers" / f"worker-{index}.txt"


def _is_lost(status: int) -> bool:
    """Whether a worker was killed, or lost another; then all start again."""
    return status < 0 or status == RESTART_STATUS


def _spoken(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def _environments(count: int) -> list[dict[str, str]]:
    """Each worker's share of the machine: its own GPUs, or some of the cores."""
    gpus = visible_gpus()
    if len(gpus) >= count:
        return [{VISIBLE_GPUS: ",".join(gpus[index::count])} for index in range(count)]
    cores = len(os.sched_getaffinity(0))
    return [{VISIBLE_GPUS: "-1"} | own for own in slot_environments(count, [], cores)]


def _free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on at the moment."""
    with ExitStack() as stack:
        sockets: list[Any] = [stack.enter_context(socket.socket()) for _ in range(count)]
        for own in sockets:
            own.bind(("127.0.0.1", 0))
        return [own.getsockname()[1] for own in sockets]
