"""What every data source hands over: clips with labels and a mask, split by use."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import AudioError, CheckpointError, ConfigError, DatasetError
from rfkeras.tasks import MULTI_LABEL, SINGLE_LABEL, check_task
from rfkeras.utils.files import malformed, read_json, write_bytes, write_text

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Clips of one split.

    Attributes:
        keys: Identifier of each clip, unique in the data set.
        paths: Audio file of each clip.
        labels: (clips, classes) float32, 1 where the tag applies, 0 elsewhere.
        mask: (clips, classes) float32, 1 where the label is known, 0 where nobody
            annotated it: there the label is 0 and means nothing.
        seconds: (clips,) float64, length of each file by the data set's metadata, used to
            find truncated files; None where the metadata does not say.
        groups: What must not straddle splits, of each clip: its artist or its recording
            location; None where unknown.
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
                "A split needs as many keys, paths, labels and mask rows. Received: "
                f"{len(self.keys)} keys, {len(self.paths)} paths, labels {self.labels.shape}, "
                f"mask {self.mask.shape}."
            )
        for name, values in (("seconds", self.seconds), ("groups", self.groups)):
            if values is not None and len(values) != len(self.keys):
                raise DatasetError(
                    f"A split needs one entry of {name} a clip, or None. Received: "
                    f"{len(values)} for {len(self.keys)} clips."
                )

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> Split:
        """The clips at these row numbers, in this order."""
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
    """What a data set's publishers say about it, to hold a copy against.

    Attributes:
        homepage: Where to get it.
        clips: Clips of each split, or of several together: {"train+validation": 14915,
            "test": 5085}. What is not known for certain is left out.
        labels: Number of tags or classes, None where not known.
        group: What `Split.groups` holds, in one word: "artist".
    """

    homepage: str
    clips: Mapping[str, int] = field(default_factory=dict)
    labels: int | None = None
    group: str = "group"


@dataclass(frozen=True)
class AudioDataset:
    """A named set of clips and tags.

    Attributes:
        name: Name of the source, "openmic" for example.
        label_names: Tag of each label column.
        splits: Splits by name ("train", "validation", "test"); a source without labels
            for one leaves it out.
        clip_seconds: Length that every file has by the data set's own definition, used to
            find truncated files; None where lengths vary.
        task: "multi_label": any number of tags a clip, some perhaps unknown;
            "single_label": exactly one class a clip, all known.
        info: Anything else worth writing into the run folder (version, seed, rates).
        published: What the publishers say about the data set, None for one's own.
        remarks: What the source noticed that a user should know, a sentence each.

    Raises:
        DatasetError: The task is unknown, the labels have not one column a name, or a
            single-label clip has not exactly one class, known for certain.
    """

    name: str
    label_names: tuple[str, ...]
    splits: dict[str, Split]
    clip_seconds: float | None = None
    task: str = MULTI_LABEL
    info: dict[str, object] = field(default_factory=dict)
    published: Published | None = field(default=None, kw_only=True)
    remarks: tuple[str, ...] = field(default=(), kw_only=True)

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
        """The split of that name.

        Raises:
            ConfigError: The data set has no such split.
        """
        if name not in self.splits:
            raise ConfigError(
                f"Data set {self.name!r} has no split {name!r}. It has: "
                f"{', '.join(self.splits)}."
            )
        return self.splits[name]


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Divide a split at random into (kept, held out).

    The choice depends on the seed and the sorted keys alone, so neither the order of the
    files on disk nor the machine changes it.

    Args:
        split: The clips to divide.
        share: Share to hold out, between 0 and 1; at least one clip is held out.
        seed: Seed of the choice.

    Raises:
        ConfigError: share is not inside (0, 1), or there are fewer than 2 clips.
    """
    if not 0 < share < 1 or len(split) < 2:
        raise ConfigError(
            "Holding out needs a share between 0 and 1 and at least 2 clips. "
            f"Received: share={share}, {len(split)} clips."
        )
    by_key = np.argsort(np.array(split.keys), kind="stable")
    shuffled = by_key[np.random.default_rng(seed).permutation(len(split))]
    n_held_out = min(len(split) - 1, max(1, round(share * len(split))))
    return split.select(np.sort(shuffled[n_held_out:])), split.select(
        np.sort(shuffled[:n_held_out])
    )


def hold_out_groups(
    split: Split, share: float, seed: int, label_names: Sequence[str]
) -> tuple[Split, Split]:
    """Divide a split into (kept, held out) so that no group is in both.

    Of each class about the share is held out. The choice depends on the seed, the groups
    and the labels, not on the order of the files.

    Args:
        split: The clips, with groups and with one class each.
        share: Share to hold out, between 0 and 1; of each class at least one group is held
            out and one is kept.
        seed: Seed of the choice.
        label_names: Name of each class, for the error.

    Raises:
        ConfigError: share is not inside (0, 1), or the clips have no groups.
        DatasetError: All clips of a class are of one group.
    """
    if not 0 < share < 1 or split.groups is None:
        raise ConfigError(
            "Holding out groups needs groups and a share between 0 and 1. Received: "
            f"share={share}, groups {'given' if split.groups is not None else 'missing'}."
        )
    names, group_of = np.unique(np.array(split.groups), return_inverse=True)
    counts = np.zeros((len(names), split.labels.shape[1]), np.int64)
    np.add.at(counts, (group_of, split.labels.argmax(axis=1)), 1)
    owner = counts.argmax(axis=1)  # of one class, its commonest, so that it is drawn once
    generator = np.random.default_rng(seed)
    held_out: list[np.integer[Any]] = []
    for column in np.unique(owner):
        members = np.flatnonzero(owner == column)
        if len(members) < 2:
            raise DatasetError(
                f"All clips of {label_names[column]!r} are of the group "
                f"{str(names[members[0]])!r}: nothing can be held out for validation without "
                "a group being in two splits."
            )
        held_out += _draw(members, counts.sum(axis=1)[members], share, generator)
    mine = np.isin(group_of, held_out)
    return split.select(np.flatnonzero(~mine)), split.select(np.flatnonzero(mine))


def _draw(
    members: NDArray[np.integer[Any]],
    sizes: NDArray[np.int64],
    share: float,
    generator: np.random.Generator,
) -> list[np.integer[Any]]:
    """Random members with about that share of the clips; at least one in, one out."""
    wanted = share * sizes.sum()
    drawn: list[np.integer[Any]] = []
    clips = 0
    for index in generator.permutation(len(members))[:-1]:
        if not drawn or abs(clips + sizes[index] - wanted) < abs(clips - wanted):
            drawn.append(members[index])
            clips += sizes[index]
    return drawn


def _check_single_label(where: str, split: Split) -> None:
    one = (np.isin(split.labels, (0, 1)).all(axis=1)) & (split.labels.sum(axis=1) == 1)
    known = (split.mask == 1).all(axis=1)
    if not (one & known).all():
        row = int(np.flatnonzero(~(one & known))[0])
        fault = (
            f"has {int((split.labels[row] != 0).sum())} classes"
            if not one[row]
            else f"has {int((split.mask[row] != 1).sum())} labels that are masked as unknown"
        )
        raise DatasetError(
            f"{where}: a single-label clip has exactly one class and nothing unknown, but "
            f"{split.keys[row]!r} {fault}. Mend its labels, or make the data set multi_label."
        )


_NAMED_IN_ERROR = 5


@dataclass(frozen=True)
class BadFile:
    """A file, why it cannot be used, and what was being done with it."""

    path: str
    reason: str
    stage: str


def write_bad_files(csv_path: Path, files: Iterable[BadFile]) -> None:
    """Write a CSV of bad files, whole or not at all, with a header even if there are none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "reason", "stage"))
    writer.writerows((file.path, file.reason, file.stage) for file in files)
    # A path need not be valid Unicode.
    write_bytes(csv_path, text.getvalue().encode(errors="backslashreplace"))


class BadFileLog:
    """Collects bad files from any thread, writes them to a CSV, stops at a limit.

    A file counts once however often it is met.

    Args:
        csv_path: Where the list is written (path, reason, stage); no file when None.
        total_files: Files in use, of which the bad ones are a share.
        max_bad_share: Largest share of bad files that is tolerated, 0 to 1.

    Attributes:
        error: The DatasetError raised when the limit was passed, None before. tf.data
            wraps what its workers raise; `raise_if_stopped` gives the original back.

    Raises:
        ConfigError: max_bad_share is not within 0 and 1, or there is no file at all.
    """

    def __init__(
        self, csv_path: Path | None, *, total_files: int, max_bad_share: float = 0.01
    ) -> None:
        if not 0 <= max_bad_share <= 1:
            raise ConfigError(
                f"max_bad_share must lie between 0 and 1. Received: {max_bad_share}."
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
        """The bad files so far, by path."""
        with self._lock:
            return [self._files[path] for path in sorted(self._files)]

    def __contains__(self, path: object) -> bool:
        with self._lock:
            return str(path) in self._files

    def record(self, error: AudioError, stage: str) -> None:
        """Add one file.

        Raises:
            DatasetError: More files are bad than the limit allows.
        """
        self.record_all([BadFile(error.path, error.reason, stage)])

    def record_all(self, bad: Iterable[BadFile]) -> None:
        """Add several files and write the list once.

        Raises:
            DatasetError: More files are bad than the limit allows.
        """
        with self._lock:
            before = len(self._files)
            for file in bad:
                self._files.setdefault(file.path, file)
            if len(self._files) > before:
                self._write()
            if len(self._files) > self.max_bad_share * self.total_files:
                raise self.stop(self._message())

    def stop(self, message: str) -> DatasetError:
        """Keep a DatasetError that ends the run, for `raise_if_stopped`; returns it."""
        self.error = DatasetError(message)
        return self.error

    def raise_if_stopped(self) -> None:
        """Raise the DatasetError that stopped the reading, if any."""
        if self.error is not None:
            raise self.error

    def _write(self) -> None:
        if self.csv_path is not None:
            write_bad_files(self.csv_path, (self._files[path] for path in sorted(self._files)))

    def _message(self) -> str:
        bad = [self._files[path] for path in sorted(self._files)]
        named = "; ".join(f"{file.path}: {file.reason}" for file in bad[:_NAMED_IN_ERROR])
        more = f"; and {len(bad) - _NAMED_IN_ERROR} more" if len(bad) > _NAMED_IN_ERROR else ""
        where = f" The full list is in {self.csv_path}." if self.csv_path else ""
        return (
            f"{len(bad)} of {self.total_files} audio files cannot be used; the limit is "
            f"{self.max_bad_share:.2%}. {named}{more}.{where} Mend or remove them, or raise "
            f"max_bad_share (--max-bad-share) above {len(bad) / self.total_files:.4f}."
        )


# Of 100,000 clips held against 100,000 others, two share 12 digits once in 28,000 times.
_DIGITS = 12


def write_clip_record(path: Path, dataset: str, keys: Sequence[str]) -> None:
    """Write the record: 1 MB for 55,000 clips.

    Args:
        path: The JSON file to make.
        dataset: Name of the data set, of a packed one that of its source.
        keys: Keys of the clips.
    """
    content = {"dataset": dataset, "sha256_starts": sorted(map(_digest, keys))}
    write_text(path, json.dumps(content, indent=0) + "\n")


def recorded_clips(path: Path, dataset: str, keys: Sequence[str]) -> list[str]:
    """Those of the keys that are on record.

    Args:
        path: The JSON file; where there is none, nothing is on record.
        dataset: Name of the data set that the keys are of.
        keys: Keys of clips.

    Raises:
        CheckpointError: The file is no such record.
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
        raise CheckpointError(f"{path} is no record of clips: {error}") from error
    return [key for key in keys if _digest(key) in digests]


def _digest(key: str) -> str:
    content = key.encode(errors="surrogateescape")
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


_NAMED = 3


def published_clips(dataset: AudioDataset) -> dict[str, tuple[int, int]]:
    """Clips found and clips published, of each split (or splits together) that is known."""
    published = dataset.published.clips if dataset.published else {}
    return {
        names: (sum(len(dataset.splits.get(name, ())) for name in names.split("+")), clips)
        for names, clips in published.items()
    }


def overlaps(dataset: AudioDataset) -> dict[str, dict[str, list[str]]]:
    """What is in two splits.

    Returns:
        "key" and, where the splits have groups, the kind of group, each with the values
        that two splits share, sorted: {"artist": {"train, test": ["artist_7"]}}. Pairs of
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


def differences(dataset: AudioDataset) -> list[str]:
    """What a user should know about this copy, a sentence each; empty when all is well."""
    found = list(dataset.remarks)
    for names, (clips, expected) in published_clips(dataset).items():
        if clips != expected:
            found.append(
                f"{names.replace('+', ' and ')}: {clips:,} clips, published are {expected:,}"
            )
    labels = dataset.published.labels if dataset.published else None
    if labels not in (None, len(dataset.label_names)):
        found.append(f"{len(dataset.label_names)} labels, published are {labels}")
    for kind, pairs in overlaps(dataset).items():
        for pair, shared in pairs.items():
            named = ", ".join(shared[:_NAMED]) + (", ..." if len(shared) > _NAMED else "")
            found.append(f"{pair}: {len(shared):,} {kind}s are in both: {named}")
    return found
