"""Signals to child processes, their exit statuses, and the number of cores."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rfkeras.utils import processes
from tests.helpers.processes import ROOT

CHILD = """
import signal, sys, time
from rfkeras.utils import processes
if sys.argv[1] == "windows":
    del signal.pthread_kill
def end(number, frame):
    sys.exit(number)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, end)
processes.obey_parent()
print("ready", flush=True)
while True:
    time.sleep(0.01 if sys.argv[1] == "windows" else 60)
"""


def start_child(system):
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, system],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": processes.package_path()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        **processes.DETACHED,
    )
    assert process.stdout.readline().strip() == b"ready"
    return process


@pytest.mark.parametrize("system", ["posix", "windows"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_child_handles_the_signals_of_its_parent(system, number):
    with start_child(system) as process:
        begin = time.monotonic()
        processes.send_signal(process, number)
        assert process.wait(timeout=20) == number
        assert time.monotonic() - begin < 20  # in the middle of a system call, too
        processes.send_signal(process, number)  # it has ended


def test_a_child_ends_with_its_parent():
    with start_child("posix") as process:
        process.stdin.close()  # as the kernel does when the parent is killed
        assert process.wait(timeout=20) == processes.INTERRUPTED == 130


def test_ctrl_c_in_the_terminal_does_not_reach_a_detached_child():
    with start_child("posix") as process:
        assert os.getsid(process.pid) != os.getsid(0)
        process.kill()


@pytest.mark.parametrize(
    ("status", "killed", "text"),
    [
        (0, False, "exit status 0"),
        (75, False, "exit status 75"),
        (-signal.SIGSEGV, True, "SIGSEGV"),
        (0xC0000005, True, "error 0xC0000005"),  # an access violation on Windows
    ],
)
def test_exit_statuses_of_killed_processes(status, killed, text):
    assert processes.was_killed(status) == killed
    assert processes.describe_status(status) == text


def test_the_number_of_cores_is_known_on_every_system(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5})
    assert processes.usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert processes.usable_cores() == 7
