"""What every data source hands over: clips with labels and a mask, split by use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import ConfigError, DatasetError
from rfkeras.tasks import MULTI_LABEL, SINGLE_LABEL, check_task

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
