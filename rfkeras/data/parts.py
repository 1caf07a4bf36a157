"""One worker's part of a data set that several read together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rfkeras.data.dataset import Split
from rfkeras.data.records import PackedSplit
from rfkeras.errors import ConfigError

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Part:
    """Which part of every global batch a worker reads, and for how many replicas.

    A global batch is divided in order: the first worker reads its first clips, and of those
    the first replica the first.

    Args:
        index: The worker, from 0.
        count: Workers.
        replicas: Replicas of each worker, its devices.

    Raises:
        ConfigError: The numbers make no sense.
    """

    index: int = 0
    count: int = 1
    replicas: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count or self.replicas < 1:
            raise ConfigError(
                "A part has an index from 0 to count - 1 and at least one replica. Received: "
                f"index {self.index} of {self.count}, {self.replicas} replicas."
            )

    def batch(self, batch_size: int) -> int:
        """Clips of a global batch that the worker reads.

        Raises:
            ConfigError: The batch does not divide evenly over all replicas.
        """
        replicas = self.count * self.replicas
        if batch_size % replicas:
            raise ConfigError(
                f"batch_size must be a multiple of the {replicas} replicas. Received: "
                f"{batch_size}."
            )
        return batch_size // self.count

    def place(self, own: tf.Tensor, batch_size: int) -> tf.Tensor:
        """Place in the run's stream of clips of the clip at this place of the worker's own."""
        mine = self.batch(batch_size)
        return own // mine * batch_size + self.index * mine + own % mine

    def holds(self, place: tf.Tensor, batch_size: int) -> tf.Tensor:
        """Whether the worker reads the clip at this place of the run's stream."""
        return place % batch_size // self.batch(batch_size) == self.index


WHOLE = Part()


def rows_of(split: Split, part: Part) -> NDArray[np.int64]:
    """Rows of a split that a worker evaluates: neighbours, so that shards stay whole."""
    if isinstance(split, PackedSplit):
        ends = np.cumsum([shard.records for shard in split.shards])
        # A shard belongs to the worker in whose share of the clips its middle lies.
        middles = ends - np.array([shard.records for shard in split.shards]) / 2
        owners = np.minimum(middles * part.count // max(len(split), 1), part.count - 1)
        return np.flatnonzero(np.repeat(owners, np.diff(ends, prepend=0)) == part.index)
    rows: NDArray[np.int64] = np.array_split(np.arange(len(split)), part.count)[part.index]
    return rows


def part_of(split: Split, part: Part) -> Split:
    """The clips of a split that a worker evaluates, possibly none; see `rows_of`."""
    rows = rows_of(split, part)
    if not isinstance(split, PackedSplit):
        return split.select(rows)
    first = int(rows[0]) if len(rows) else 0
    chosen = slice(first, first + len(rows))
    starts = np.cumsum([0, *(shard.records for shard in split.shards)])[:-1]
    inside = (starts >= chosen.start) & (starts < chosen.stop)
    return replace(
        split,
        keys=split.keys[chosen],
        paths=split.paths[chosen],
        labels=split.labels[chosen],
        mask=split.mask[chosen],
        shards=tuple(split.shards[i] for i in np.flatnonzero(inside)),
        lengths=split.lengths[chosen],
    )
