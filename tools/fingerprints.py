"""Hash the results of a checkout, to compare two versions of the code.

The tool runs small trainings and commands with the code of a checkout, using only its command
line, and writes the SHA-256 of all results: weights, scores, snapshots, outputs of SavedModels
and tags. It therefore works for any layout of the code::

    python tools/fingerprints.py --checkout DIR --output A.json [--only NAME ...] [--repeat 2]
    python tools/fingerprints.py --compare A.json B.json

Compare only files from the same machine, because processors differ in the last bits. With
`--repeat 2` everything runs twice, and results that differ are marked as varying. A comparison
lists them but does not count them as differences.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock
from fingerprint_runs import COMMANDS, TRAININGS, Checkout, Failed, Items, make_audio, read_run

FORMAT = 1
LOCK = ".fingerprints.lock"  # also marks the folder as safe to empty
VARIES = "varies"


def report(text: str) -> None:
    """Print to standard error."""
    print(text, file=sys.stderr, flush=True)


def run_all(checkout: Checkout, names: Sequence[str]) -> dict[str, Items]:
    """Run everything in a clean folder, and hash the results."""
    for path in checkout.work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
    make_audio(checkout.work)
    found: dict[str, Items] = {}
    for number, name in enumerate(names, start=1):
        begun = time.monotonic()
        try:
            found[name] = COMMANDS[name](checkout, name)
            if name in TRAININGS:
                found[name] |= read_run(checkout.work / name)
        except (Failed, OSError, ValueError, KeyError) as error:
            found[name] = {"failed": str(error)}
        state = f"FAILED, {found[name]['failed']}" if "failed" in found[name] else "done"
        seconds = time.monotonic() - begun
        report(f"[{number}/{len(names)}] {name}: {state} in {seconds:.0f} s")
    trained = [name for name in names if name in TRAININGS and "failed" not in found[name]]
    try:
        for name, items in checkout.read_models(trained).items():
            found[name] |= items
    except Failed as error:
        report(f"Cannot read the models of the runs: {error}")
        for name in trained:
            found[name]["failed"] = f"cannot read the models: {error}"
    return found


def merge(rounds: Sequence[Mapping[str, Items]]) -> dict[str, Items]:
    """Keep the results that are equal in all rounds, and mark the others as varying."""
    merged: dict[str, Items] = {}
    for name in rounds[0]:
        items = sorted({item for found in rounds for item in found[name]})
        for item in items:
            values = {found[name].get(item, "") for found in rounds}
            value = values.pop() if len(values) == 1 or item == "failed" else VARIES
            merged.setdefault(name, {})[item] = value
    return merged


def record(root: Path, output: Path, only: Sequence[str], repeat: int, work: Path) -> int:
    """Run a checkout and write its fingerprints; return the exit status."""
    names = [name for name in COMMANDS if not only or name in only]
    if "evaluate" in names and "resnet_rf" not in names:
        names.insert(0, "resnet_rf")
    work.mkdir(parents=True, exist_ok=True)
    if any(work.iterdir()) and not (work / LOCK).exists():
        raise SystemExit(
            f"{work} contains other files, which would be deleted. Use another --work-dir."
        )
    with FileLock(work / LOCK):  # runs of two checkouts must not overlap
        checkout = Checkout(root, work)
        runs = merge([run_all(checkout, names) for _ in range(repeat)])
    packages = {name: version(name) for name in ("tensorflow", "keras", "numpy")}
    about = {
        "format": FORMAT,
        "checkout": str(root),
        "work": str(work),
        "only": list(only),
        "rounds": repeat,
    }
    machine = {"machine": platform.machine(), "cpus": os.cpu_count(), **packages}
    text = json.dumps({**about, "machine": machine, "runs": runs}, indent=1)
    output.write_text(text + "\n", encoding="utf-8")
    for name, items in runs.items():
        varying = [item for item, value in items.items() if value == VARIES]
        if varying:
            report(f"Not deterministic: {name}: {', '.join(varying)}")
    if repeat == 1:
        report("Determinism was not checked; use --repeat 2 to check it.")
    return int(any("failed" in items for items in runs.values()))


def is_left_out(found: Mapping[str, Any], name: str) -> bool:
    """Return whether a run is missing because --only selected others."""
    return bool(found.get("only")) and name not in found["runs"]


def compare(first: Path, second: Path) -> int:
    """Compare two files of fingerprints; return 1 if anything differs."""
    one, other = (json.loads(p.read_text(encoding="utf-8")) for p in (first, second))
    for key in ("format", "machine", "work"):
        if one[key] != other[key]:
            print(f"Note: {key} differs: {one[key]} and {other[key]}")
    different = 0
    print(f"{'run':<22}{'equal':>6}{'different':>10}{'varies':>8}")
    for name in dict.fromkeys([*one["runs"], *other["runs"]]):
        pair = [found["runs"].get(name, {}) for found in (one, other)]
        left_out = [p for p, f in zip("AB", (one, other), strict=True) if is_left_out(f, name)]
        if left_out:
            print(f"{name:<22}not selected in {left_out[0]}")
            continue
        states: dict[str, list[str]] = {"equal": [], "different": [], VARIES: []}
        for item in dict.fromkeys([*pair[0], *pair[1]]):
            values = [items.get(item) for items in pair]
            equal = values[0] == values[1] and item != "failed"
            varies = VARIES in values and None not in values
            states[VARIES if varies else "equal" if equal else "different"].append(item)
        counts = [len(items) for items in states.values()]
        print(f"{name:<22}{counts[0]:>6}{counts[1]:>10}{counts[2]:>8}")
        for state in ("different", VARIES):
            for item in states[state]:
                sides = ["missing" if item not in items else "" for items in pair]
                where = "".join(f" ({s} in {p})" for s, p in zip(sides, "AB", strict=True) if s)
                print(f"  {state}: {item}{where}")
        different += counts[1]
    print("All equal." if not different else f"Differences: {different}.")
    return int(different > 0)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--checkout", type=Path, metavar="DIR", help="folder of the code to run"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON file to write")
    parser.add_argument("--only", nargs="+", default=[], choices=COMMANDS, metavar="NAME")
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="number of rounds (default: 1)"
    )
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=Path(tempfile.gettempdir(), "rfkeras-fingerprints"),
        metavar="DIR",
        help="folder for data and runs, emptied first. Use the same folder for all files to be "
        "compared (default: %(default)s)",
    )
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar="FILE", help="compare two files"
    )
    parser.epilog = f"Names: {', '.join(COMMANDS)}."
    options = parser.parse_args()
    if options.compare:
        return compare(*options.compare)
    if options.checkout is None or options.output is None or options.repeat < 1:
        parser.error("use --checkout with --output, or --compare")
    paths = [path.resolve() for path in (options.checkout, options.output, options.work_dir)]
    return record(paths[0], paths[1], options.only, options.repeat, paths[2])


if __name__ == "__main__":
    sys.exit(main())
