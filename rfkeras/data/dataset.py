"""What every data source hands over: clips with labels and a mask, split by use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import ConfigError, DatasetError

SPLITS = ("train", "validation", "test")
TASKS = ("multi_label", "single_label")


@dataclass(frozen=True)
class Split:
    """Clips of one split.

    Attributes:
        keys: Identifier of each clip, unique in the data set.
        paths: Audio file of each clip.
        labels: (clips, classes) float32, 1 where the tag applies, 0 elsewhere.
        mask: (clips, classes) float32, 1 where the label is known, 0 where nobody
            annotated it: there the label is 0 and means nothing.
    """

    keys: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: NDArray[np.float32]
    mask: NDArray[np.float32]

    def __post_init__(self) -> None:
        counts = {len(self.keys), len(self.paths), len(self.labels), len(self.mask)}
        if len(counts) != 1 or self.labels.shape != self.mask.shape or self.labels.ndim != 2:
            raise DatasetError(
                "A split needs as many keys, paths, labels and mask rows. Received: "
                f"{len(self.keys)} keys, {len(self.paths)} paths, labels {self.labels.shape}, "
                f"mask {self.mask.shape}."
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
        )


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
    """

    name: str
    label_names: tuple[str, ...]
    splits: dict[str, Split]
    clip_seconds: float | None = None
    task: str = "multi_label"
    info: dict[str, object] = field(default_factory=dict)

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
