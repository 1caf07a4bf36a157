"""Feed damaged files to the readers of tables, archives and checkpoints.

`python -m tests.robustness.fuzz --cases 100000` prints the outcomes for each reader. A case is
read, or rejected with an error of rfkeras that names the file. Anything else is a failure.
40 % of the cases come from hypothesis, which makes changes that fit the format, 20 % are random
changes of bytes, and 40 % come from atheris, which searches for bytes that reach new code. The
exit status is 1 if a case failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.robustness.fuzz.outcome import Outcomes
from tests.robustness.fuzz.readers import READERS


def shares(cases):
    """Divide the cases among readers and engines; the numbers add up."""
    whole = sum(reader.share for reader in READERS.values())
    each = {name: int(cases * reader.share / whole) for name, reader in READERS.items()}
    first = next(iter(each))
    each[first] += cases - sum(each.values())
    return {
        name: {
            "hypothesis": int(0.4 * n),
            "bytes": int(0.2 * n),
            "atheris": n - int(0.4 * n) - int(0.2 * n),
        }
        for name, n in each.items()
    }


def in_child(name, engine, cases, seed):
    """Run an engine in a separate process, which native code may crash; return the outcomes."""
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as folder:
        path = Path(folder) / "outcome.json"
        arguments = [name, engine, str(cases), str(seed), str(path)]
        process = subprocess.run(
            [sys.executable, "-m", "tests.robustness.fuzz.engines", *arguments],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        outcomes = Outcomes()
        if path.exists():
            content = json.loads(path.read_text())
            outcomes.counts.update(content["counts"])
            outcomes.slowest_ms = content["slowest_ms"]
            outcomes.wrong = {
                k: (f, bytes.fromhex(c), m) for k, (f, c, m) in content["wrong"].items()
            }
        lost = cases - sum(outcomes.counts.values())
        if process.returncode or lost > 0:
            outcomes.counts[f"process ended with status {process.returncode}"] += max(lost, 1)
            outcomes.wrong["process"] = ("", b"", process.stderr[-3000:])
        return outcomes


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.robustness.fuzz", description=__doc__
    )
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", choices=READERS, help="test only this reader")
    options = parser.parse_args()
    begin, failed, total = time.monotonic(), False, 0
    heading = ("engine", 12), ("cases", 9), ("read", 8), ("rejected", 9), ("failed", 7)
    titles = "".join(f"{title:>{width}}" for title, width in heading)
    print(f"{'reader':28}{titles}{'slowest ms':>12}")
    for name, engines in shares(options.cases).items():
        if options.reader not in (None, name):
            continue
        for engine, cases in engines.items():
            outcomes = in_child(name, engine, cases, options.seed)
            counts = outcomes.counts
            wrong = sum(counts.values()) - counts["read"] - counts["rejected"]
            total += sum(counts.values())
            print(
                f"{name:28}{engine:>12}{sum(counts.values()):>9,}{counts['read']:>8,}"
                f"{counts['rejected']:>9,}{wrong:>7,}{outcomes.slowest_ms:>12.0f}",
                flush=True,
            )
            for kind, (path, content, message) in outcomes.wrong.items():
                failed = True
                print(f"    {kind}: {message[:300]!r} {path} {content[:80]!r}", flush=True)
    print(f"{total:,} cases in {time.monotonic() - begin:.0f} s")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
