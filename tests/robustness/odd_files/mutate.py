"""Script: thousands of damaged audio files, each decoded in a process that may die.

`python -m tests.robustness.odd_files.mutate --files 10000` prints what became of them.
Each is checked, opened and read whole. Those that kill the decoder, or that it does not
finish, are kept.
"""

import argparse
import platform
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rfkeras.audio.io import AudioFormat
from rfkeras.audio.sandbox import Decoders, Limits
from rfkeras.errors import AudioError
from tests.robustness.odd_files.mutations import mutated
from tests.robustness.odd_files.sounds import FORMATS, sound

AUDIO = AudioFormat(22050)
LIMITS = Limits(seconds=10.0, memory_mb=2048)
FINITE = "finite samples"
# No answer about the file: each is to be looked into.
FATAL = ("the decoder died", "the decoder gave no answer", "an error that names")


@dataclass
class Outcomes:
    """What became of the files.

    Attributes:
        read: Files by outcome of reading them: `FINITE`, or the error with # for numbers.
        checked: The same of `check_file`, which decodes no more than it must.
        fatal: (file, outcome) of those that killed the decoder or that it did not finish.
        memory_mb: Resident memory of the decoding process, every 1000 files.
        slowest: The longest time for a file, in seconds, and its number.
    """

    read: Counter = field(default_factory=Counter)
    checked: Counter = field(default_factory=Counter)
    fatal: list = field(default_factory=list)
    memory_mb: list = field(default_factory=list)
    slowest: tuple = (0.0, 0)


def campaign(folder, numbers, seed=0, limits=LIMITS, on_file=lambda path: None):
    """Check and read damaged files, one after the other.

    Args:
        folder: Where they are written; those that are fatal stay there.
        numbers: Which files.
        seed: Of all of them.
        limits: Of the decoding process.
        on_file: Called with each path while the file is there.
    """
    outcomes = Outcomes()
    decoders = Decoders(limits)
    names = list(FORMATS)
    sources = [sound(name) for name in names]
    try:
        for number in numbers:
            which, _, data = mutated(sources, number, seed)
            path = folder / f"{number:06d}.{names[which]}"
            path.write_bytes(data)
            begin = time.monotonic()
            found = checked(decoders, path), read(decoders, path)
            outcomes.slowest = max(outcomes.slowest, (time.monotonic() - begin, number))
            for outcome, counts in zip(found, (outcomes.checked, outcomes.read), strict=True):
                counts[re.sub(r"\d[\d.]*", "#", outcome)] += 1
            on_file(path)
            if fatal := [outcome for outcome in found if outcome.startswith(FATAL)]:
                outcomes.fatal.append((path.name, fatal[0]))
            else:
                path.unlink()
            if number % 1000 == 0:
                outcomes.memory_mb += [resident_mb(pid) for pid in decoders.waiting]
    finally:
        decoders.close()
    return outcomes


def checked(decoders, path):
    """`FINITE`, or why `check_file` says that the file cannot be used."""
    try:
        decoders.check(path)
    except AudioError as error:
        return error.reason if error.path == str(path) else f"an error that names {error.path}"
    return FINITE


def read(decoders, path):
    """`FINITE`, or why the whole of the file cannot be read."""
    try:
        with decoders.open(path, AUDIO) as file:
            samples = file.read()
        assert samples.dtype == np.float32
        assert samples.shape == (file.length,)
        assert np.isfinite(samples).all()
    except AudioError as error:
        return error.reason if error.path == str(path) else f"an error that names {error.path}"
    return FINITE


def resident_mb(pid="self"):
    """Resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the fatal files")
    parser.add_argument("--tag", type=int, default=0, metavar="N", help="tag every N-th too")
    options = parser.parse_args()
    import soundfile

    tagged = None
    if options.tag:
        from tests.robustness.odd_files.tagging import EveryNth

        tagged = EveryNth(options.tag)
    begin, before = time.monotonic(), resident_mb()
    with TemporaryDirectory() as aside:
        folder = options.keep or Path(aside)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = range(options.first, options.first + options.files)
        rest = {} if tagged is None else {"on_file": tagged}
        outcomes = campaign(folder, numbers, options.seed, **rest)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, soundfile "
        f"{soundfile.__version__}, {soundfile.__libsndfile_version__}"
    )
    print(f"{options.files} files in {time.monotonic() - begin:.0f} s, seed {options.seed}")
    for title, counts in (("check", outcomes.checked), ("read", outcomes.read)):
        print(f"{title}:")
        for outcome, count in counts.most_common():
            print(f"{count:7d}  {outcome}")
    print(f"slowest: {outcomes.slowest[0]:.2f} s, file {outcomes.slowest[1]}")
    print(f"this process: {before} MB before, {resident_mb()} MB after")
    print(f"decoding process, every 1000 files: {outcomes.memory_mb} MB")
    if tagged is not None:
        print(f"tag: {dict(tagged.counts)}")
    for name, outcome in outcomes.fatal:
        print(f"FATAL {name}: {outcome}")
    return 1 if outcomes.fatal else 0


if __name__ == "__main__":
    sys.exit(main())
