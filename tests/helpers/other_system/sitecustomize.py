"""Take away from Python what Windows lacks. Python runs this file at the start of a process.

Put this folder first in PYTHONPATH. Child processes inherit it. Only the standard library may
still use the modules: on Linux it needs `fcntl` for asyncio, for example.
"""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

MODULES = {"fcntl", "resource", "pwd", "grp", "termios"}
NAMES = {
    os: "fork forkpty killpg geteuid setsid register_at_fork sched_getaffinity mkfifo statvfs",
    signal: "setitimer alarm SIGKILL SIGALRM SIGHUP pthread_kill",
    select: "poll epoll",
}
_KILL = 9
_STANDARD_LIBRARY = str(Path(os.__file__).parent) + os.sep


class Blocker:
    """Finder of modules that refuses those of `MODULES`."""

    def find_spec(self, name, path=None, target=None):
        if name in MODULES and not _standard_library_asks():
            raise ModuleNotFoundError(f"No module named {name!r} on this system", name=name)
        return None


def _standard_library_asks():
    frame = sys._getframe(2)
    while "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    file = frame.f_code.co_filename
    return file.startswith(_STANDARD_LIBRARY) and "site-packages" not in file


class Popen(subprocess.Popen):
    """Processes as on Windows: they inherit only standard streams, and signals kill them."""

    def __init__(self, *args, **options):
        assert not options.get("pass_fds"), "pass_fds not supported on Windows."
        assert options.get("preexec_fn") is None, "preexec_fn not supported on Windows."
        super().__init__(*args, **options)

    def send_signal(self, number):
        if number != signal.SIGTERM:
            raise ValueError(f"Unsupported signal: {number}")
        self.kill()

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, _KILL)

    terminate = kill


multiprocessing.set_start_method("spawn")
subprocess.Popen = Popen
for module in MODULES:
    sys.modules.pop(module, None)
sys.meta_path.insert(0, Blocker())
for module, names in NAMES.items():
    for name in names.split():
        delattr(module, name)
