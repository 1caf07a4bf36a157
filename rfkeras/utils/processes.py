"""Child processes, started and stopped in the same way on every system.

Children are new interpreters (`subprocess`), never forks. Their standard input is a pipe from
the parent: a control character on it is the number of a signal, other bytes are lines of JSON,
and its end means that the parent has ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

INTERRUPTED = 130  # exit status after Ctrl-C

_NT_ERROR = 0x80000000  # Windows ends crashed processes with a status from here on


class Detached(TypedDict):
    """Options of `subprocess.Popen` for a process that does not receive Ctrl-C."""

    start_new_session: bool
    creationflags: int


# Each system ignores the option of the other one.
DETACHED: Detached = {
    "start_new_session": True,
    "creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
}


def onnx_session(model: str | bytes, threads: int) -> Any:
    """Open a model with ONNX Runtime on the processor.

    Recent versions of ONNX Runtime contain telemetry, which is on unless ORT_DISABLE_TELEMETRY
    is set before the import. Here it is off by default.

    Args:
        model: Path or content of an ONNX file.
        threads: Threads per operator.

    Returns:
        The `onnxruntime.InferenceSession`.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # starts threads, which not every importer of this module needs

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def package_path() -> str:
    """Return a PYTHONPATH with which a process finds this package without installing it."""
    root = str(Path(__file__).parents[2])
    known = os.environ.get("PYTHONPATH")
    return os.pathsep.join([root, known] if known else [root])


def send_signal(process: subprocess.Popen[Any], number: int) -> None:
    """Send a signal to a child process that calls `obey_parent`, unless it has ended.

    Windows has no signals between processes, so the number goes through the pipe to the
    child's standard input.
    """
    assert process.stdin is not None
    with suppress(OSError):  # the process has ended
        os.write(process.stdin.fileno(), bytes([number]))


def send_line(process: subprocess.Popen[Any], text: str) -> None:
    """Send text to a child process that calls `obey_parent`, unless it has ended."""
    assert process.stdin is not None
    with suppress(OSError):  # the process has ended
        os.write(process.stdin.fileno(), json.dumps(text).encode() + b"\n")


def obey_parent(receive: Callable[[str], None] = lambda _: None) -> None:
    """Handle the signals that the parent sends, and end this process when the parent ends.

    Args:
        receive: Called in another thread with each text of `send_line`.
    """
    threading.Thread(target=_read_parent, args=(receive,), daemon=True).start()


def _read_parent(receive: Callable[[str], None]) -> None:
    line = b""
    while byte := os.read(sys.stdin.fileno(), 1):
        if byte == b"\n":
            receive(json.loads(line))
            line = b""
        elif byte < b" ":
            _raise_in_main_thread(byte[0])
        else:
            line += byte
    os._exit(INTERRUPTED)


def _raise_in_main_thread(number: int) -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)  # also wakes the thread from a system call
    else:
        signal.raise_signal(number)


def was_killed(status: int) -> bool:
    """Return whether an exit status is that of a process that was killed or has crashed."""
    return status < 0 or status >= _NT_ERROR


def describe_status(status: int) -> str:
    """Return an exit status as text: "SIGSEGV", "error 0xC0000005" or "exit status 1"."""
    if status < 0:
        return signal.Signals(-status).name
    return f"error 0x{status:08X}" if was_killed(status) else f"exit status {status}"
