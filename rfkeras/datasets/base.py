"""The common form of all data sets: clips with labels and a mask, in splits.

Also here: holding out clips for validation, the log of unusable files, and the record of the
clips that a run was trained on.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import AudioError, CheckpointError, ConfigError, DatasetError
from rfkeras.tasks import MULTI_LABEL, SINGLE_LABEL, check_task
from rfkeras.utils.files import malformed, read_json, write_bytes, write_text
from rfkeras.utils.text import count, first_few

SPLITS = ("train", "validation", "test")
# Rules that choose the clips to hold out where a data set leaves it open: class by class or
# artist by artist, or clip by clip as version 0.1.0 did.
GROUPED, CLIPS = "grouped", "clips"
_FILES_IN_ERROR = 5
# With 12 digits, a false match between 100,000 clips and 100,000 others happens once in
# 28,000 comparisons.
_DIGEST_DIGITS = 12


@dataclass(frozen=True)
class Split:
    """The clips of one split.

    Attributes:
        keys: Identifier of each clip, unique in the data set.
        paths: Audio file of each clip.
        labels: (clips, classes) float32; 1 where the tag applies, else 0.
        mask: (clips, classes) float32; 1 where the label is known, 0 where it is unknown. An
            unknown label is 0 in `labels`.
        seconds: (clips,) float64, length of each file according to the data set's metadata,
            used to find truncated files; None if the metadata does not have it.
        groups: Group of each clip that must not be in two splits, such as its artist or
            recording location; None if unknown.

    Raises:
        DatasetError: The attributes differ in length.
    """

    keys: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: NDArray[np.float32]
    mask: NDArray[np.float32]
    seconds: NDArray[np.float64] | None = field(default=None, kw_only=True)
    groups: tuple[str, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        counts = {len(self.keys), len(self.paths), len(self.labels), len(self.mask)}
        if len(counts) != 1 or self.labels.shape != self.mask.shape or self.labels.ndim != 2:
            raise DatasetError(
                "A split needs the same number of keys, paths, label rows and mask rows. "
                f"Received: {len(self.keys)} keys, {len(self.paths)} paths, labels of shape "
                f"{self.labels.shape}, mask of shape {self.mask.shape}."
            )
        for name, values in (("seconds", self.seconds), ("groups", self.groups)):
            if values is not None and len(values) != len(self.keys):
                raise DatasetError(
                    f"A split needs one entry of {name} per clip, or None. Received: "
                    f"{len(values)} for {count(len(self.keys), 'clip')}."
                )

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> Split:
        """Return the clips with these row numbers, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return Split(
            keys=tuple(self.keys[i] for i in index),
            paths=tuple(self.paths[i] for i in index),
            labels=self.labels[index],
            mask=self.mask[index],
            seconds=None if self.seconds is None else self.seconds[index],
            groups=None if self.groups is None else tuple(self.groups[i] for i in index),
        )


@dataclass(frozen=True)
class Published:
    """Facts that a data set's publishers state, to compare a copy with.

    Attributes:
        homepage: Where to download it.
        clips: Number of clips per split, or of several splits together:
            {"train+validation": 14915, "test": 5085}. Uncertain numbers are left out.
        labels: Number of tags or classes; None if not known.
        group: Kind of group in `Split.groups`: "artist", for example.
    """

    homepage: str
    clips: Mapping[str, int] = field(default_factory=dict)
    labels: int | None = None
    group: str = "group"


@dataclass(frozen=True)
class AudioDataset:
    """A named set of clips and tags.

    Attributes:
        name: Name of the data set, "openmic" for example.
        label_names: Tag of each label column.
        splits: Splits by name ("train", "validation", "test"). A split without labels is
            left out.
        clip_seconds: Length that every file should have, used to find truncated files; None
            if lengths vary.
        task: "multi_label" (any number of tags per clip, some possibly unknown) or
            "single_label" (exactly one class per clip, all known).
        info: Further facts for the run folder, such as version, seed and subset.
        published: Facts stated by the publishers; None for your own data.
        remarks: Differences from the published data set, one sentence each.
        notes: What was left out or looks wrong, one sentence each. Unlike remarks, they are
            not faults of the data set.

    Raises:
        ConfigError: The task is unknown.
        DatasetError: The labels do not have one column per name, or a clip of a single-label
            data set does not have exactly one known class.
    """

    name: str
    label_names: tuple[str, ...]
    splits: dict[str, Split]
    clip_seconds: float | None = None
    task: str = MULTI_LABEL
    info: dict[str, object] = field(default_factory=dict)
    published: Published | None = field(default=None, kw_only=True)
    remarks: tuple[str, ...] = field(default=(), kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        check_task(self.task)
        for name, split in self.splits.items():
            if split.labels.shape[1] != len(self.label_names):
                raise DatasetError(
                    f"{self.name}, split {name!r}: labels of shape {split.labels.shape} do not "
                    f"fit {len(self.label_names)} label names."
                )
            if self.task == SINGLE_LABEL:
                _check_single_label(f"{self.name}, split {name!r}", split)

    def split(self, name: str) -> Split:
        """Return the split with this name.

        Raises:
            ConfigError: The data set has no such split.
        """
        if name not in self.splits:
            raise ConfigError(
                f"Data set {self.name!r} has no split {name!r}. It has: "
                f"{', '.join(self.splits)}."
            )
        return self.splits[name]


def _check_single_label(where: str, split: Split) -> None:
    one = (np.isin(split.labels, (0, 1)).all(axis=1)) & (split.labels.sum(axis=1) == 1)
    known = (split.mask == 1).all(axis=1)
    if not (one & known).all():
        row = int(np.flatnonzero(~(one & known))[0])
        if not one[row]:
            fault = count(int((split.labels[row] != 0).sum()), "class", "classes")
        else:
            fault = count(int((split.mask[row] != 1).sum()), "unknown label")
        raise DatasetError(
            f"{where}: a single-label clip must have exactly one class and no unknown labels, "
            f"but {split.keys[row]!r} has {fault}. Correct its labels, or make the data set "
            "multi_label."
        )


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Divide a split at random into (kept, held out).

    The result depends only on the seed and the set of keys, not on the order of the files.

    Args:
        split: The clips to divide.
        share: Share to hold out, between 0 and 1. At least one clip is held out.
        seed: Seed of the random choice.

    Raises:
        ConfigError: The share is not between 0 and 1, or there are fewer than 2 clips.
    """
    _check_divisible(split, share)
    by_key = np.argsort(np.array(split.keys), kind="stable")
    shuffled = by_key[np.random.default_rng(seed).permutation(len(split))]
    n_held_out = min(len(split) - 1, max(1, round(share * len(split))))
    return split.select(np.sort(shuffled[n_held_out:])), split.select(
        np.sort(shuffled[:n_held_out])
    )


def hold_out_by_class(
    split: Split, share: float, seed: int, reserve: int = 1
) -> tuple[Split, Split]:
    """Divide a split at random into (kept, held out), class by class.

    About the given share of each class is held out, and as many clips in all as `hold_out`
    does. The result depends only on the seed, the keys and the labels, not on the order of the
    files.

    Args:
        split: The clips, with one class each.
        share: Share to hold out, between 0 and 1.
        seed: Seed of the random choice.
        reserve: Of classes with more clips than this, at least one clip is held out and this
            many are kept. Of smaller classes, at least one is kept.

    Raises:
        ConfigError: The share is not between 0 and 1, or there are fewer than 2 clips.
    """
    _check_divisible(split, share)
    classes = split.labels.argmax(axis=1)
    order = np.argsort(np.array(split.keys), kind="stable")
    members = [order[classes[order] == column] for column in np.unique(classes)]
    sizes = np.array([len(rows) for rows in members])
    wanted = _apportion(share * sizes, max(1, round(share * len(split))))
    least = np.where(sizes > reserve, 1, 0)
    most = np.where(sizes > reserve, sizes - reserve, sizes - 1)
    numbers = np.clip(wanted, least, most)
    if not numbers.any():  # one clip per class
        return hold_out(split, share, seed)
    generator = np.random.default_rng(seed)
    held_out = [
        generator.permutation(rows)[:number]
        for rows, number in zip(members, numbers, strict=True)
    ]
    mine = np.isin(np.arange(len(split)), np.concatenate(held_out))
    return split.select(np.flatnonzero(~mine)), split.select(np.flatnonzero(mine))


def _apportion(quotas: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Round quotas to integers with this sum: down, then up where most was lost."""
    whole: NDArray[np.int64] = np.floor(quotas + 1e-9).astype(np.int64)
    missing = max(0, total - int(whole.sum()))
    whole[np.argsort(whole - quotas, kind="stable")[:missing]] += 1
    return whole


def _check_divisible(split: Split, share: float) -> None:
    if not 0 < share < 1 or len(split) < 2:
        raise ConfigError(
            "Holding out needs a share between 0 and 1 and at least 2 clips. Received: "
            f"share={share}, {count(len(split), 'clip')}."
        )


def hold_out_groups(
    split: Split, share: float, seed: int, label_names: Sequence[str]
) -> tuple[Split, Split]:
    """Divide a split at random into (kept, held out), keeping each group together.

    About the given share of each class is held out. The result depends only on the seed, the
    groups and the labels, not on the order of the files.

    Args:
        split: The clips, with groups and one class each.
        share: Share to hold out, between 0 and 1. In each class, at least one group is held
            out and one is kept.
        seed: Seed of the random choice.
        label_names: Name of each class, for errors.

    Raises:
        ConfigError: The share is not between 0 and 1, or the clips have no groups.
        DatasetError: All clips of a class are in one group.
    """
    if not 0 < share < 1 or split.groups is None:
        raise ConfigError(
            "Holding out groups needs groups and a share between 0 and 1. Received: "
            f"share={share}, groups {'given' if split.groups is not None else 'missing'}."
        )
    names, group_of = np.unique(np.array(split.groups), return_inverse=True)
    counts = np.zeros((len(names), split.labels.shape[1]), np.int64)
    np.add.at(counts, (group_of, split.labels.argmax(axis=1)), 1)
    owner = counts.argmax(axis=1)  # assign a group to its most frequent class, to draw it once
    generator = np.random.default_rng(seed)
    held_out: list[np.integer[Any]] = []
    for column in np.unique(owner):
        members = np.flatnonzero(owner == column)
        if len(members) < 2:
            raise DatasetError(
                f"All clips of {label_names[column]!r} are in the group "
                f"{str(names[members[0]])!r}, so none can be held out for validation without "
                "splitting the group."
            )
        held_out += _draw(members, counts.sum(axis=1)[members], share, generator)
    mine = np.isin(group_of, held_out)
    return split.select(np.flatnonzero(~mine)), split.select(np.flatnonzero(mine))


def hold_out_whole_groups(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Divide a split at random into (kept, held out), keeping each group together.

    Unlike `hold_out_groups`, this ignores the labels, so clips may have any number of tags.
    The result depends only on the seed and the groups, not on the order of the files.

    Args:
        split: The clips, with groups.
        share: Share to hold out, between 0 and 1. At least one group is held out and one is
            kept.
        seed: Seed of the random choice.

    Raises:
        ConfigError: The share is not between 0 and 1, or there are fewer than 2 groups.
    """
    names, group_of, sizes = np.unique(
        np.array(split.groups or ()), return_inverse=True, return_counts=True
    )
    if not 0 < share < 1 or len(names) < 2:
        raise ConfigError(
            "Holding out groups needs a share between 0 and 1 and at least 2 groups. Received: "
            f"share={share}, {count(len(names), 'group')}."
        )
    drawn = _draw(np.arange(len(names)), sizes, share, np.random.default_rng(seed))
    mine = np.isin(group_of, drawn)
    return split.select(np.flatnonzero(~mine)), split.select(np.flatnonzero(mine))


def _draw(
    members: NDArray[np.integer[Any]],
    sizes: NDArray[np.int64],
    share: float,
    generator: np.random.Generator,
) -> list[np.integer[Any]]:
    """Draw groups with about this share of the clips: at least one, and not all."""
    wanted = share * sizes.sum()
    drawn: list[np.integer[Any]] = []
    clips = 0
    for index in generator.permutation(len(members))[:-1]:
        if not drawn or abs(clips + sizes[index] - wanted) < abs(clips - wanted):
            drawn.append(members[index])
            clips += sizes[index]
    return drawn


# Unusable files


@dataclass(frozen=True)
class BadFile:
    """An unusable file.

    Attributes:
        path: The file.
        reason: Why it cannot be used.
        stage: What the program was doing: "training", "evaluation" or the name of a scan.
    """

    path: str
    reason: str
    stage: str


def print_damaged(dataset: str, damaged: Sequence[BadFile], split: str = "") -> None:
    """Print a note about files of which only a part can be decoded, on standard error.

    Args:
        dataset: Name of the data set.
        damaged: The files, with what is damaged; nothing is printed if there are none.
        split: Name of their split; "" if they are from several.
    """
    if damaged:
        files = count(len(damaged), f"{split} file".strip())
        first = first_few(f"{file.path}: {file.reason}" for file in damaged)
        text = f"{files} damaged and used only in part: {first}"
        print(f"Note on {dataset}: {text}", file=sys.stderr)


def write_bad_files(csv_path: Path, files: Iterable[BadFile]) -> None:
    """Write a CSV of bad files atomically; it has a header even if there are none.

    Args:
        csv_path: The file to write, with columns path, reason and stage.
        files: The bad files.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "reason", "stage"))
    writer.writerows((file.path, file.reason, file.stage) for file in files)
    # A path need not be valid Unicode.
    write_bytes(csv_path, text.getvalue().encode(errors="backslashreplace"))


class BadFileLog:
    """Thread-safe log of bad files that raises an error when there are too many.

    A file counts once, however often it fails.

    Args:
        csv_path: Where to write the list (path, reason, stage); None writes no file.
        total_files: Number of files in use.
        max_bad_share: Largest tolerated share of bad files, 0 to 1.

    Attributes:
        error: The DatasetError raised at the limit, else None. tf.data wraps errors of its
            workers; `raise_if_stopped` raises the original one.

    Raises:
        ConfigError: max_bad_share is not between 0 and 1, or total_files is less than 1.
    """

    def __init__(
        self, csv_path: Path | None, *, total_files: int, max_bad_share: float = 0.01
    ) -> None:
        if not 0 <= max_bad_share <= 1:
            raise ConfigError(
                f"max_bad_share must be between 0 and 1. Received: {max_bad_share}."
            )
        if total_files < 1:
            raise ConfigError(f"total_files must be at least 1. Received: {total_files}.")
        self.csv_path = csv_path
        self.total_files = total_files
        self.max_bad_share = max_bad_share
        self.error: DatasetError | None = None
        self._files: dict[str, BadFile] = {}
        self._lock = threading.Lock()

    @property
    def files(self) -> list[BadFile]:
        """The bad files so far, sorted by path."""
        with self._lock:
            return self._sorted()

    def __contains__(self, path: object) -> bool:
        with self._lock:
            return str(path) in self._files

    def record(self, error: AudioError, stage: str) -> None:
        """Add one file.

        Args:
            error: Names the file and the reason.
            stage: What the program was doing.

        Raises:
            DatasetError: There are more bad files than the limit allows.
        """
        self.record_all([BadFile(error.path, error.reason, stage)])

    def record_all(self, bad: Iterable[BadFile]) -> None:
        """Add several files and write the list once.

        Raises:
            DatasetError: There are more bad files than the limit allows.
        """
        with self._lock:
            before = len(self._files)
            for file in bad:
                self._files.setdefault(file.path, file)
            if len(self._files) > before and self.csv_path is not None:
                write_bad_files(self.csv_path, self._sorted())
            if len(self._files) > self.max_bad_share * self.total_files:
                raise self.stop(self._message())

    def stop(self, message: str) -> DatasetError:
        """Create the error that ends the run and keep it for `raise_if_stopped`."""
        self.error = DatasetError(message)
        return self.error

    def raise_if_stopped(self) -> None:
        """Raise the error that ended the run, if any.

        Raises:
            DatasetError: There were too many bad files.
        """
        if self.error is not None:
            raise self.error

    def _sorted(self) -> list[BadFile]:
        return [self._files[path] for path in sorted(self._files)]

    def _message(self) -> str:
        bad = self._sorted()
        first = "; ".join(f"{file.path}: {file.reason}" for file in bad[:_FILES_IN_ERROR])
        more = f"; and {len(bad) - _FILES_IN_ERROR} more" if len(bad) > _FILES_IN_ERROR else ""
        where = f" The full list is in {self.csv_path}." if self.csv_path else ""
        return (
            f"{len(bad)} of {self.total_files} audio files cannot be used; the limit is "
            f"{self.max_bad_share:.2%}. {first}{more}.{where} Repair or remove them, or raise "
            f"max_bad_share (--max-bad-share) above {len(bad) / self.total_files:.4f}."
        )


# Record of the clips that a run was trained on


def write_clip_record(path: Path, dataset: str, keys: Sequence[str]) -> None:
    """Write a record of clips as shortened digests, about 1 MB for 55,000 clips.

    Args:
        path: The JSON file to write.
        dataset: Name of the data set; for a packed one, the name of its source.
        keys: Keys of the clips.
    """
    content = {"dataset": dataset, "sha256_starts": sorted(map(_digest, keys))}
    write_text(path, json.dumps(content, indent=0) + "\n")


def recorded_clips(path: Path, dataset: str, keys: Sequence[str]) -> list[str]:
    """Return the keys that are in a record.

    Args:
        path: The JSON file. A missing file is an empty record.
        dataset: Name of the data set that the keys belong to.
        keys: Keys of clips.

    Raises:
        CheckpointError: The file is not a record of clips.
    """
    if not path.is_file():
        return []
    try:
        with malformed():
            record = read_json(path)
            if record["dataset"] != dataset:
                return []
            digests = set(record["sha256_starts"])
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a record of clips: {error}") from error
    return [key for key in keys if _digest(key) in digests]


def _digest(key: str) -> str:
    content = key.encode(errors="surrogateescape")
    return hashlib.sha256(content).hexdigest()[:_DIGEST_DIGITS]
