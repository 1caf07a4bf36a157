"""Script: kill processes at every point while they write files, and read what is left.

`python -m tests.robustness.faults.killed FOLDER` prints a line of JSON: for each writer in
`tests.robustness.faults.writers`, the state of its files after each fault.

Faults happen at the events of Python's audit hooks (a file is opened, renamed, removed, ...)
and at file size limits. At such a size the kernel kills the process in the middle of a write,
also in native libraries, or refuses the write.
"""

import json
import os
import resource
import shutil
import signal
import sys
import traceback
from pathlib import Path

from rfkeras.utils.files import PARTIAL, remove_leftovers
from tests.robustness.faults.writers import WRITERS

SIZES = (0, 1, 100, 1999, 4096, 8192, 10_500)
MOST_EVENTS = 60
REPORTED = 7  # exit status: the error names the file and the reason


def kill_at_event(number):
    seen = 0

    def hook(event, arguments):
        nonlocal seen
        if event == "open" or event.startswith(("os.", "shutil.", "fcntl.")):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def kill_at_size(size):
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def refuse_at_size(size):
    """Let writes fail without ending the process, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def status_of(action, folder):
    """Run an action in a child process; return its exit status."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except OSError as error:
            os._exit(REPORTED if f"File too large: '{folder}/" in str(error) else 98)
        except BaseException:  # noqa: BLE001 (the child must not return)
            traceback.print_exc()
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def faults(root, name):
    """Return [kind of fault, its argument, exit status, value, leftover files, final value]."""
    write, read = WRITERS[name]
    begun = root / "begun"
    begun.mkdir()
    write(begun, 1)

    def killed(how, *arguments):
        folder = root / "killed"
        shutil.copytree(begun, folder)

        def action():
            how(*arguments)
            write(folder, 2)

        status = status_of(action, folder)
        if how is refuse_at_size:
            assert not any(PARTIAL in path.name for path in folder.iterdir())
        remove_leftovers(folder)
        left = [path.name for path in folder.iterdir() if PARTIAL in path.name]
        try:
            value = float(read(folder))
        except Exception as error:  # noqa: BLE001 (it becomes a result)
            value = repr(error)
        write(folder, 2)  # the next process starts from there
        last = float(read(folder))
        shutil.rmtree(folder)
        return [how.__name__, *arguments, status, value, left, last]

    found = []
    for number in range(1, MOST_EVENTS):
        found.append(killed(kill_at_event, number))
        if found[-1][2] == 0:
            break
    return found + [killed(how, n) for how in (kill_at_size, refuse_at_size) for n in SIZES]


def main(root):
    results = {}
    for number, name in enumerate(WRITERS):
        folder = root / str(number)
        folder.mkdir()
        results[name] = faults(folder, name)
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
