"""Check every file of a split before training starts."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rfkeras.data.audio_format import AudioInfo
from rfkeras.data.bad_files import BadFile
from rfkeras.data.dataset import Split
from rfkeras.data.decoding import check_audio
from rfkeras.errors import AudioError

# Durations in metadata are rounded and come from another decoder, which may count padding
# or guess from a bit rate; what a broken download lacks is longer.
METADATA_TOLERANCE_SECONDS = 2.0
_PROGRESS_FROM_FILES = 200  # shorter scans end before a bar can be read


@dataclass(frozen=True)
class ScanResult:
    """What a scan found.

    Attributes:
        good_rows: Rows of the split whose file can be used, ascending.
        bad: The other files, in the split's order.
        sample_rates: Good files by their own sample rate in Hz.
        infos: What each good file holds, in the order of good_rows.
    """

    good_rows: NDArray[np.int64]
    bad: tuple[BadFile, ...]
    sample_rates: dict[int, int]
    infos: tuple[AudioInfo, ...] = field(default=(), repr=False)

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


def check_clip(
    split: Split, row: int, expected_seconds: float | None, *, decoder: str = "soundfile"
) -> AudioInfo:
    """Check the file of one clip: `check_file` with the length that is known of it.

    Args:
        split: The clips.
        row: Which of them.
        expected_seconds: Length of every file by the data set's definition; what the split
            says of its clips' lengths goes before it.
        decoder: One of `rfkeras.data.decoding.DECODERS`.

    Raises:
        AudioError: The file cannot be used.
    """
    path = split.paths[row]
    if split.seconds is None:
        return check_audio(path, expected_seconds, decoder=decoder)
    seconds = float(split.seconds[row])
    return check_audio(path, seconds, METADATA_TOLERANCE_SECONDS, decoder=decoder)


def scan_split(
    split: Split,
    *,
    expected_seconds: float | None = None,
    workers: int | None = None,
    progress: bool = True,
    stage: str = "scan",
    decoder: str = "soundfile",
) -> ScanResult:
    """Check all files of a split in parallel; raises nothing for bad files.

    Args:
        split: The clips.
        expected_seconds: Length that every file should have, None where lengths vary.
        workers: Threads; the number of CPUs when None.
        progress: Show a bar on standard error, for scans long enough to need one.
        stage: What the list of bad files calls this scan.
        decoder: One of `rfkeras.data.decoding.DECODERS`.
    """

    def check(row: int) -> AudioInfo | AudioError:
        try:
            return check_clip(split, row, expected_seconds, decoder=decoder)
        except AudioError as error:
            return error

    good: list[int] = []
    bad: list[BadFile] = []
    infos: list[AudioInfo] = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        results = pool.map(check, range(len(split)))
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
                infos.append(result)
    rates = Counter(info.sample_rate_hz for info in infos)
    return ScanResult(np.asarray(good, dtype=np.int64), tuple(bad), dict(rates), tuple(infos))
