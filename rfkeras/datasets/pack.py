"""Write a data set as TFRecord shards of decoded, resampled audio."""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.decode import open_audio
from rfkeras.audio.io import AudioFormat, Waveform
from rfkeras.datasets.base import AudioDataset, BadFileLog, Split
from rfkeras.datasets.checks import check_clip, check_present
from rfkeras.datasets.packed import FORMAT_NAME, FORMAT_VERSION, INDEX_NAME, PackedSplit, sha256
from rfkeras.errors import AudioError, ConfigError
from rfkeras.utils.files import ASIDE, naming, remove_leftovers, sole_writer, write_text

_FULL_SCALE = 32768


@dataclass(frozen=True)
class StoredClip:
    """A clip ready to be written.

    Attributes:
        row: Its row in the split that it is from.
        wav: 16-bit PCM WAV file.
        length: Samples.
        clipped: Whether a sample was above full scale.
    """

    row: int
    wav: bytes
    length: int
    clipped: bool


def store_clip(
    split: Split,
    row: int,
    audio: AudioFormat,
    clip_seconds: float | None = None,
    decoder: str = "soundfile",
) -> StoredClip:
    """Check, decode and resample one clip of a split, and read back what is stored.

    Args:
        split: The clips.
        row: Which of them.
        audio: Format to store.
        clip_seconds: Length of every file by the data set's definition.
        decoder: One of `rfkeras.audio.decode.FILE_DECODERS`.

    Raises:
        AudioError: The file cannot be used.
    """
    path = split.paths[row]
    check_clip(split, row, clip_seconds, decoder=decoder)
    with open_audio(path, audio, decoder=decoder) as file:
        waveform = file.read()
    wav, clipped = to_wav(waveform, audio)
    with open_audio(wav, audio, str(path)) as file:
        stored = file.read()
    limit = np.clip(waveform, -1, 1 - 1 / _FULL_SCALE)
    if stored.shape != waveform.shape or np.abs(stored - limit).max() > 0.5 / _FULL_SCALE:
        raise AudioError(str(path), "what was packed differs from what was read")
    return StoredClip(row, wav, len(waveform), clipped)


def to_wav(waveform: Waveform, audio: AudioFormat) -> tuple[bytes, bool]:
    """16-bit PCM WAV bytes of a waveform, and whether a sample had to be clipped."""
    import soundfile

    scaled = np.rint(waveform * np.float32(_FULL_SCALE))
    integers = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, integers, audio.sample_rate_hz, format="WAV", subtype="PCM_16")
    # Rounding +1.0 to the largest step is no clipping that anyone could hear or measure.
    return buffer.getvalue(), bool((np.abs(scaled) > _FULL_SCALE).any())


def example_of(split: Split, clip: StoredClip) -> bytes:
    """The record of a clip: a serialised tf.train.Example, see `rfkeras.datasets.packed`."""
    import tensorflow as tf

    def floats(values: Any) -> tf.train.Feature:
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    def raw(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        "key": raw(split.keys[clip.row].encode("utf-8", "surrogateescape")),
        "wav": raw(clip.wav),
        "labels": floats(split.labels[clip.row]),
        "mask": floats(split.mask[clip.row]),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialized: bytes = example.SerializeToString()
    return serialized


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
