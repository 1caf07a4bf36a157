"""What a data set holds and what is wrong with it, found without training."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.decode import check_audio
from rfkeras.audio.io import AudioInfo
from rfkeras.datasets.base import (
    AudioDataset,
    BadFile,
    Split,
    differences,
    overlaps,
    published_clips,
)
from rfkeras.datasets.packed import PackedSplit, damaged_shards
from rfkeras.errors import AudioError, DatasetError

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
        decoder: One of `rfkeras.audio.decode.DECODERS`.

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
        decoder: One of `rfkeras.audio.decode.DECODERS`.
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


@dataclass(frozen=True)
class LabelCount:
    """Clips that have a tag, and clips of which it is known whether they do."""

    positive: int
    known: int

    @property
    def share(self) -> float:
        """Positive clips among the known ones, NaN where nothing is known."""
        return self.positive / self.known if self.known else float("nan")


@dataclass(frozen=True)
class AudioSummary:
    """The usable files of a split.

    Attributes:
        files: How many there are.
        hours: Length of all together.
        seconds: Shortest, median and longest file; None without files.
        sample_rates_hz: Files by sample rate.
        channels: Files by number of channels.
    """

    files: int
    hours: float
    seconds: tuple[float, float, float] | None
    sample_rates_hz: dict[int, int]
    channels: dict[int, int]


@dataclass(frozen=True)
class SplitCheck:
    """One split.

    Attributes:
        clips: Clips listed.
        without_tag: Clips that are not known to have any tag.
        labels: Counts of each tag.
        audio: What the files hold; None where they were not looked at.
        bad: Files that are missing or cannot be used.
    """

    clips: int
    without_tag: int
    labels: dict[str, LabelCount]
    audio: AudioSummary | None
    bad: tuple[BadFile, ...]


@dataclass(frozen=True)
class DatasetCheck:
    """What `check_dataset` found.

    Attributes:
        name: Name of the data set.
        task: multi_label or single_label.
        homepage: Where to get it, None for one's own data.
        info: What the source says about this copy: subset, fold, seeds.
        splits: Each split.
        published: Clips found and clips published, by split or splits together.
        overlaps: What is in two splits: see `rfkeras.datasets.base.overlaps`.
        differences: What is not as published, a sentence each.
    """

    name: str
    task: str
    homepage: str | None
    info: dict[str, object]
    splits: dict[str, SplitCheck]
    published: dict[str, tuple[int, int]]
    overlaps: dict[str, dict[str, list[str]]]
    differences: list[str]

    @property
    def bad(self) -> list[BadFile]:
        """Files of all splits that are missing or cannot be used."""
        return [file for split in self.splits.values() for file in split.bad]

    @property
    def ok(self) -> bool:
        """Nothing is missing, broken, in two splits or other than published."""
        return not self.bad and not self.differences

    def to_json(self) -> str:
        """All of it as JSON text."""
        splits = {}
        for name, split in self.splits.items():
            content: dict[str, Any] = asdict(split)
            for tag, count in split.labels.items():
                content["labels"][tag]["share"] = count.share if count.known else None
            splits[name] = content
        published = {
            names: {"found": found, "published": expected}
            for names, (found, expected) in self.published.items()
        }
        whole = {
            "ok": self.ok,
            "name": self.name,
            "task": self.task,
            "homepage": self.homepage,
            "info": self.info,
            "differences": self.differences,
            "published": published,
            "overlaps": self.overlaps,
            "splits": splits,
        }
        return json.dumps(whole, indent=2) + "\n"


def check_dataset(
    dataset: AudioDataset,
    *,
    audio: bool = True,
    workers: int | None = None,
    progress: bool = True,
) -> DatasetCheck:
    """Count, compare with what is published, and check every audio file.

    Args:
        dataset: The data set, from files or packed; of a packed one the checksums of the
            shards are compared.
        audio: Look at the audio files; otherwise at the lists and labels alone.
        workers: Threads; the number of CPUs when None.
        progress: Show a bar on standard error for long scans.
    """
    splits = {}
    for name, split in dataset.splits.items():
        summary: AudioSummary | None = None
        bad: tuple[BadFile, ...] = ()
        if audio and isinstance(split, PackedSplit):
            summary, bad = _packed(split, name)
        elif audio:
            scan = scan_split(
                split,
                expected_seconds=dataset.clip_seconds,
                workers=workers,
                progress=progress,
                stage=name,
            )
            bad = scan.bad
            summary = _summary(
                [info.duration_seconds for info in scan.infos],
                scan.sample_rates,
                Counter(info.channels for info in scan.infos),
            )
        splits[name] = SplitCheck(
            clips=len(split),
            without_tag=int((~(split.labels * split.mask).any(axis=1)).sum()),
            labels=_labels(split, dataset.label_names),
            audio=summary,
            bad=bad,
        )
    return DatasetCheck(
        name=dataset.name,
        task=dataset.task,
        homepage=dataset.published.homepage if dataset.published else None,
        info=dataset.info,
        splits=splits,
        published=published_clips(dataset),
        overlaps=overlaps(dataset),
        differences=differences(dataset),
    )


def _labels(split: Split, names: tuple[str, ...]) -> dict[str, LabelCount]:
    positive = (split.labels * split.mask > 0).sum(axis=0)
    known = (split.mask > 0).sum(axis=0)
    return {
        name: LabelCount(int(positive[column]), int(known[column]))
        for column, name in enumerate(names)
    }


def _summary(
    seconds: list[float], sample_rates_hz: dict[int, int], channels: dict[int, int]
) -> AudioSummary:
    return AudioSummary(
        files=len(seconds),
        hours=sum(seconds) / 3600,
        seconds=(min(seconds), float(np.median(seconds)), max(seconds)) if seconds else None,
        sample_rates_hz=dict(sorted(sample_rates_hz.items())),
        channels=dict(sorted(channels.items())),
    )


def _packed(split: PackedSplit, name: str) -> tuple[AudioSummary, tuple[BadFile, ...]]:
    rate_hz = split.audio.sample_rate_hz
    summary = _summary(
        [length / rate_hz for length in split.lengths],
        {rate_hz: len(split)},
        {split.audio.channels: len(split)},
    )
    reason = "its SHA-256 is not that of the index"
    damaged = damaged_shards(split)
    return summary, tuple(BadFile(shard.path, reason, name) for shard, _ in damaged)


_NAMED = 3
_THREADS = 16  # on a network file system each question costs a round trip


def missing_files(paths: Sequence[Path]) -> list[Path]:
    """Those of the paths at which no file lies, in their order."""
    with ThreadPoolExecutor(_THREADS) as pool:
        there = list(pool.map(os.path.isfile, paths, chunksize=256))
    return [path for path, found in zip(paths, there, strict=True) if not found]


def check_present(
    dataset: AudioDataset,
    splits: Sequence[str] | None = None,
    *,
    max_bad_share: float,
) -> None:
    """Refuse a data set of which more audio is missing than may be bad.

    Files are looked for, not opened: a wrong folder is found in a moment, where checking
    the files would read all of the audio that is there first.

    Args:
        dataset: The data set; packed splits are left out, for their shards were looked for.
        splits: Names of the splits that will be used, all when None.
        max_bad_share: Largest share of missing files that is tolerated, 0 to 1.

    Raises:
        DatasetError: More is missing. The message names the first files, says how many
            there are and where to get them.
    """
    paths = [
        path
        for name, split in dataset.splits.items()
        if (splits is None or name in splits) and not isinstance(split, PackedSplit)
        for path in split.paths
    ]
    missing = missing_files(paths)
    if len(missing) <= max_bad_share * len(paths):
        return
    first = ", ".join(str(path) for path in missing[:_NAMED])
    more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
    source = f" Get it from {dataset.published.homepage}." if dataset.published else ""
    if len(missing) == len(paths):
        advice = "Is the folder right (--data-dir, --audio-dir)?"
    else:
        advice = (
            f"To go on without them, raise max_bad_share (--max-bad-share) above "
            f"{len(missing) / len(paths):.4f}."
        )
    raise DatasetError(
        f"{len(missing):,} of the {len(paths):,} audio files of {dataset.name} are missing: "
        f"{first}{more}.{source} {advice}"
    )
