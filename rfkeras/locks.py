"""Locks between processes, freed by the kernel however their holders end."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rfkeras.errors import ConfigError

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
        with suppress(OSError):  # the lock is held, also where there is no room to say by whom
            file.truncate(0)
            os.write(file.fileno(), f"{os.getpid()} on {socket.gethostname()}".encode())
        yield None


@contextmanager
def sole_writer(lock: Path, place: Path) -> Iterator[None]:
    """Block in which no other process writes to a place.

    Args:
        lock: Lock file, made if absent, its folder too.
        place: What the error names.

    Raises:
        ConfigError: Another process does.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with try_exclusive(lock) as holder:
        if holder is not None:
            raise ConfigError(
                f"Process {holder} is writing to {place}. Wait for it or end it (Ctrl-C, or "
                "kill -INT, loses nothing), or choose another place."
            )
        yield


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
