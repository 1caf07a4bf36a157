"""Command line: `python -m benchmarks [SECTION ...]`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.report import PAGE, write_section
from benchmarks.suite import SECTIONS, Settings, measure

ROUNDS = 5


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    result = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    result.add_argument("sections", nargs="*", metavar="SECTION", help="default: all")
    result.add_argument("--list", action="store_true", help="name the sections and leave")
    result.add_argument("--output", type=Path, default=Path("benchmark_results"))
    result.add_argument("--rounds", type=int, help=f"turns of each side (default {ROUNDS})")
    result.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    result.add_argument(
        "--short", action="store_true", help="tiny sizes: shows that it runs, not how fast"
    )
    return result


def main() -> int:
    """Measure and write; 1 if a bar is not reached."""
    options = parser().parse_args()
    if options.list:
        print("\n".join(SECTIONS))
        return 0
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        print(f"No section {unknown[0]!r}; there are: {', '.join(SECTIONS)}.", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    missed = []
    for name in options.sections or SECTIONS:
        machine = describe_machine(options.threads)
        print(f"{name} ...", flush=True)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="rfkeras-bench-") as scratch:
            settings = Settings(
                threads=options.threads,
                rounds=options.rounds or (1 if options.short else ROUNDS),
                short=options.short,
                folder=options.output,
                scratch=Path(scratch),
            )
            section = measure(name, settings)
        seconds = time.perf_counter() - started
        write_section(options.output, name, section, machine, seconds)
        for bar in section.bars:
            verdict = "reached" if bar.is_met else "NOT reached"
            print(f"  {bar.what}: {bar.value:.3g}, wanted {bar.at_least:g}: {verdict}")
        missed += [bar for bar in section.bars if not bar.is_met]
        print(f"  {seconds:.0f} s", flush=True)
    print(f"Written: {options.output / PAGE}")
    # Tiny sizes reach no bar, and need not.
    return 1 if missed and not options.short else 0


if __name__ == "__main__":
    sys.exit(main())
