"""Script: decode thousands of damaged audio files in a separate process.

`python -m tests.robustness.odd_files.mutate --files 10000` prints the outcomes. Each file is
checked, opened and read completely. Files that crash or block the decoder are kept.
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
from rfkeras.audio.sandbox import DecoderPool, Limits
from rfkeras.errors import AudioError
from tests.robustness.odd_files.mutations import mutated
from tests.robustness.odd_files.sounds import FORMATS, sound

AUDIO = AudioFormat(22050)
LIMITS = Limits(seconds=10.0, memory_mb=2048)
FINITE = "finite samples"
# Outcomes that show a bug: the decoder gave no answer about the file.
FATAL = ("the decoder crashed", "the decoder did not answer", "an error that names")


@dataclass
class Outcomes:
    """The outcomes of all files.

    Attributes:
        read: Number of files per outcome of reading: `FINITE`, or the error with # for numbers.
        checked: The same for `check_file`, which decodes as little as possible.
        fatal: (file, outcome) of the files that crashed or blocked the decoder.
        memory_mb: Resident memory of the decoding process, after every 1000 files.
        slowest: The longest time for one file in seconds, and the number of that file.
    """

    read: Counter = field(default_factory=Counter)
    checked: Counter = field(default_factory=Counter)
    fatal: list = field(default_factory=list)
    memory_mb: list = field(default_factory=list)
    slowest: tuple = (0.0, 0)


def campaign(folder, numbers, seed=0, limits=LIMITS, on_file=lambda path: None):
    """Check and read damaged files one after the other.

    Args:
        folder: Folder for the files; fatal files are kept there.
        numbers: Numbers of the files.
        seed: Seed shared by all files.
        limits: Limits of the decoding process.
        on_file: Function called with each path before the file is removed.
    """
    outcomes = Outcomes()
    pool = DecoderPool(limits)
    names = list(FORMATS)
    sources = [sound(name) for name in names]
    try:
        undamaged = folder / f"undamaged.{names[0]}"
        undamaged.write_bytes(sources[0])
        assert checked(pool, undamaged) == FINITE  # the decoding process has started
        undamaged.unlink()
        for number in numbers:
            which, _, data = mutated(sources, number, seed)
            path = folder / f"{number:06d}.{names[which]}"
            path.write_bytes(data)
            begin = time.monotonic()
            found = checked(pool, path), read(pool, path)
            outcomes.slowest = max(outcomes.slowest, (time.monotonic() - begin, number))
            for outcome, counts in zip(found, (outcomes.checked, outcomes.read), strict=True):
                counts[re.sub(r"\d[\d.]*", "#", outcome)] += 1
            on_file(path)
            if fatal := [outcome for outcome in found if outcome.startswith(FATAL)]:
                outcomes.fatal.append((path.name, fatal[0]))
            else:
                path.unlink()
            if number % 1000 == 0:
                outcomes.memory_mb += [resident_mb(pid) for pid in pool.idle_pids]
    finally:
        pool.close()
    return outcomes


def checked(pool, path):
    """Return `FINITE`, or the reason why `check_file` rejects the file."""
    try:
        pool.check(path)
    except AudioError as error:
        return error.reason if error.path == str(path) else f"an error that names {error.path}"
    return FINITE


def read(pool, path):
    """Return `FINITE`, or the reason why the file cannot be read completely."""
    try:
        with pool.open(path, AUDIO) as file:
            samples = file.read()
        assert samples.dtype == np.float32
        assert samples.shape == (file.length,)
        assert np.isfinite(samples).all()
    except AudioError as error:
        return error.reason if error.path == str(path) else f"an error that names {error.path}"
    return FINITE


def resident_mb(pid="self"):
    """Return the resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10000, help="number of files")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the fatal files")
    parser.add_argument(
        "--tag", type=int, default=0, metavar="N", help="also tag every N-th file"
    )
    options = parser.parse_args()
    import soundfile

    tagger = None
    if options.tag:
        from tests.robustness.odd_files.tagging import EveryNth

        tagger = EveryNth(options.tag)
    begin, before = time.monotonic(), resident_mb()
    with TemporaryDirectory() as aside:
        folder = options.keep or Path(aside)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = range(options.first, options.first + options.files)
        rest = {} if tagger is None else {"on_file": tagger}
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
    if tagger is not None:
        print(f"tag: {dict(tagger.counts)}")
    for name, outcome in outcomes.fatal:
        print(f"FATAL {name}: {outcome}")
    return 1 if outcomes.fatal else 0


if __name__ == "__main__":
    sys.exit(main())
