"""Check every file of a split before training starts."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rfkeras.data.audio import AudioInfo
from rfkeras.data.bad_files import BadFile
from rfkeras.data.dataset import Split
from rfkeras.data.integrity import check_file
from rfkeras.errors import AudioError

_PROGRESS_FROM_FILES = 200  # shorter scans end before a bar can be read


@dataclass(frozen=True)
class ScanResult:
    """What a scan found.

    Attributes:
        good_rows: Rows of the split whose file can be used, ascending.
        bad: The other files, in the split's order.
        sample_rates: Good files by their own sample rate in Hz.
    """

    good_rows: NDArray[np.int64]
    bad: tuple[BadFile, ...]
    sample_rates: dict[int, int]

    def resampling(self, target_hz: int) -> list[str]:
        """One line for each source rate that has to be resampled.

        Example:
            ["1,204 files 44100 Hz -> 22050 Hz"]
        """
        return [
            f"{count:,} {'file' if count == 1 else 'files'} {rate} Hz -> {target_hz} Hz"
            for rate, count in sorted(self.sample_rates.items())
            if rate != target_hz
        ]


def scan_split(
    split: Split,
    *,
    expected_seconds: float | None = None,
    workers: int | None = None,
    progress: bool = True,
    stage: str = "scan",
) -> ScanResult:
    """Check all files of a split in parallel; raises nothing for bad files.

    Args:
        split: The clips.
        expected_seconds: Length that every file should have, None where lengths vary.
        workers: Threads; the number of CPUs when None.
        progress: Show a bar on standard error, for scans long enough to need one.
        stage: What the list of bad files calls this scan.
    """

    def check(path: object) -> AudioInfo | AudioError:
        try:
            return check_file(str(path), expected_seconds)
        except AudioError as error:
            return error

    good: list[int] = []
    bad: list[BadFile] = []
    rates: Counter[int] = Counter()
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        results = pool.map(check, split.paths)
        if progress and len(split) >= _PROGRESS_FROM_FILES:
            from rich.console import Console
            from rich.progress import track

            results = iter(
                track(
                    results,
                    description=f"Checking audio ({stage})",
                    total=len(split),
                    console=Console(stderr=True),
                    transient=True,
                )
            )
        for row, result in enumerate(results):
            if isinstance(result, AudioError):
                bad.append(BadFile(result.path, result.reason, stage))
            else:
                good.append(row)
                rates[result.sample_rate_hz] += 1
    return ScanResult(np.asarray(good, dtype=np.int64), tuple(bad), dict(rates))
