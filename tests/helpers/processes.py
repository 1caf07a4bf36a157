"""Running the command line the way a user does: in a process of its own.

Starting TensorFlow takes 5 s of processor time, most of what a small command costs. So the
processes of the tests are forked from one that has imported what the commands import and has
done nothing else (`tests/helpers/forking.py`). With `fork=False` a process starts from nothing,
where that is what a test is about.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Read while packages are imported, too early for a forked process.
READ_ON_IMPORT = {"KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS"}


class Forked:
    """A process that was forked, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, arguments, cwd, environment):
        self.returncode = None
        self._printed = [os.memfd_create(name) for name in ("out", "err")]
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(_server())
        request = json.dumps([arguments, str(cwd), environment]).encode()
        socket.send_fds(self._server, [len(request).to_bytes(4)], self._printed)
        self._server.sendall(request)
        self._answers = self._server.makefile("r")
        self.pid = int(self._answers.readline())

    def poll(self):
        """Exit status; None while it runs."""
        return self._wait(0)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout=None):
        """(standard output, standard error), when it has ended."""
        if self._wait(timeout) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        sizes = [os.fstat(file).st_size for file in self._printed]
        texts = [
            os.pread(file, n, 0).decode() for file, n in zip(self._printed, sizes, strict=True)
        ]
        return tuple(texts)

    def __del__(self):
        for file in self._printed:
            os.close(file)
        self._answers.close()
        self._server.close()

    def _wait(self, timeout):
        if self.returncode is None and select.select([self._server], [], [], timeout)[0]:
            self.returncode = int(self._answers.readline())
        return self.returncode


@cache
def _server():
    """Address of the process that others are forked from; it ends with this one."""
    folder = tempfile.TemporaryDirectory(prefix="rfkeras-tests-")
    address = f"{folder.name}/socket"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.forking", address],
        cwd=ROOT,
        # Threads do not survive a fork: the server must have one alone.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
    )

    def end():
        process.stdin.close()
        process.wait()
        folder.cleanup()

    atexit.register(end)
    deadline = time.monotonic() + 240
    while not Path(address).exists():
        assert process.poll() is None, f"tests.helpers.forking ended with {process.returncode}"
        assert time.monotonic() < deadline, "tests.helpers.forking does not start"
        time.sleep(0.05)
    return address


def start(*arguments, cwd=ROOT, fork=True, **environment):
    """Start `python ARGUMENTS` from the repository's root."""
    arguments = [str(argument) for argument in arguments]
    environment = {**os.environ, **environment}
    if fork and not READ_ON_IMPORT & set(environment):
        return Forked(arguments, cwd, environment)
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments, **settings):
    """Run `python ARGUMENTS` to its end: (exit status, standard output, standard error)."""
    process = start(*arguments, **settings)
    try:
        out, err = process.communicate(timeout=540)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        raise
    return process.returncode, out, err
