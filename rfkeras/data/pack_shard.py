"""One shard of a packed data set: its file, and what the index tells of its clips."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfkeras.data.dataset import Split
from rfkeras.data.pack_clip import StoredClip, example_of
from rfkeras.data.records import sha256
from rfkeras.files import ASIDE, naming


@dataclass(frozen=True)
class Shard:
    """A finished shard.

    Attributes:
        file: Name of the file.
        bytes: Its size.
        sha256: Of its content.
        rows: Of each clip in it, in their order: its row in the split that it is from.
        lengths: Samples of each.
        clipped_clips: Clips with a sample above full scale.
    """

    file: str
    bytes: int
    sha256: str
    rows: list[int]
    lengths: list[int]
    clipped_clips: int


class ShardWriter:
    """Writes one shard, which has its name when it is whole.

    Args:
        path: The file.
        split: That the clips are from.
    """

    def __init__(self, path: Path, split: Split) -> None:
        import tensorflow as tf

        self.path = path
        self.split = split
        self.audio_bytes = 0
        self._aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}{ASIDE}")
        self._writer = tf.io.TFRecordWriter(str(self._aside))
        self._rows: list[int] = []
        self._lengths: list[int] = []
        self._clipped = 0

    def add(self, clip: StoredClip) -> None:
        """Append a clip."""
        with self._writing():
            self._writer.write(example_of(self.split, clip))
        self.audio_bytes += len(clip.wav)
        self._rows.append(clip.row)
        self._lengths.append(clip.length)
        self._clipped += clip.clipped

    def finish(self) -> Shard:
        """Close the file and give it its name."""
        with self._writing():
            self._writer.close()
            with self._aside.open("rb") as file:
                os.fsync(file.fileno())
            self._aside.replace(self.path)
        return Shard(
            self.path.name,
            self.path.stat().st_size,
            sha256(str(self.path)),
            self._rows,
            self._lengths,
            self._clipped,
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with naming(self.path):
                yield
        except BaseException:
            with suppress(OSError):
                self._aside.unlink(missing_ok=True)
            raise


def shard_name(split: str, number: int) -> str:
    """File name of a split's shard."""
    return f"{split}-{number:05d}.tfrecord"


def split_entry(split: Split, shards: Sequence[Shard]) -> dict[str, Any]:
    """What the index tells of a split."""
    rows = [row for shard in shards for row in shard.rows]
    return {
        "shards": [
            {
                "file": shard.file,
                "records": len(shard.rows),
                "bytes": shard.bytes,
                "sha256": shard.sha256,
            }
            for shard in shards
        ],
        "keys": [split.keys[row] for row in rows],
        "lengths": [length for shard in shards for length in shard.lengths],
        "clipped_clips": sum(shard.clipped_clips for shard in shards),
        "labels": split.labels[rows].tolist(),
        "mask": split.mask[rows].tolist(),
    }
