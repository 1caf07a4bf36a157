"""A search by several processes: the role of each, and heartbeats that show who is alive.

One coordinator hands out trials and trains none; workers train them. keras-tuner calls the
coordinator "chief". A worker keeps changing a file in the search folder, and the coordinator
watches these files.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rfkeras.errors import ConfigError
from rfkeras.utils.files import write_text

# keras-tuner's environment variables.
ID, IP, PORT = "KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT"

SINGLE, COORDINATOR, WORKER = "single", "coordinator", "worker"
_HEARTBEAT_SECONDS = 1.0


@dataclass(frozen=True)
class Role:
    """The role of this process in a search.

    Attributes:
        kind: "single" (the only process), "coordinator" or "worker".
        name: keras-tuner's id of this process.
        address: "IP:PORT" of the coordinator; "" for a single process.
    """

    kind: str = SINGLE
    name: str = "tuner0"  # keras-tuner's default
    address: str = ""


def read_role(environment: Mapping[str, str]) -> Role:
    """Return the role that keras-tuner's environment variables give this process.

    Raises:
        ConfigError: Some of the variables are missing or have impossible values.
    """
    given = [name for name in (ID, IP, PORT) if environment.get(name)]
    if not given:
        return Role()
    missing = [name for name in (ID, IP, PORT) if name not in given]
    if missing:
        raise ConfigError(
            f"A search with several processes needs {ID} (chief, or the name of a worker), "
            f"{IP} and {PORT}. Missing: {', '.join(missing)}."
        )
    name, port = environment[ID], environment[PORT]
    if not re.fullmatch(r"[\w-]+", name):
        raise ConfigError(f"{ID} must be letters, digits, - and _. Received: {name!r}.")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"{PORT} must be a number from 1 to 65535. Received: {port!r}.")
    kind = COORDINATOR if "chief" in name else WORKER  # keras-tuner's own rule
    return Role(kind, name, f"{environment[IP]}:{port}")


@contextmanager
def heartbeat(path: Path) -> Iterator[None]:
    """Keep changing a file while the block runs and this process lives."""
    over = threading.Event()

    def beat() -> None:
        count = 0
        while True:
            count += 1
            write_text(path, f"{time.time():.0f} {count}\n")
            if over.wait(_HEARTBEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        path.unlink(missing_ok=True)


@dataclass
class HeartbeatMonitor:
    """Finds dead workers. Only the clock of this process counts.

    Attributes:
        folder: Folder of the workers' heartbeat files.
        timeout_seconds: A worker is dead if its file has not changed for this long.
        clock: Returns seconds that never decrease.
    """

    folder: Path
    timeout_seconds: float
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    def dead(self, names: Collection[str]) -> list[str]:
        """Return the workers among these whose file has not changed for too long."""
        now = self.clock()
        for name in names:
            content = self._read(name)
            if name not in self._seen or self._seen[name][0] != content:
                self._seen[name] = content, now
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}
        return [
            name for name in sorted(names) if now - self._seen[name][1] > self.timeout_seconds
        ]

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
