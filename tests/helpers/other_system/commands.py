"""Script: import all modules and run three commands, for a comparison between systems.

    python -m tests.helpers.other_system.commands MODEL AUDIO OUTPUT

It prints JSON: why modules cannot be imported, the exit status of each command, and what the
process lacks. The commands write into the folder OUTPUT.
"""

import contextlib
import importlib
import io
import json
import multiprocessing
import pkgutil
import sys
from pathlib import Path

from rfkeras.audio import sandbox
from rfkeras.cli.main import run
from rfkeras.utils.files import sole_writer
from tests.helpers.processes import ROOT


def modules():
    """Return the names of all modules of the library and of the scripts."""
    found = [
        info.name
        for folder in ("rfkeras", "zoo")
        for info in pkgutil.walk_packages([str(ROOT / folder)], f"{folder}.")
    ]
    names = [name for name in found if not name.endswith("__main__")]
    return ["rfkeras", "zoo", *names, "train", "evaluate", "tune"]


def import_error(name):
    try:
        importlib.import_module(name)
    except ImportError as error:
        return str(error)
    return None


def main(model, audio, output):
    commands = {
        "tag": [audio, "--format", "jsonl", "--output", output / "tags.jsonl"],
        "evaluate": ["--dataset", "folder", "--data-dir", audio, "--output", output / "report"],
        "rf": ["--json", "--no-plots"],
    }
    statuses = {}
    for name, words in commands.items():
        place = [model] if name == "rf" else ["--model", model]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            decoder = [] if name == "rf" else ["--decoder", "isolated"]
            statuses[name] = run([name, *map(str, [*place, *words, *decoder])])
        (output / f"{name}.txt").write_text(printed.getvalue(), encoding="utf-8")
    failed = {name: error for name in modules() if (error := import_error(name))}
    with sole_writer(output / ".lock", output):
        holder = (output / ".lock.holder").read_text(encoding="utf-8")
    result = {
        "statuses": statuses,
        "failed": failed,
        "modules": len(modules()),
        "start_method": multiprocessing.get_start_method(),
        "hands_over_sockets": sandbox.HANDS_OVER_SOCKETS,
        "fcntl": import_error("fcntl"),
        "holder": holder,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
