"""A run in a process of its own, which ends when the one that started it is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import rfkeras
from rfkeras.training.run_folder import RunFolder

LOG = "output.txt"  # in the run's folder: what its process printed
INTERRUPTED = 130  # exit status after Ctrl-C


def start_child(
    module: str, folder: RunFolder, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE FOLDER`; the module must call `end_with_parent`.

    Args:
        module: Full name of the module.
        folder: The run's folder; output is added to its output.txt.
        environment: Variables of its own.
    """
    with (folder.root / LOG).open("a", encoding="utf-8") as output:
        return subprocess.Popen(
            command(module, folder),
            env={**os.environ, "PYTHONPATH": package_path(), **(environment or {})},
            stdin=subprocess.PIPE,  # ends with this process, however that ends
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C comes to it from here, once
        )


def package_path() -> str:
    """PYTHONPATH with which a process finds this package, also where it is not installed."""
    root = str(Path(rfkeras.__file__).parents[1])
    known = os.environ.get("PYTHONPATH")
    return os.pathsep.join([root, known] if known else [root])


def command(module: str, folder: RunFolder) -> list[str]:
    """The command line of a run's process."""
    return [sys.executable, "-m", module, str(folder.root)]


def end_with_parent() -> None:
    """From now on, end this process when its standard input does."""
    threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(INTERRUPTED)


def last_line(folder: RunFolder) -> str:
    """The last line that a run's process printed; "" if none."""
    text = (folder.root / LOG).read_text(encoding="utf-8", errors="replace")
    lines = (line.strip() for line in reversed(text.splitlines()))
    return next((line for line in lines if line), "")
