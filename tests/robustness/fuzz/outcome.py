"""Run one case: a reader with a damaged file."""

import contextlib
import io
import resource
import signal
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rfkeras.errors import RFKerasError

LONGEST_SECONDS = 10
MEMORY_BYTES = 2 << 30  # in addition to what is in use before the first case


class TooLongError(BaseException):
    """The reader did not finish in time."""


@dataclass
class Outcomes:
    """The outcomes of all cases of a reader.

    Attributes:
        counts: Number of cases per outcome: "read", "rejected", or the kind of failure.
        wrong: The first case of each kind of failure: (file, content, message).
        slowest_ms: Time of the slowest case.
    """

    counts: Counter = field(default_factory=Counter)
    wrong: dict = field(default_factory=dict)
    slowest_ms: float = 0.0

    def take(self, reader, root, path, content):
        """Damage a file, read it and restore it; return False if the reader failed."""
        whole = path.read_bytes()
        path.write_bytes(content)
        begin = time.perf_counter()
        try:
            with _quiet(), _limited():
                reader.read(root)
            outcome, message = "read", ""
        except RFKerasError as error:
            message = str(error)
            named = str(root) in message or not reader.names_file
            outcome = "rejected" if named else "file not named"
        except (Exception, TooLongError) as error:  # noqa: BLE001 (these are the failures we search for)
            outcome, message = type(error).__name__, str(error)
        finally:
            path.write_bytes(whole)
        self.slowest_ms = max(self.slowest_ms, 1000 * (time.perf_counter() - begin))
        self.counts[outcome] += 1
        good = outcome in ("read", "rejected")
        if not good:
            self.wrong.setdefault(outcome, (str(path), content, message))
        return good


@contextlib.contextmanager
def _quiet():
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _limited():
    def too_long(number, frame):
        raise TooLongError

    old = signal.signal(signal.SIGALRM, too_long)
    others = signal.setitimer(signal.ITIMER_REAL, LONGEST_SECONDS)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, old)
        signal.setitimer(signal.ITIMER_REAL, *others)


def limit_memory():
    """Limit the memory of this process to far more than it uses now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
