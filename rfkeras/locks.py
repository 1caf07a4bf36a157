"""Locks between processes, freed by the kernel however their holders end."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_SECONDS = 0.3


@contextmanager
def try_exclusive(path: Path) -> Iterator[str | None]:
    """Hold a lock if it is free.

    Args:
        path: Lock file, made if absent and never removed.

    Yields:
        None while the lock is held; else the process id of its holder, as text.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            yield file.read().strip() or "unknown"
            return
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield None


@contextmanager
def exclusive(path: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock, waiting for it if need be.

    Args:
        path: Lock file, made if absent.
        on_wait: Called once, with the holder's process id as text, if one must wait.
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
