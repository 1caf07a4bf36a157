"""Check a data set without training: audio files, clips and tags, overlap of splits."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.decode import check_audio
from rfkeras.audio.io import AudioInfo
from rfkeras.datasets.base import AudioDataset, BadFile, Split
from rfkeras.datasets.packed import PackedSplit, damaged_shards
from rfkeras.errors import AudioError, DatasetError
from rfkeras.utils.label_names import label_name_notes
from rfkeras.utils.progress import track
from rfkeras.utils.remote import RemotePath
from rfkeras.utils.text import count, first_few

# Durations in metadata are rounded and come from another decoder, which may count padding or
# estimate from the bit rate. Broken downloads lack more than that.
METADATA_TOLERANCE_SECONDS = 2.0
_PROGRESS_FROM_FILES = 200  # shorter scans need no progress bar
_START_BYTES = 1 << 16  # distinguishes nearly all files of equal size
_LOOKUP_THREADS = 16  # on a network file system each lookup costs a round trip
_LISTED_FROM = 16  # files in one remote folder
_SPLIT_ADJECTIVES = {"train": "training"}


# Audio files


@dataclass(frozen=True)
class ScanResult:
    """Result of scanning the audio files of a split.

    Attributes:
        good_rows: Rows of the split whose file can be used, ascending.
        bad: The other files, in the order of the split.
        sample_rates: Number of good files by their sample rate in Hz.
        infos: Properties of the good files, in the order of good_rows.
        damaged: Good files of which only a part can be read, with what is damaged.
    """

    good_rows: NDArray[np.int64]
    bad: tuple[BadFile, ...]
    sample_rates: dict[int, int]
    infos: tuple[AudioInfo, ...] = field(default=(), repr=False)
    damaged: tuple[BadFile, ...] = ()

    def resampling(self, target_hz: int) -> list[str]:
        """Return one line per sample rate that has to be resampled.

        Example:
            ["1,204 files 44100 Hz -> 22050 Hz"]
        """
        return [
            f"{count(files, 'file')} {rate} Hz -> {target_hz} Hz"
            for rate, files in sorted(self.sample_rates.items())
            if rate != target_hz
        ]


def scan_split(
    split: Split,
    *,
    expected_seconds: float | None = None,
    workers: int | None = None,
    progress: bool = True,
    stage: str = "scan",
    decoder: str = "soundfile",
    decode: bool = False,
) -> ScanResult:
    """Check all files of a split in parallel. Bad files raise no error.

    Args:
        split: The clips.
        expected_seconds: Length that every file should have; None if lengths vary.
        workers: Number of threads; None uses one per CPU.
        progress: Show progress on standard error during long scans.
        stage: Name of this scan in the list of bad files.
        decoder: One of `rfkeras.audio.decode.DECODERS`.
        decode: Whether to decode every file whole, which also finds damage in the middle.

    Returns:
        The good and the bad files.
    """

    def check(row: int) -> AudioInfo | AudioError:
        try:
            return check_clip(split, row, expected_seconds, decoder=decoder, decode=decode)
        except AudioError as error:
            return error

    good: list[int] = []
    bad: list[BadFile] = []
    infos: list[AudioInfo] = []
    damaged: list[BadFile] = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        results = pool.map(check, range(len(split)))
        if progress and len(split) >= _PROGRESS_FROM_FILES:
            results = track(results, len(split), f"Checking audio ({stage})", unit="files")
        for row, result in enumerate(results):
            if isinstance(result, AudioError):
                bad.append(BadFile(result.path, result.reason, stage))
            else:
                good.append(row)
                infos.append(result)
                if result.notes:
                    reason = "; ".join(result.notes)
                    damaged.append(BadFile(str(split.paths[row]), reason, stage))
    rates = Counter(info.sample_rate_hz for info in infos)
    return ScanResult(
        np.asarray(good, dtype=np.int64), tuple(bad), dict(rates), tuple(infos), tuple(damaged)
    )


def check_clip(
    split: Split,
    row: int,
    expected_seconds: float | None,
    *,
    decoder: str = "soundfile",
    decode: bool = False,
) -> AudioInfo:
    """Check the file of one clip, including its length if that is known.

    Args:
        split: The clips.
        row: Row of the clip in the split.
        expected_seconds: Length that every file should have. The clip's own length in
            `split.seconds` takes precedence.
        decoder: One of `rfkeras.audio.decode.DECODERS`.
        decode: Whether to decode the whole file, which also finds damage in the middle.

    Returns:
        Properties of the file.

    Raises:
        AudioError: The file cannot be used.
    """
    path = split.paths[row]
    if split.seconds is None:
        return check_audio(path, expected_seconds, decoder=decoder, decode=decode)
    seconds = float(split.seconds[row])
    return check_audio(
        path, seconds, METADATA_TOLERANCE_SECONDS, decoder=decoder, decode=decode
    )


def check_present(
    dataset: AudioDataset,
    splits: Sequence[str] | None = None,
    *,
    max_bad_share: float,
) -> None:
    """Raise an error if too many audio files are missing.

    Files are only looked up, not opened. This finds a wrong folder immediately, before any
    audio is read.

    Args:
        dataset: The data set. Packed splits are skipped, because `load_packed` has already
            found their shards.
        splits: Names of the splits to check; None checks all.
        max_bad_share: Largest tolerated share of missing files, 0 to 1.

    Raises:
        DatasetError: More files are missing. The message states their number, the first paths
            and where to get the files.
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
    source = f" Get them from {dataset.published.homepage}." if dataset.published else ""
    if len(missing) == len(paths):
        advice = "Is the folder right (--data-dir, --audio-dir)?"
    else:
        advice = (
            f"To continue without them, raise max_bad_share (--max-bad-share) above "
            f"{len(missing) / len(paths):.4f}."
        )
    raise DatasetError(
        f"{len(missing):,} of the {count(len(paths), 'audio file')} of {dataset.name} are "
        f"missing: {first_few(missing)}.{source} {advice}"
    )


def missing_files(paths: Sequence[Path]) -> list[Path]:
    """Return the paths that are not files, in their order."""
    with ThreadPoolExecutor(_LOOKUP_THREADS) as pool:
        for _ in pool.map(RemotePath.prepare_lookups, _full_remote_folders(paths)):
            pass
        present = list(pool.map(_is_file, paths, chunksize=256))
    return [path for path, found in zip(paths, present, strict=True) if not found]


def _full_remote_folders(paths: Sequence[Path]) -> list[RemotePath]:
    """Return the remote folders with so many of the paths that listing them is faster."""
    files = Counter(path.parent for path in paths if isinstance(path, RemotePath))
    return [
        folder
        for folder, number in files.items()
        if isinstance(folder, RemotePath) and number >= _LISTED_FROM
    ]


def _is_file(path: Path) -> bool:
    # Path.is_file fails at too long names.
    return path.is_file() if isinstance(path, RemotePath) else os.path.isfile(path)  # noqa: PTH113


# Numbers of clips and labels, overlap of splits


def differences(dataset: AudioDataset) -> list[str]:
    """List everything unexpected about this copy of a data set, one sentence each.

    Args:
        dataset: The data set.

    Returns:
        Its remarks, differences from the published numbers and overlaps between splits.
        Empty if there are none.
    """
    found = list(dataset.remarks)
    for names, (clips, expected) in published_clips(dataset).items():
        if clips != expected:
            splits = " and ".join(
                _SPLIT_ADJECTIVES.get(name, name) for name in names.split("+")
            )
            found.append(
                f"{count(clips, f'{splits} clip')}; the published data set has {expected:,}"
            )
    labels = dataset.published.labels if dataset.published else None
    if labels not in (None, len(dataset.label_names)):
        found.append(
            f"{count(len(dataset.label_names), 'label')}; the published data set has {labels}"
        )
    for kind, pairs in overlaps(dataset).items():
        for pair, shared in pairs.items():
            verb = "is" if len(shared) == 1 else "are"
            found.append(
                f"{count(len(shared), kind)} {verb} in both {pair.replace(', ', ' and ')}: "
                f"{first_few(shared)}"
            )
    return found


def published_clips(dataset: AudioDataset) -> dict[str, tuple[int, int]]:
    """Compare the number of clips with the published one.

    Args:
        dataset: The data set.

    Returns:
        (found, published) by split, or by several splits together ("train+validation").
    """
    published = dataset.published.clips if dataset.published else {}
    return {
        names: (sum(len(dataset.splits.get(name, ())) for name in names.split("+")), clips)
        for names, clips in published.items()
    }


def overlaps(dataset: AudioDataset) -> dict[str, dict[str, list[str]]]:
    """Find clips and groups that are in two splits.

    Args:
        dataset: The data set.

    Returns:
        For "key" and, if the splits have groups, for the kind of group: the values that two
        splits share, sorted, as in {"artist": {"train, test": ["artist_7"]}}. Pairs of
        splits that share nothing are left out.
    """
    kinds: dict[str, dict[str, Sequence[str]]] = {
        "key": {name: split.keys for name, split in dataset.splits.items()}
    }
    groups = {name: split.groups for name, split in dataset.splits.items()}
    known = {name: values for name, values in groups.items() if values is not None}
    if known:
        kinds[dataset.published.group if dataset.published else "group"] = dict(known)
    return {
        kind: {
            f"{first}, {second}": shared
            for first, second in combinations(members, 2)
            if (shared := sorted(set(members[first]) & set(members[second])))
        }
        for kind, members in kinds.items()
    }


# What looks wrong


def notes(dataset: AudioDataset) -> list[str]:
    """List what was left out of a data set and what looks wrong, one sentence per kind.

    Args:
        dataset: The data set.

    Returns:
        Its notes, tags whose names look like mistakes, and tags that no clip of a split has.
        Unlike `differences`, none of this means that the data set is broken.
    """
    found = [*dataset.notes, *label_name_notes(dataset.label_names)]
    anywhere = np.any(
        [_has_positive(split) for split in dataset.splits.values() if len(split)], axis=0
    )
    for name, split in dataset.splits.items():
        without = np.flatnonzero(anywhere & ~_has_positive(split)) if len(split) else ()
        if len(without):
            tags = [dataset.label_names[column] for column in without]
            found.append(
                f"{count(len(tags), 'tag')} without clips in {name}: {first_few(tags)}"
            )
    return found


def _has_positive(split: Split) -> NDArray[np.bool_]:
    """Return which tags a clip of a split is known to have."""
    positive: NDArray[np.bool_] = np.any(split.labels * split.mask > 0, axis=0)
    return positive


@dataclass(frozen=True)
class EqualFiles:
    """Files with equal content.

    Attributes:
        pairs: For one split ("train") or two ("train, test"): pairs of keys of clips with the
            same content, sorted.
    """

    pairs: dict[str, list[tuple[str, str]]]

    @property
    def across_splits(self) -> dict[str, list[tuple[str, str]]]:
        """The pairs whose files are in different splits."""
        return {where: pairs for where, pairs in self.pairs.items() if ", " in where}

    def notes(self) -> list[str]:
        """Return a sentence per split or pair of splits."""
        return [
            f"{count(len(pairs), 'file')} of {where.replace(', ', ' and ')} "
            f"{'has' if len(pairs) == 1 else 'have'} the same content as another: "
            f"{first_few(f'{one} = {other}' for one, other in pairs)}"
            for where, pairs in self.pairs.items()
        ]


def equal_files(dataset: AudioDataset) -> EqualFiles:
    """Find files with equal content, by size and checksum.

    Only files of equal size are read, and only those with an equal beginning as a whole.

    Args:
        dataset: The data set. Packed splits are skipped, and so are missing and empty files.
    """
    clips = [
        (name, key, path)
        for name, split in dataset.splits.items()
        if not isinstance(split, PackedSplit)
        for key, path in zip(split.keys, split.paths, strict=True)
    ]
    paths = [path for _, _, path in clips]
    groups = [list(range(len(clips)))]
    with ThreadPoolExecutor(_LOOKUP_THREADS) as pool:
        for measure in (_size, _digest_of_start, _digest):
            groups = _divide(groups, paths, measure, pool)
    pairs: dict[str, list[tuple[str, str]]] = {}
    for group in groups:
        first: dict[str, str] = {}  # by split
        for row in group:
            name, key, _ = clips[row]
            for other, other_key in first.items():
                where = name if name == other else f"{other}, {name}"
                pairs.setdefault(where, []).append((other_key, key))
            first.setdefault(name, key)
    return EqualFiles({where: sorted(found) for where, found in pairs.items()})


def _divide(
    groups: list[list[int]],
    paths: Sequence[Path],
    measure: Callable[[Path], object],
    pool: ThreadPoolExecutor,
) -> list[list[int]]:
    """Divide groups of files by a measure; drop files without one and groups of one file."""
    rows = [row for group in groups for row in group]
    measured = dict(
        zip(rows, pool.map(measure, [paths[row] for row in rows], chunksize=64), strict=True)
    )
    divided: list[list[int]] = []
    for group in groups:
        by_measure: dict[object, list[int]] = {}
        for row in group:
            if measured[row] is not None:
                by_measure.setdefault(measured[row], []).append(row)
        divided += [members for members in by_measure.values() if len(members) > 1]
    return divided


def _size(path: Path) -> int | None:
    """Return the size of a file; None if it is missing or empty."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size or None if stat.S_ISREG(status.st_mode) else None


def _digest_of_start(path: Path) -> bytes | None:
    """Return a checksum of the beginning of a file; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.blake2b(file.read(_START_BYTES)).digest()
    except OSError:
        return None


def _digest(path: Path) -> bytes | None:
    """Return a checksum of a file; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError:
        return None


# Everything together


@dataclass(frozen=True)
class LabelCount:
    """Counts of one tag.

    Attributes:
        positive: Clips that have the tag.
        known: Clips whose label for this tag is known.
    """

    positive: int
    known: int

    @property
    def share(self) -> float:
        """Share of positive clips among the known ones; NaN if none is known."""
        return self.positive / self.known if self.known else float("nan")


@dataclass(frozen=True)
class AudioSummary:
    """The usable files of a split.

    Attributes:
        files: Number of files.
        hours: Total length.
        seconds: Shortest, median and longest file; None without files.
        sample_rates_hz: Number of files by sample rate.
        channels: Number of files by number of channels.
    """

    files: int
    hours: float
    seconds: tuple[float, float, float] | None
    sample_rates_hz: dict[int, int]
    channels: dict[int, int]


@dataclass(frozen=True)
class SplitCheck:
    """Result of checking one split.

    Attributes:
        clips: Number of clips.
        without_tag: Number of clips without any tag known to apply.
        labels: Counts by tag.
        audio: Summary of the audio files; None if they were not checked.
        bad: Files that are missing or cannot be used.
        damaged: Files that can be read in part, with what is damaged.
    """

    clips: int
    without_tag: int
    labels: dict[str, LabelCount]
    audio: AudioSummary | None
    bad: tuple[BadFile, ...]
    damaged: tuple[BadFile, ...] = ()


@dataclass(frozen=True)
class DatasetCheck:
    """Result of `check_dataset`.

    Attributes:
        name: Name of the data set.
        task: "multi_label" or "single_label".
        homepage: Where to download it; None for your own data.
        info: Facts about this copy, such as subset, fold and seeds.
        splits: Result for each split.
        published: (found, published) number of clips, see `published_clips`.
        overlaps: Clips and groups that are in two splits, see `overlaps`.
        differences: Everything unexpected, see `differences`, and files of your own data that
            are in two splits.
        notes: What was left out or looks wrong, see `notes`, and other equal files.
        equal_files: Pairs of clips with equal content, see `EqualFiles`.
    """

    name: str
    task: str
    homepage: str | None
    info: dict[str, object]
    splits: dict[str, SplitCheck]
    published: dict[str, tuple[int, int]]
    overlaps: dict[str, dict[str, list[str]]]
    differences: list[str]
    notes: list[str] = field(default_factory=list)
    equal_files: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    @property
    def damaged(self) -> list[BadFile]:
        """Files of all splits that can be read in part."""
        return [file for split in self.splits.values() for file in split.damaged]

    @property
    def bad(self) -> list[BadFile]:
        """Files of all splits that are missing or cannot be used."""
        return [file for split in self.splits.values() for file in split.bad]

    @property
    def ok(self) -> bool:
        """Return whether there are no bad or damaged files and no differences."""
        return not self.bad and not self.damaged and not self.differences

    def to_json(self) -> str:
        """Return the whole result as JSON text."""
        splits = {}
        for name, split in self.splits.items():
            content: dict[str, Any] = asdict(split)
            for tag, label in split.labels.items():
                content["labels"][tag]["share"] = label.share if label.known else None
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
            "notes": self.notes,
            "equal_files": self.equal_files,
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
    """Check labels, numbers of clips and every audio file of a data set.

    Args:
        dataset: The data set. For packed splits, the checksums of the shards are compared.
        audio: Check the audio files too, not only lists and labels.
        workers: Number of threads; None uses one per CPU.
        progress: Show progress on standard error during long scans.

    Returns:
        The result for each split, and the differences from what is published.

    Raises:
        DatasetError: A shard cannot be read.
    """
    splits = {}
    for name, split in dataset.splits.items():
        summary: AudioSummary | None = None
        bad: tuple[BadFile, ...] = ()
        damaged: tuple[BadFile, ...] = ()
        if audio and isinstance(split, PackedSplit):
            summary, bad = _check_shards(split, name)
        elif audio:
            scan = scan_split(
                split,
                expected_seconds=dataset.clip_seconds,
                workers=workers,
                progress=progress,
                stage=name,
                decode=True,
            )
            bad = scan.bad
            damaged = scan.damaged
            summary = _summary(
                [info.duration_seconds for info in scan.infos],
                scan.sample_rates,
                Counter(info.channels for info in scan.infos),
            )
        splits[name] = SplitCheck(
            clips=len(split),
            without_tag=int((~(split.labels * split.mask).any(axis=1)).sum()),
            labels=_label_counts(split, dataset.label_names),
            audio=summary,
            bad=bad,
            damaged=damaged,
        )
    equal = equal_files(dataset) if audio else EqualFiles({})
    own = EqualFiles({} if dataset.published else equal.across_splits)
    others = EqualFiles({k: v for k, v in equal.pairs.items() if k not in own.pairs})
    return DatasetCheck(
        name=dataset.name,
        task=dataset.task,
        homepage=dataset.published.homepage if dataset.published else None,
        info=dataset.info,
        splits=splits,
        published=published_clips(dataset),
        overlaps=overlaps(dataset),
        differences=[*differences(dataset), *own.notes()],
        notes=[*notes(dataset), *others.notes()],
        equal_files=equal.pairs,
    )


def _check_shards(split: PackedSplit, name: str) -> tuple[AudioSummary, tuple[BadFile, ...]]:
    rate_hz = split.audio.sample_rate_hz
    summary = _summary(
        [length / rate_hz for length in split.lengths],
        {rate_hz: len(split)},
        {split.audio.channels: len(split)},
    )
    reason = "its SHA-256 differs from the one in the index"
    damaged = damaged_shards(split)
    return summary, tuple(BadFile(shard.path, reason, name) for shard, _ in damaged)


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


def _label_counts(split: Split, names: tuple[str, ...]) -> dict[str, LabelCount]:
    positive = (split.labels * split.mask > 0).sum(axis=0)
    known = (split.mask > 0).sum(axis=0)
    return {
        name: LabelCount(int(positive[column]), int(known[column]))
        for column, name in enumerate(names)
    }
