"""What a data set holds and what is wrong with it, found without training."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rfkeras.data.bad_files import BadFile
from rfkeras.data.dataset import AudioDataset, Split
from rfkeras.data.published import differences, overlaps, published_clips
from rfkeras.data.records import PackedSplit, damaged_shards
from rfkeras.data.scan import scan_split


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
        overlaps: What is in two splits: see `rfkeras.data.published.overlaps`.
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
