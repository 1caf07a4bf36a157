"""Script: import what the commands need, then fork a process for each that asks.

`python -m tests.helpers.forking SOCKET`. A request is a list, as JSON after its length: the
arguments of `python`, the folder, the environment; with it come the files for what is printed.
The answers are the process's number and, when it has ended, its exit status (of `subprocess`:
negative after a signal). The server ends when its standard input does.
"""

import gc
import json
import os
import runpy
import select
import socket
import sys
from importlib import import_module
from pathlib import Path

# What takes long to import, and starts no thread.
PACKAGES = (
    "tensorflow",
    "matplotlib.pyplot",
    "sklearn.metrics",
    "rfkeras.cli.train",
    "rfkeras.evaluation.plots",
    "rfkeras.evaluation.report",
    "rfkeras.export",
    "rfkeras.training.run",
    "rfkeras.training.run",
    "zoo",
)


def import_everything():
    for name in PACKAGES:
        import_module(name)
    threads = sum(1 for _ in Path("/proc/self/task").iterdir())
    assert threads == 1, f"{threads} threads: only a process of one can be forked"


def serve(address):
    """Requests, each in a process of its own: (arguments, folder, environment)."""
    gc.freeze()  # so that collections in the processes leave shared pages alone
    listening = socket.socket(socket.AF_UNIX)
    aside = f"{address}.new"
    listening.bind(aside)
    listening.listen()
    Path(aside).rename(address)  # there when it answers, not before
    while True:
        ready, _, _ = select.select([listening, 0], [], [])
        if 0 in ready:  # nobody writes to it: it has ended
            os._exit(0)
        connection, _ = listening.accept()
        watcher = os.fork()
        if watcher:
            connection.close()
            os.waitpid(watcher, 0)
            continue
        if os.fork():  # the watcher's parent waits for it alone: leave it at once
            os._exit(0)
        listening.close()
        length, files, _, _ = socket.recv_fds(connection, 4, 2)
        request = connection.recv(int.from_bytes(length), socket.MSG_WAITALL)
        process = os.fork()
        if process:
            connection.sendall(b"%d\n" % process)
            _, status = os.waitpid(process, 0)
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            os._exit(0)
        connection.close()
        for file, number in zip(files, (1, 2), strict=True):
            os.dup2(file, number)
            os.close(file)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        return json.loads(request)


def execute(arguments, folder, environment):
    """What `python ARGUMENTS` does in that folder and environment."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    first, *rest = arguments
    if first == "-m":
        sys.path[:1] = [folder, *paths]
        sys.argv[:] = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path[:1] = ["", *paths]
        sys.argv[:] = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path[:1] = [str(Path(first).absolute().parent), *paths]
        sys.argv[:] = arguments
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    import_everything()
    request = serve(sys.argv[1])
    execute(*request)
