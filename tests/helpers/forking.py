"""Script: import what the commands need, then fork a process for each request.

`python -m tests.helpers.forking NAME OWNER` listens on the abstract socket NAME until the
process with the id OWNER ends. If another server has that name, the script ends immediately.

A request is a JSON list, preceded by its length: the arguments of `python`, the working folder
and the environment. File descriptors for the output come with it. The responses are the process
id and, after the end, the exit status (negative after a signal, as in `subprocess`).
"""

import errno
import gc
import json
import os
import runpy
import select
import socket
import struct
import sys
from importlib import import_module
from pathlib import Path

# Packages that take long to import and start no threads.
PACKAGES = (
    "tensorflow",
    "matplotlib.pyplot",
    "sklearn.metrics",
    "rfkeras.cli.train",
    "rfkeras.evaluation.plots",
    "rfkeras.evaluation.report",
    "rfkeras.export",
    "rfkeras.training.run",
    "zoo",
)


def import_everything():
    # Keras imports pandas if it is installed, and with it pyarrow, which starts a thread.
    sys.modules["pandas"] = None
    for name in PACKAGES:
        import_module(name)
    del sys.modules["pandas"]  # children import it whole
    threads = sum(1 for _ in Path("/proc/self/task").iterdir())
    assert threads == 1, f"{threads} threads: only a process with one thread can be forked"


def serve(listening, owner):
    """Accept requests until the owner ends; return each in a new process.

    Args:
        listening: The socket.
        owner: A file descriptor that becomes readable when the owner ends.

    Returns:
        (arguments, folder, environment)
    """
    gc.set_threshold(50_000, 10, 10)  # as in tests/conftest.py
    gc.freeze()  # garbage collection in the children must not copy shared pages
    while True:
        ready, _, _ = select.select([listening, owner], [], [])
        if owner in ready:
            os._exit(0)
        connection, _ = listening.accept()
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if struct.unpack("3i", peer)[1] != os.getuid():  # anyone can connect to the socket
            connection.close()
            continue
        watcher = os.fork()
        if watcher:
            connection.close()
            os.waitpid(watcher, 0)
            continue
        if os.fork():  # the server waits for this process: end immediately
            os._exit(0)
        listening.close()
        os.close(owner)
        length, files, _, _ = socket.recv_fds(connection, 4, 2)
        if not length:  # a client that only checked the address
            os._exit(0)
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
    """Do what `python ARGUMENTS` does in this folder and environment."""
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


def main(name, owner_id):
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(f"\0{name}")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return
        raise
    listening.listen(128)  # requests wait until the packages are imported
    owner = os.pidfd_open(int(owner_id))
    import_everything()
    execute(*serve(listening, owner))


if __name__ == "__main__":
    main(*sys.argv[1:])
