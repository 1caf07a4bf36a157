"""Write a data set as TFRecord shards of decoded, resampled audio."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.data.audio_format import AudioFormat
from rfkeras.data.bad_files import BadFileLog
from rfkeras.data.dataset import AudioDataset, Split
from rfkeras.data.pack_clip import StoredClip, store_clip
from rfkeras.data.pack_shard import Shard, ShardWriter, shard_name, split_entry
from rfkeras.data.presence import check_present
from rfkeras.data.records import (
    FORMAT_NAME,
    FORMAT_VERSION,
    INDEX_NAME,
    PackedSplit,
)
from rfkeras.errors import AudioError, ConfigError
from rfkeras.files import remove_leftovers, write_text
from rfkeras.locks import sole_writer

LOCK = ".lock"
_ORDER_SEED = 0
_CHUNK_CLIPS = 64  # decoded ahead of the writer


def pack(
    dataset: AudioDataset,
    audio: AudioFormat,
    out_dir: Path,
    *,
    shard_mb: float = 128.0,
    workers: int | None = None,
    progress: bool = True,
    max_bad_share: float = 0.01,
    decoder: str = "soundfile",
) -> Path:
    """Decode, check and resample every clip, and write shards and their index.

    Samples are rounded to 16 bits: they differ from reading the files by at most half a
    step (2^-16); peaks above full scale are clipped, and the index says in how many clips.
    The train split is written in a fixed random order, so that a shuffle buffer mixes
    classes that lie together in the source. Bad files are left out, listed in
    out_dir/bad_files.csv, up to the limit.

    Args:
        dataset: What to pack.
        audio: Format to store; the model's.
        out_dir: A new folder, or one in which packing did not finish.
        shard_mb: Shard size in MB, reached before the next shard starts.
        workers: Decoding threads; the number of CPUs when None.
        progress: Show a bar on standard error.
        max_bad_share: Largest share of bad files that is tolerated.
        decoder: What reads files: "soundfile", or "isolated", which does the same in
            processes that may die.

    Returns:
        The index, which is written last: a folder that has one is complete.

    Raises:
        ConfigError: out_dir already has an index, or the data set is packed already.
        DatasetError: Too many files are missing or bad.
    """
    out_dir = Path(out_dir)
    check_target(out_dir, dataset)
    if shard_mb <= 0:
        raise ConfigError(f"shard_mb must be positive. Received: {shard_mb}.")
    check_present(dataset, max_bad_share=max_bad_share)
    total = sum(len(split) for split in dataset.splits.values())
    with sole_writer(out_dir / LOCK, out_dir):
        check_target(out_dir, dataset)  # another process may just have finished
        remove_leftovers(out_dir)
        bad_files = BadFileLog(
            out_dir / "bad_files.csv", total_files=total, max_bad_share=max_bad_share
        )
        packer = _Packer(
            audio,
            out_dir,
            dataset.clip_seconds,
            int(shard_mb * 1e6),
            workers,
            progress,
            bad_files,
            decoder,
        )
        shards = {name: packer.split(name, split) for name, split in dataset.splits.items()}
        return write_index(out_dir, dataset, audio, shards, bad_files)


def check_target(out_dir: Path, dataset: AudioDataset) -> None:
    """Refuse what cannot be packed, and a folder that is complete.

    Raises:
        ConfigError: out_dir already has an index, or the data set is packed already.
    """
    if (out_dir / INDEX_NAME).exists():
        raise ConfigError(f"{out_dir} already holds a packed data set. Choose another folder.")
    if any(isinstance(split, PackedSplit) for split in dataset.splits.values()):
        raise ConfigError("This data set is packed already. Pack from its source.")


def storage_order(name: str, split: Split) -> NDArray[np.int64]:
    """Rows of a split in the order in which they are stored: of train, a fixed random one."""
    rows = np.arange(len(split))
    return np.random.default_rng(_ORDER_SEED).permutation(rows) if name == "train" else rows


def write_index(
    out_dir: Path,
    dataset: AudioDataset,
    audio: AudioFormat,
    shards: Mapping[str, Sequence[Shard]],
    bad_files: BadFileLog,
) -> Path:
    """Write what makes a folder of shards a packed data set; returns the index.

    What an earlier packing that did not finish left there is removed.
    """
    index = {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "dataset": dataset.name,
        "label_names": list(dataset.label_names),
        "audio": asdict(audio),
        "clip_seconds": dataset.clip_seconds,
        "task": dataset.task,
        "info": dataset.info,
        "splits": {name: split_entry(dataset.splits[name], of) for name, of in shards.items()},
        "left_out": [asdict(file) for file in bad_files.files],
    }
    index_path = out_dir / INDEX_NAME
    write_text(index_path, json.dumps(index, separators=(",", ":")))
    indexed = {shard.file for of in shards.values() for shard in of}
    for name in shards:
        for path in out_dir.glob(f"{name}-[0-9][0-9][0-9][0-9][0-9].tfrecord*"):
            if path.name not in indexed:
                path.unlink()
    return index_path


@dataclass(frozen=True)
class _Packer:
    """What all splits of one packing share."""

    audio: AudioFormat
    out_dir: Path
    clip_seconds: float | None
    shard_bytes: int
    workers: int | None
    progress: bool
    bad_files: BadFileLog
    decoder: str

    def split(self, name: str, split: Split) -> list[Shard]:
        """Write the shards of one split."""
        shards: list[Shard] = []
        writer: ShardWriter | None = None
        for clip in self._decoded(name, split):
            if writer is None:
                writer = ShardWriter(self.out_dir / shard_name(name, len(shards)), split)
            writer.add(clip)
            if writer.audio_bytes >= self.shard_bytes:
                shards.append(writer.finish())
                writer = None
        if writer is not None:
            shards.append(writer.finish())
        return shards

    def _decoded(self, name: str, split: Split) -> Iterator[StoredClip]:
        """Clips in the order in which they are stored, decoded in parallel."""
        rows = storage_order(name, split)
        with ThreadPoolExecutor(self.workers or os.cpu_count() or 1) as pool:
            chunks = [rows[i : i + _CHUNK_CLIPS] for i in range(0, len(rows), _CHUNK_CLIPS)]
            for chunk in self._tracked(chunks, name):
                for result in pool.map(lambda row: self._clip(split, int(row)), chunk):
                    if isinstance(result, AudioError):
                        self.bad_files.record(result, f"pack {name}")
                    else:
                        yield result

    def _tracked(self, chunks: list[Any], name: str) -> Iterator[Any]:
        if not self.progress:
            yield from chunks
            return
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        yield from track(chunks, description=f"Packing {name}", console=console)

    def _clip(self, split: Split, row: int) -> StoredClip | AudioError:
        try:
            return store_clip(split, row, self.audio, self.clip_seconds, self.decoder)
        except AudioError as error:
            return error
