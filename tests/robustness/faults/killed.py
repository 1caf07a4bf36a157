"""Script: kill what writes files at every moment, and read what is left there.

`python -m tests.robustness.faults.killed FOLDER` writes a line of JSON: for each writer of
`tests.robustness.faults.writers`, what was there after each moment.

The moments are the events of Python's audit hooks (a file is opened, renamed, removed, ...)
and sizes that no file may pass: at such a size the kernel kills the process in the middle of
a write, also of a native library, or refuses the write.
"""

import json
import os
import resource
import shutil
import signal
import sys
import traceback
from pathlib import Path

from rfkeras.utils.files import ASIDE, remove_leftovers
from tests.robustness.faults.writers import WRITERS

SIZES = (0, 1, 100, 1999, 4096, 8192, 10_500)
MOST_EVENTS = 60
TOLD = 7  # exit status: the error said which file, and why


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
    """As a full disk does: the write fails, and the process goes on."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def status_of(action, folder):
    """How a child process that does it ends."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except OSError as error:
            os._exit(TOLD if f"File too large: '{folder}/" in str(error) else 98)
        except BaseException:  # noqa: BLE001 (a child must not go on)
            traceback.print_exc()
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def moments(root, name):
    """(how it was killed, exit status, value read afterwards, files left aside)."""
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
            assert not any(ASIDE in path.name for path in folder.iterdir())
        remove_leftovers(folder)
        left = [path.name for path in folder.iterdir() if ASIDE in path.name]
        try:
            value = float(read(folder))
        except Exception as error:  # noqa: BLE001 (told in the table)
            value = repr(error)
        write(folder, 2)  # the next process goes on from there
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
        results[name] = moments(folder, name)
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
