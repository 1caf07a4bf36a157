"""Write a data set as TFRecord shards of decoded, resampled audio."""

from __future__ import annotations

import io
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.decode import open_audio
from rfkeras.audio.io import AudioFormat, Waveform
from rfkeras.datasets.base import AudioDataset, BadFile, BadFileLog, Split, print_damaged
from rfkeras.datasets.checks import check_clip, check_present
from rfkeras.datasets.packed import (
    FORMAT_NAME,
    FORMAT_VERSION,
    INDEX_NAME,
    PackedSplit,
    load_packed,
    sha256,
)
from rfkeras.errors import AudioError, ConfigError, DatasetError, one_file
from rfkeras.tasks import MULTI_LABEL, SINGLE_LABEL, check_task
from rfkeras.utils.files import (
    PARTIAL,
    move_into_place,
    naming_write_errors,
    remove_leftovers,
    sole_writer,
    write_text,
)
from rfkeras.utils.label_names import check_label_names
from rfkeras.utils.progress import track
from rfkeras.utils.remote import RemotePath, scratch_path, to_path

LOCK = ".lock"
_ORDER_SEED = 0
_CHUNK_CLIPS = 64  # decoded ahead of the writer
_FULL_SCALE = 32768


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

    Samples are rounded to 16 bits, so they differ from the files by at most half a step
    (2^-16). Peaks above full scale are clipped; the index records in how many clips. The
    train split is stored in a fixed random order, so that a shuffle buffer mixes classes
    that are next to each other in the source. Bad files, up to the limit, are left out and
    listed in out_dir/bad_files.csv.

    Args:
        dataset: Data set to pack.
        audio: Format to store: the input format of the model.
        out_dir: A new folder, or one in which packing did not finish. May be an s3://, gs://,
            az:// or hdfs:// URL.
        shard_mb: Size in MB at which the next shard starts.
        workers: Number of decoding threads; None uses one per CPU.
        progress: Show progress on standard error.
        max_bad_share: Largest tolerated share of bad files.
        decoder: "soundfile", or "isolated" to decode in separate processes that may crash.

    Returns:
        Path of the index. It is written last, so a folder with an index is complete.

    Raises:
        ConfigError: out_dir already has an index, or the data set is already packed.
        DatasetError: Too many files are missing or bad.
    """
    out_dir = to_path(out_dir)
    if isinstance(out_dir, RemotePath):
        out_dir.check_writable()
    check_target(out_dir, dataset)
    if shard_mb <= 0:
        raise ConfigError(f"shard_mb must be positive. Received: {shard_mb}.")
    check_present(dataset, max_bad_share=max_bad_share)
    total = sum(len(split) for split in dataset.splits.values())
    with sole_writer(out_dir / LOCK, out_dir):
        check_target(out_dir, dataset)  # another process may have just finished
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
        shards = {name: packer.pack(name, split) for name, split in dataset.splits.items()}
        print_damaged(dataset.name, packer.damaged)
        return write_index(out_dir, dataset, audio, shards, bad_files.files)


def from_tf_data(
    splits: Mapping[str, Any],
    label_names: Sequence[str],
    out_dir: str | Path,
    *,
    sample_rate_hz: int,
    task: str = MULTI_LABEL,
    name: str = "tf_data",
    shard_mb: float = 128.0,
    progress: bool = True,
) -> AudioDataset:
    """Read finite tf.data sets once, and write their clips as a packed data set.

    A run draws its own excerpts, resumes at any step and evaluates whole clips, so it needs
    clips that it can read again. Do not augment or repeat the sets before; random changes would
    be the same in every epoch. (`model.fit` trains on such a pipeline as it is.) Samples are
    stored as by `pack`. Training clips are shuffled within each shard.

    Args:
        splits: tf.data set by split: "train", "validation", "test". Elements are single clips,
            not batches: (waveform, labels) or (waveform, labels, mask). The waveform has shape
            (samples,) or (samples, 2). Labels and mask have shape (classes,); for single-label
            data, labels may also be the number of the class. The mask is 0 where a label is
            unknown.
        label_names: Tag of each label column.
        out_dir: A new folder.
        sample_rate_hz: Sample rate of the waveforms, and so of the model's front-end.
        task: "multi_label" or "single_label".
        name: Name of the data set.
        shard_mb: Size in MB at which the next shard starts.
        progress: Show progress on standard error.

    Returns:
        The packed data set, which `load_packed(out_dir)` opens again.

    Raises:
        ConfigError: out_dir already has an index, or an argument is wrong.
        DatasetError: An element has another shape, is empty or not finite.

    Example:
        >>> dataset = from_tf_data(
        ...     {"train": train, "validation": validation, "test": test},
        ...     ["violin", "drums"], "shards", sample_rate_hz=22050,
        ... )
        >>> rfkeras.train("resnet_rf_tiny", dataset)
    """
    names, out_dir = check_label_names(label_names), to_path(out_dir)
    if isinstance(out_dir, RemotePath):
        out_dir.check_writable()
    empty = np.zeros((0, len(names)), np.float32)
    dataset = AudioDataset(
        name, names, {key: Split((), (), empty, empty) for key in splits}, task=check_task(task)
    )
    check_target(out_dir, dataset)
    channels = {split: _channels(split, elements) for split, elements in splits.items()}
    if len(set(channels.values())) != 1:
        raise ConfigError(f"All splits need the same number of channels. Received: {channels}.")
    audio = AudioFormat(sample_rate_hz, next(iter(channels.values())))
    with sole_writer(out_dir / LOCK, out_dir):
        remove_leftovers(out_dir)
        shards = {}
        for split, elements in splits.items():
            reader = _Elements(split, names, audio, task)
            shown, total = elements.as_numpy_iterator(), int(elements.cardinality())
            if total > 0:  # otherwise unknown
                shown = track(
                    shown, total, f"Packing {split}", unit="clips", quiet=not progress
                )
            dataset.splits[split], shards[split] = reader.write(
                shown, out_dir, int(shard_mb * 1e6)
            )
        write_index(out_dir, dataset, audio, shards, ())
    return load_packed(str(out_dir))


def _channels(split: str, elements: Any) -> int:
    """Return the number of channels of a tf.data set's waveforms.

    Raises:
        ConfigError: It is not a finite tf.data set of single clips.
    """
    import tensorflow as tf

    if not isinstance(elements, tf.data.Dataset):
        raise ConfigError(
            f"Split {split!r} must be a tf.data.Dataset. Received: {type(elements).__name__}."
        )
    if elements.cardinality().numpy() == tf.data.INFINITE_CARDINALITY:
        raise ConfigError(f"Split {split!r} never ends. Leave out repeat().")
    spec = elements.element_spec
    shape = spec[0].shape if isinstance(spec, tuple) and len(spec) in (2, 3) else None
    if shape is not None and shape.rank == 1:
        return 1
    if shape is not None and shape.rank == 2 and shape[1] == 2:
        return 2
    raise ConfigError(
        f"Elements of split {split!r} must be (waveform, labels) or (waveform, labels, mask) "
        "of one clip each, with waveforms of shape (samples,) or (samples, 2): use unbatch() "
        f"on batches. Received: {spec}."
    )


@dataclass
class _Elements:
    """Writes the elements of one tf.data set as shards."""

    split: str
    label_names: Sequence[str]
    audio: AudioFormat
    task: str

    def write(
        self, elements: Iterable[Any], out_dir: Path, shard_bytes: int
    ) -> tuple[Split, list[WrittenShard]]:
        """Write all shards; return the clips, in the order of the set, and the shards."""
        shards: list[WrittenShard] = []
        parts: list[Split] = []
        first, pending = 0, list[tuple[EncodedClip, Any, Any]]()
        for element in elements:
            row = len(pending)
            pending.append(self._encode(row, first + row, *element))
            if sum(len(clip.wav) for clip, *_ in pending) >= shard_bytes:
                parts.append(self._split(first, pending))
                shards.append(self._shard(out_dir, len(shards), first, parts[-1], pending))
                first, pending = first + len(pending), []
        if pending:
            parts.append(self._split(first, pending))
            shards.append(self._shard(out_dir, len(shards), first, parts[-1], pending))
        if not parts:
            raise DatasetError(f"Split {self.split!r} has no clips.")
        whole = Split(
            tuple(key for part in parts for key in part.keys),
            tuple(path for part in parts for path in part.paths),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.mask for part in parts]),
        )
        return whole, shards

    def _encode(
        self, row: int, number: int, waveform: Any, labels: Any, mask: Any = None
    ) -> tuple[EncodedClip, Any, Any]:
        where = f"Element {number:,} of split {self.split!r}"
        if not len(waveform) or not np.isfinite(waveform).all():
            raise DatasetError(f"{where} has no samples, or samples that are not finite.")
        classes = len(self.label_names)
        labels = np.asarray(labels)
        if self.task == SINGLE_LABEL and labels.ndim == 0 and 0 <= labels < classes:
            labels = np.eye(classes)[int(labels)]
        mask = np.ones(classes) if mask is None else np.asarray(mask)
        if labels.shape != (classes,) or mask.shape != (classes,):
            raise DatasetError(
                f"{where} has labels of shape {labels.shape} and a mask of shape {mask.shape}; "
                f"there are {classes} label names."
            )
        for what, values in (("labels", labels), ("mask", mask)):
            if not np.isin(values, (0, 1)).all():
                raise DatasetError(f"{where} has {what} other than 0 and 1.")
        wav, clipped = to_wav(np.asarray(waveform, np.float32), self.audio)
        return EncodedClip(row, wav, len(waveform), clipped), labels * mask, mask

    def _split(self, first: int, pending: Sequence[tuple[EncodedClip, Any, Any]]) -> Split:
        keys = tuple(f"{self.split}/{first + row:07d}" for row in range(len(pending)))
        return Split(
            keys,
            tuple(map(Path, keys)),
            np.asarray([labels for _, labels, _ in pending], np.float32),
            np.asarray([mask for _, _, mask in pending], np.float32),
        )

    def _shard(
        self,
        out_dir: Path,
        number: int,
        first: int,
        part: Split,
        pending: Sequence[tuple[EncodedClip, Any, Any]],
    ) -> WrittenShard:
        writer = ShardWriter(out_dir / shard_name(self.split, number), part)
        for row in storage_order(self.split, part):
            writer.add(pending[row][0])
        shard = writer.finish()
        return replace(shard, rows=[first + row for row in shard.rows])


@dataclass(frozen=True)
class _Packer:
    """The settings of one packing, and the steps that use them."""

    audio: AudioFormat
    out_dir: Path
    clip_seconds: float | None
    shard_bytes: int
    workers: int | None
    progress: bool
    bad_files: BadFileLog
    decoder: str
    damaged: list[BadFile] = field(default_factory=list)

    def pack(self, name: str, split: Split) -> list[WrittenShard]:
        """Write the shards of one split."""
        shards: list[WrittenShard] = []
        writer: ShardWriter | None = None
        for clip in self._encoded_clips(name, split):
            if writer is None:
                writer = ShardWriter(self.out_dir / shard_name(name, len(shards)), split)
            writer.add(clip)
            if writer.audio_bytes >= self.shard_bytes:
                shards.append(writer.finish())
                writer = None
        if writer is not None:
            shards.append(writer.finish())
        return shards

    def _encoded_clips(self, name: str, split: Split) -> Iterator[EncodedClip]:
        """Encode the clips in parallel, in the order of storage."""
        rows = storage_order(name, split)
        with ThreadPoolExecutor(self.workers or os.cpu_count() or 1) as pool:
            chunks = [rows[i : i + _CHUNK_CLIPS] for i in range(0, len(rows), _CHUNK_CLIPS)]
            shown = track(
                chunks, len(chunks), f"Packing {name}", unit="parts", quiet=not self.progress
            )
            for chunk in shown:
                for result in pool.map(lambda row: self._encode(split, int(row)), chunk):
                    if isinstance(result, AudioError):
                        self.bad_files.record(result, f"pack {name}")
                        continue
                    if result.damage:
                        path = str(split.paths[result.row])
                        self.damaged.append(BadFile(path, result.damage, f"pack {name}"))
                    yield result

    def _encode(self, split: Split, row: int) -> EncodedClip | AudioError:
        try:
            return encode_clip(split, row, self.audio, self.clip_seconds, self.decoder)
        except AudioError as error:
            return error


# Parts that the Apache Beam pipeline uses too


def check_target(out_dir: Path, dataset: AudioDataset) -> None:
    """Check that the data set can be packed and that the folder has no index yet.

    Raises:
        ConfigError: out_dir already has an index, the data set is already packed, or a tag's
            name is refused.
    """
    if (out_dir / INDEX_NAME).exists():
        raise ConfigError(
            f"{out_dir} already has a packed data set. Choose another folder, or remove it."
        )
    if any(isinstance(split, PackedSplit) for split in dataset.splits.values()):
        raise ConfigError("This data set is already packed. Pack its source instead.")
    check_label_names(dataset.label_names)


def storage_order(name: str, split: Split) -> NDArray[np.int64]:
    """Return the rows of a split in the order of storage; for train, a fixed random one."""
    rows = np.arange(len(split))
    return np.random.default_rng(_ORDER_SEED).permutation(rows) if name == "train" else rows


def shard_name(split: str, number: int) -> str:
    """Return the file name of a shard."""
    return f"{split}-{number:05d}.tfrecord"


@dataclass(frozen=True)
class EncodedClip:
    """A clip in the form in which it is stored.

    Attributes:
        row: Row of the clip in its split.
        wav: A 16-bit PCM WAV file.
        length: Number of samples.
        clipped: Whether any sample was above full scale.
        damage: What of the file cannot be decoded, or "".
    """

    row: int
    wav: bytes
    length: int
    clipped: bool
    damage: str = ""


def encode_clip(
    split: Split,
    row: int,
    audio: AudioFormat,
    clip_seconds: float | None = None,
    decoder: str = "soundfile",
) -> EncodedClip:
    """Check, decode and resample a clip, encode it as WAV, and verify the result.

    Args:
        split: The clips.
        row: Row of the clip in the split.
        audio: Format to store.
        clip_seconds: Length that every file should have; None if lengths vary.
        decoder: One of `rfkeras.audio.decode.FILE_DECODERS`.

    Raises:
        AudioError: The file cannot be used.
    """
    path = split.paths[row]
    with one_file(path):
        check_clip(split, row, clip_seconds, decoder=decoder)
        with open_audio(path, audio, decoder=decoder) as file:
            waveform = file.read()
            damage = "; ".join(file.notes)
        wav, clipped = to_wav(waveform, audio)
        with open_audio(wav, audio, str(path)) as file:
            stored = file.read()
        limit = np.clip(waveform, -1, 1 - 1 / _FULL_SCALE)
        if stored.shape != waveform.shape or np.abs(stored - limit).max() > 0.5 / _FULL_SCALE:
            raise AudioError(str(path), "the packed samples differ from those of the file")
        return EncodedClip(row, wav, len(waveform), clipped, damage)


def to_wav(waveform: Waveform, audio: AudioFormat) -> tuple[bytes, bool]:
    """Encode a waveform as 16-bit PCM WAV.

    Args:
        waveform: float32 of shape (samples,) or (samples, 2).
        audio: Format of the waveform.

    Returns:
        (content of the WAV file, whether any sample was clipped).
    """
    import soundfile

    scaled = np.rint(waveform * np.float32(_FULL_SCALE))
    integers = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, integers, audio.sample_rate_hz, format="WAV", subtype="PCM_16")
    # Rounding +1.0 to the largest step does not count as clipping, because it is inaudible.
    return buffer.getvalue(), bool((np.abs(scaled) > _FULL_SCALE).any())


@dataclass(frozen=True)
class WrittenShard:
    """A finished shard.

    Attributes:
        file: Name of the file.
        bytes: Size of the file.
        sha256: SHA-256 of the file in hex.
        rows: Row of each clip in its split, in the order of storage.
        lengths: Number of samples of each clip.
        clipped_clips: Number of clips with a sample above full scale.
    """

    file: str
    bytes: int
    sha256: str
    rows: list[int]
    lengths: list[int]
    clipped_clips: int


class ShardWriter:
    """Writes one shard. The file gets its name only when it is complete.

    Args:
        path: The file. To a URL, it is uploaded when it is complete.
        split: Split that the clips belong to.
    """

    def __init__(self, path: Path, split: Split) -> None:
        import tensorflow as tf

        self.path = path
        self.split = split
        self.audio_bytes = 0
        self._aside = (
            scratch_path(path.name)
            if isinstance(path, RemotePath)
            else path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
        )
        self._writer = tf.io.TFRecordWriter(str(self._aside))
        self._rows: list[int] = []
        self._lengths: list[int] = []
        self._clipped = 0

    def add(self, clip: EncodedClip) -> None:
        """Append a clip."""
        with self._writing():
            self._writer.write(_record(self.split, clip))
        self.audio_bytes += len(clip.wav)
        self._rows.append(clip.row)
        self._lengths.append(clip.length)
        self._clipped += clip.clipped

    def finish(self) -> WrittenShard:
        """Close the file and give it its name."""
        with self._writing():
            self._writer.close()
            size, digest = self._aside.stat().st_size, sha256(str(self._aside))
            if isinstance(self.path, RemotePath):
                self.path.upload(self._aside)
                self._aside.unlink()
            else:
                move_into_place(self._aside, self.path)
        return WrittenShard(
            self.path.name,
            size,
            digest,
            self._rows,
            self._lengths,
            self._clipped,
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with naming_write_errors(self.path):
                yield
        except BaseException:
            with suppress(OSError):
                self._aside.unlink(missing_ok=True)
            raise


def _record(split: Split, clip: EncodedClip) -> bytes:
    """Serialize a clip as tf.train.Example; `rfkeras.datasets.packed` describes the fields."""
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


def write_index(
    out_dir: Path,
    dataset: AudioDataset,
    audio: AudioFormat,
    shards: Mapping[str, Sequence[WrittenShard]],
    left_out: Sequence[BadFile],
) -> Path:
    """Write the index, which makes a folder of shards a packed data set.

    Shards that an earlier, unfinished packing left in the folder are removed.

    Args:
        out_dir: The folder.
        dataset: The source.
        audio: Format of the shards.
        shards: Shards of each split, in order.
        left_out: The files that were left out.

    Returns:
        Path of the index.
    """
    index = {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "dataset": dataset.name,
        "label_names": check_label_names(dataset.label_names),
        "audio": asdict(audio),
        "clip_seconds": dataset.clip_seconds,
        "task": dataset.task,
        "info": dataset.info,
        "splits": {name: _split_entry(dataset.splits[name], of) for name, of in shards.items()},
        "left_out": [asdict(file) for file in left_out],
    }
    index_path = out_dir / INDEX_NAME
    write_text(index_path, json.dumps(index, separators=(",", ":")))
    indexed = {shard.file for of in shards.values() for shard in of}
    for name in shards:
        own = re.compile(rf"{re.escape(name)}-[0-9]{{5}}\.tfrecord")
        for path in list(out_dir.iterdir()):
            if own.match(path.name) and path.name not in indexed:
                path.unlink()
    return index_path


def _split_entry(split: Split, shards: Sequence[WrittenShard]) -> dict[str, Any]:
    """Return the entry of a split in the index."""
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
