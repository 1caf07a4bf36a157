"""keras-tuner's chief and workers: who this process is, and whether the workers live.

keras-tuner hands a trial to a worker and waits for its report, for ever. So each worker
here keeps changing a file in the search's folder, which all machines share; the chief
takes a worker whose file stands still for dead, and gives its trial to another.
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
from rfkeras.files import write_text

ID, IP, PORT = "KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT"
ALONE, CHIEF, WORKER = "alone", "chief", "worker"
_BEAT_SECONDS = 1.0


@dataclass(frozen=True)
class Role:
    """What this process does in a search.

    Attributes:
        kind: "alone", "chief" (hands out trials, trains none) or "worker".
        name: keras-tuner's id of this process.
        address: "IP:PORT" of the chief; "" when alone.
    """

    kind: str = ALONE
    name: str = "tuner0"  # keras-tuner's own default
    address: str = ""


def read_role(environment: Mapping[str, str]) -> Role:
    """The role that keras-tuner's environment variables give this process.

    Raises:
        ConfigError: Some of them are missing or impossible.
    """
    given = [name for name in (ID, IP, PORT) if environment.get(name)]
    if not given:
        return Role()
    missing = [name for name in (ID, IP, PORT) if name not in given]
    if missing:
        raise ConfigError(
            f"A search by several processes needs {ID} (chief, or a name for each worker), "
            f"{IP} and {PORT}. Missing: {', '.join(missing)}."
        )
    name, port = environment[ID], environment[PORT]
    if not re.fullmatch(r"[\w-]+", name):
        raise ConfigError(f"{ID} must be letters, digits, - and _. Received: {name!r}.")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"{PORT} must be a number from 1 to 65535. Received: {port!r}.")
    kind = CHIEF if "chief" in name else WORKER  # as keras-tuner tells them apart
    return Role(kind, name, f"{environment[IP]}:{port}")


@contextmanager
def beating(path: Path) -> Iterator[None]:
    """Keep changing a file as long as the block, and this process, lasts."""
    over = threading.Event()

    def beat() -> None:
        count = 0
        while True:
            count += 1
            write_text(path, f"{time.time():.0f} {count}\n")
            if over.wait(_BEAT_SECONDS):
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
class Watch:
    """Tells which workers are dead, by the clock of this process alone.

    Attributes:
        folder: Where their files are.
        timeout_seconds: How long a file may stand still.
        clock: Seconds that only grow.
    """

    folder: Path
    timeout_seconds: float
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    def dead(self, names: Collection[str]) -> list[str]:
        """Those of these workers whose file has not changed for too long."""
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
