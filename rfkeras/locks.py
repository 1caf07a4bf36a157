"""Locks between processes, freed by the kernel however their holders end."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_SECONDS = 0.3
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # by the file system


@contextmanager
def try_exclusive(path: Path) -> Iterator[str | None]:
    """Hold a lock if it is free.

    Where the file system has no locks, a note says so and nothing is held.

    Args:
        path: Lock file, made if absent and never removed.

    Yields:
        None while the lock is held; else its holder, as "PROCESS-ID on HOST".
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            yield file.read().strip() or "unknown"
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            print(
                f"Note: {path} cannot be locked ({error.strerror}). See to it that no other "
                "process writes there.",
                file=sys.stderr,
            )
            yield None
            return
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield None


@contextmanager
def exclusive(path: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock, waiting for it if need be.

    Args:
        path: Lock file, made if absent.
        on_wait: Called once, with the holder as `try_exclusive` gives it, if one must wait.
    """
    waited = False
    while True:
        with try_exclusive(path) as holder:
            if holder is None:
                yield
                return
        if not waited:
            on_wait(holder)
            waited = True
        time.sleep(_POLL_SECONDS)
