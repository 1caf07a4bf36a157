"""Running the command line the way a user does: in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def start(*arguments, cwd=ROOT, **environment):
    """Start `python ARGUMENTS` from the repository's root."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments, **settings):
    """Run `python ARGUMENTS` to its end: (exit status, standard output, standard error)."""
    process = start(*arguments, **settings)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err
