"""Run the command line in separate processes, as a user does.

Importing TensorFlow takes 5 s, longer than most small commands. The tests therefore fork their
processes from a server that has already imported everything (`tests/helpers/forking.py`). All
workers of pytest-xdist share one server. With `fork=False` a process starts from scratch.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_STARTING = threading.Lock()  # two threads must not start two servers
# Variables that packages read during their import, too early for a forked process.
READ_ON_IMPORT = {"KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS"}


class Forked:
    """A forked process, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, arguments, cwd, environment):
        self.returncode = None
        self._printed = [os.memfd_create(name) for name in ("out", "err")]
        self._server = socket.socket(socket.AF_UNIX)
        with _STARTING:
            address, _ = _server()
        self._server.connect(address)
        request = json.dumps([arguments, str(cwd), environment]).encode()
        socket.send_fds(self._server, [len(request).to_bytes(4)], self._printed)
        self._server.sendall(request)
        self._responses = self._server.makefile("r")
        self.pid = int(self._responses.readline())

    def poll(self):
        """Return the exit status, or None while the process runs."""
        return self._wait(0)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout=None):
        """Wait for the end; return (standard output, standard error)."""
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
        self._responses.close()
        self._server.close()

    def _wait(self, timeout):
        if self.returncode is None and select.select([self._server], [], [], timeout)[0]:
            self.returncode = int(self._responses.readline())
        return self.returncode


@cache
def _server():
    """Start the fork server unless another worker has; return (address, process)."""
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    owner = os.getppid() if session else os.getpid()  # the parent of all workers, or this
    name = f"rfkeras-tests-{session or owner}"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.forking", name, str(owner)],
        cwd=ROOT,
        # Threads do not survive a fork, so the server must have only one.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
    )
    address = f"\0{name}"  # an abstract socket: it needs no file
    deadline = time.monotonic() + 60
    while True:
        with socket.socket(socket.AF_UNIX) as connection, suppress(ConnectionRefusedError):
            connection.connect(address)
            return address, process
        assert not process.poll(), f"tests.helpers.forking ended with {process.returncode}"
        assert time.monotonic() < deadline, "tests.helpers.forking does not start"
        time.sleep(0.05)


def start(*arguments, cwd=ROOT, fork=True, **environment):
    """Start `python ARGUMENTS` in the root folder of the repository."""
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


def run(*arguments, timeout=540, **settings):
    """Run `python ARGUMENTS`; return (exit status, standard output, standard error)."""
    process = start(*arguments, **settings)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        raise
    return process.returncode, out, err
