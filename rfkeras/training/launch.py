"""Child processes: whole runs, and the workers of one run on this host."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import IO, Any

from rfkeras.training.distributed import RESTART_STATUS, VARIABLE, tf_config
from rfkeras.training.run_dir import RunFolder
from rfkeras.utils.processes import (
    DETACHED,
    INTERRUPTED,
    describe_status,
    package_path,
    send_signal,
    usable_cores,
    was_killed,
)
from rfkeras.utils.progress import print_status

LOG = "output.txt"  # output of the run's process, in the run's folder
TERMINATED = 128 + signal.SIGTERM
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
_POLL_SECONDS = 0.1
_LEAVE_SECONDS = 30.0  # time for workers to notice that another one has ended
_STOPPING = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


# One run in a child process


def start_child(
    module: str,
    folder: RunFolder,
    environment: Mapping[str, str] | None = None,
    *,
    options: Sequence[str] = (),
    piped: bool = False,
) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE FOLDER OPTIONS`. The module must call `obey_parent`.

    Args:
        module: Full name of the module.
        folder: The run's folder. Output is appended to its output.txt.
        environment: Additional environment variables.
        options: Options of the module.
        piped: Keep standard output, but not errors, in a pipe to this process.
    """
    with (folder.root / LOG).open("a", encoding="utf-8") as output:
        return subprocess.Popen(
            [*command(module, folder), *options],
            env={**os.environ, "PYTHONPATH": package_path(), **(environment or {})},
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends
            stdout=subprocess.PIPE if piped else output,
            stderr=output,
            **DETACHED,  # this process forwards Ctrl-C
        )


def command(module: str, folder: RunFolder) -> list[str]:
    """Return the command line of a run's process."""
    return [sys.executable, "-m", module, str(folder.root)]


def last_line(folder: RunFolder) -> str:
    """Return the last line that a run's process printed; "" if there is none."""
    text = (folder.root / LOG).read_text(encoding="utf-8", errors="replace")
    lines = (line.strip() for line in reversed(text.splitlines()))
    return next((line for line in lines if line), "")


# Shares of this machine


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
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
    """Return environment variables for processes that run at the same time.

    The GPUs are assigned to the processes in turn. Without GPUs, each process gets a share
    of the cores; otherwise TensorFlow would start one thread per core in each of them.

    Args:
        jobs: Number of processes.
        gpus: GPUs, from `visible_gpus`.
        cores: Number of cores.
    """
    if gpus:
        return [{VISIBLE_GPUS: gpus[slot % len(gpus)]} for slot in range(jobs)]
    if jobs == 1:
        return [{}]
    threads = str(max(1, cores // jobs))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return [dict.fromkeys(names, threads) for _ in range(jobs)]


def _worker_environments(count: int) -> list[dict[str, str]]:
    """Return each worker's share of the machine: some of the GPUs, or some of the cores."""
    gpus = visible_gpus()
    if len(gpus) >= count:
        return [{VISIBLE_GPUS: ",".join(gpus[index::count])} for index in range(count)]
    shares = slot_environments(count, [], usable_cores())
    return [{VISIBLE_GPUS: "-1"} | own for own in shares]


# Several workers of one run


class Launcher:
    """Runs the workers of a job on this host until the job is done.

    If a worker is killed or loses another one, all workers are restarted from the last saved
    step. If a worker fails with an error, the job ends, because the error would recur.

    Args:
        folder: The run's folder, with its configuration.
        count: Number of workers.
        max_restarts: Restarts without progress before the job ends.
    """

    def __init__(self, folder: RunFolder, count: int, max_restarts: int):
        self.folder = folder
        self.count = count
        self.max_restarts = max_restarts
        self._workers: list[subprocess.Popen[bytes]] = []
        self._stopped_by: int | None = None

    def run(self) -> int:
        """Run the job and return its exit status, that of the worker that determined it."""
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
                print_status(
                    f"Workers were lost {restarts} times without progress. See their output "
                    f"in {self._output(1).parent}."
                )
                return RESTART_STATUS
            print_status("Restarting all workers from the last saved step")

    def _run_once(self) -> int:
        """Start all workers, wait, and return the status of the first that failed, or 0."""
        with ExitStack() as stack:
            self._start(stack)
            try:
                return self._wait()
            finally:
                self._end()

    def _start(self, stack: ExitStack) -> None:
        addresses = [f"127.0.0.1:{port}" for port in _free_ports(self.count)]
        environments = _worker_environments(self.count)
        self._workers = []
        for index in range(self.count):
            output: IO[bytes] | None = None  # the chief prints to this process's output
            if index:
                path = self._output(index)
                path.parent.mkdir(exist_ok=True)
                output = stack.enter_context(path.open("ab"))
            environment = {
                **os.environ,
                **environments[index],
                VARIABLE: tf_config(addresses, index),
                "PYTHONPATH": package_path(),
            }
            worker = subprocess.Popen(
                command("rfkeras.cli.launch", self.folder),
                env=environment,
                stdin=subprocess.PIPE,  # closed when this process ends, however it ends
                stdout=output,
                stderr=output,
                **DETACHED,  # this process forwards Ctrl-C to the chief
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
        """Return the status of a worker that failed on its own, preferably the chief's."""
        deadline = time.monotonic() + _LEAVE_SECONDS
        # The other workers end within seconds. One of them may have failed first.
        while time.monotonic() < deadline and any(w.poll() is None for w in self._workers):
            time.sleep(_POLL_SECONDS)
        ended = [(i, w.returncode) for i, w in enumerate(self._workers) if w.returncode]
        own = [(i, s) for i, s in ended if s != RESTART_STATUS] or ended
        index, status = min(own, key=lambda item: (_is_lost(item[1]), item[0]))
        if self._stopped_by is None:
            print_status(f"Worker {index} ended with {describe_status(status)}")
            if index and not _is_lost(status):
                output = self._output(index).read_text(encoding="utf-8", errors="replace")
                print_status(output[-2000:])
        return status

    def _end(self) -> None:
        """Kill the workers that are still running."""
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
            send_signal(self._workers[0], number)  # the chief saves; then the others end

    def _last_saved(self) -> int:
        path = self.folder.last
        return path.stat().st_mtime_ns if path.exists() else 0

    def _output(self, index: int) -> Path:
        return self.folder.root / "workers" / f"worker-{index}.txt"


def _is_lost(status: int) -> bool:
    """Return whether a worker was killed or lost another, so that all must restart."""
    return was_killed(status) or status == RESTART_STATUS


def _free_ports(count: int) -> list[int]:
    """Return free ports of the loopback interface."""
    with ExitStack() as stack:
        sockets: list[Any] = [stack.enter_context(socket.socket()) for _ in range(count)]
        for own in sockets:
            own.bind(("127.0.0.1", 0))
        return [own.getsockname()[1] for own in sockets]
