"""Measure speed and memory, and write the results as tables."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import PAGE, describe_machine, write_section
from benchmarks.suite import SECTIONS, Settings, measure

ROUNDS = 5


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    result = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    result.add_argument("sections", nargs="*", metavar="SECTION", help="default: all")
    result.add_argument("--list", action="store_true", help="list the sections and exit")
    result.add_argument(
        "--output", type=Path, default=Path("benchmark_results"), help="folder for the results"
    )
    result.add_argument("--rounds", type=int, help=f"rounds per section (default: {ROUNDS})")
    result.add_argument(
        "--threads",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="processors to use (default: all)",
    )
    result.add_argument(
        "--short", action="store_true", help="use tiny sizes, only to check that it works"
    )
    return result


def main() -> int:
    """Measure and write the results; return 1 if a target is missed."""
    options = parser().parse_args()
    if options.list:
        print("\n".join(SECTIONS))
        return 0
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        print(
            f"Unknown section {unknown[0]!r}. Sections: {', '.join(SECTIONS)}.", file=sys.stderr
        )
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
            verdict = "met" if bar.is_met else "MISSED"
            print(f"  {bar.what}: {bar.value:.3g}, target {bar.at_least:g}: {verdict}")
        missed += [bar for bar in section.bars if not bar.is_met]
        print(f"  {seconds:.0f} s", flush=True)
    print(f"Results: {options.output / PAGE}")
    # Targets do not apply to tiny sizes.
    return 1 if missed and not options.short else 0


if __name__ == "__main__":
    sys.exit(main())
