"""Packed data sets: TFRecord shards of decoded, resampled audio, and their index.

A packed folder holds `index.json` and shards. Each record is a tf.train.Example of

- `wav`: 16-bit PCM WAV at the index's sample rate and channels,
- `key`, `labels`, `mask`: as in the source.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never, cast

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.io import AudioFormat
from rfkeras.datasets.base import AudioDataset, Split
from rfkeras.errors import ConfigError, DatasetError, located
from rfkeras.utils.files import malformed, parse_json

SCHEMES = ("s3://", "az://", "hdfs://", "http://", "https://")


def is_remote(path: str) -> bool:
    """Whether tensorflow-io has to read this path."""
    return path.startswith(SCHEMES)


@functools.cache
def prepare(*, s3: bool) -> None:
    """Register tensorflow-io's file systems; safe to call again.

    Args:
        s3: An s3:// path will be opened: make the process end with its true status.

    Raises:
        DatasetError: tensorflow-io is not installed or does not fit this TensorFlow.
    """
    try:
        import tensorflow_io  # noqa: F401  (importing registers the file systems)
    except (ImportError, NotImplementedError) as error:
        raise DatasetError(
            "Remote paths and decoder='tfio' need tensorflow-io 0.37.1 with TensorFlow 2.16. "
            f"Importing it failed: {error}"
        ) from error
    if s3:
        _leave_before_aws_destructors()


def prepare_for(path: str) -> None:
    """`prepare` for this path; does nothing for local ones."""
    if is_remote(path):
        prepare(s3=path.startswith("s3://"))


def _leave_before_aws_destructors() -> None:
    """End the process after Python's own shutdown, before the AWS SDK's static destructors.

    tensorflow-io keeps the AWS client in a static object and never shuts the SDK down. At
    exit that object's destructor writes to a logger that is already destroyed: "pure
    virtual method called", abort, exit status 134 in place of the program's. The C
    library runs exit handlers last in, first out, and passes the status on: registered
    after tensorflow-io was loaded, fflush(NULL) and then _exit(status) run before that
    destructor. By then the interpreter has finished: its atexit functions ran and its
    streams are flushed.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "on_exit"):  # glibc has it, as does every tensorflow-io wheel's host
        return
    exit_now = ctypes.cast(libc._exit, ctypes.c_void_p)
    flush_all = ctypes.cast(libc.fflush, ctypes.c_void_p)
    libc.on_exit(exit_now, None)  # called as _exit(status, NULL)
    libc.__cxa_atexit(flush_all, None, None)  # called as fflush(NULL), before _exit


INDEX_NAME = "index.json"
FORMAT_NAME = "rfkeras-shards"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Shard:
    """One TFRecord file: its path or URL, records, bytes and SHA-256 in hex."""

    path: str
    records: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class PackedSplit(Split):
    """A split in shards; the same pipelines read it.

    Attributes:
        shards: The files, in order; so are keys, labels and mask.
        lengths: Samples of each clip.
        audio: Format of the clips.
    """

    shards: tuple[Shard, ...]
    lengths: tuple[int, ...]
    audio: AudioFormat

    def select(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> Never:
        """Not possible: shards are read in sequence.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "The clips of a packed split cannot be selected or divided. Select from the "
            "source data set and pack the result."
        )


def load_packed(path: str) -> AudioDataset:
    """Open a packed data set.

    Args:
        path: Folder of shards: local, or s3://, az://, hdfs://, http(s)://.

    Returns:
        A data set whose splits are `PackedSplit`.

    Raises:
        DatasetError: index.json is missing or malformed, or a shard is missing or does not
            have the size that the index says.
    """
    folder = path.rstrip("/")
    index_path = f"{folder}/{INDEX_NAME}"
    try:
        index = parse_json(_read(index_path))
    except ValueError as error:
        raise DatasetError(f"{index_path} is not JSON: {error}.") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT_NAME:
        raise DatasetError(f'{index_path} is not an index of packed audio ("{FORMAT_NAME}").')
    if index.get("version") != FORMAT_VERSION:
        raise DatasetError(
            f"{index_path} has format version {index.get('version')}; this version of rfkeras "
            f"reads {FORMAT_VERSION}. Pack the data set again."
        )
    try:
        with located(folder), malformed():
            return _dataset(index, folder)
    except ValueError as error:
        raise DatasetError(f"{index_path} is malformed: {error}. Pack again.") from error


def verify_packed(dataset: AudioDataset) -> None:
    """Compare the SHA-256 of every shard with the index; reads all of them.

    Raises:
        DatasetError: A shard differs.
    """
    for split in dataset.splits.values():
        for shard, digest in damaged_shards(cast(PackedSplit, split)):
            raise DatasetError(
                f"{shard.path} is damaged: SHA-256 {digest}, the index says {shard.sha256}. "
                "Copy or pack it again."
            )


def damaged_shards(split: PackedSplit) -> Iterator[tuple[Shard, str]]:
    """Shards whose SHA-256 is not that of the index, each with the one that it has.

    Reads one shard after another, all of it.

    Raises:
        DatasetError: A shard cannot be read.
    """
    for shard in split.shards:
        digest = sha256(shard.path)
        if digest != shard.sha256:
            yield shard, digest


def sha256(path: str) -> str:
    """SHA-256 of a local or remote file, in hex.

    Raises:
        DatasetError: It cannot be read.
    """
    import tensorflow as tf

    prepare_for(path)
    digest = hashlib.sha256()
    with _reading(path), tf.io.gfile.GFile(path, "rb") as stream:
        while block := stream.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def _dataset(index: dict[str, Any], folder: str) -> AudioDataset:
    audio = AudioFormat(**index["audio"])
    splits: dict[str, Split] = {}
    for name, entry in index["splits"].items():
        shards = tuple(
            Shard(f"{folder}/{item['file']}", item["records"], item["bytes"], item["sha256"])
            for item in entry["shards"]
        )
        for item, shard in zip(entry["shards"], shards, strict=True):
            if "/" in item["file"] or "\\" in item["file"] or item["file"].startswith("."):
                raise ValueError(f"{item['file']!r} is no name of a shard in this folder")
            _check_size(shard)
        keys = tuple(entry["keys"])
        if sum(shard.records for shard in shards) != len(keys):
            raise ValueError(f"split {name!r}: shards and keys differ in number")
        splits[name] = PackedSplit(
            keys=keys,
            paths=tuple(Path(f"{folder}/{key}") for key in keys),
            labels=np.asarray(entry["labels"], np.float32).reshape(len(keys), -1),
            mask=np.asarray(entry["mask"], np.float32).reshape(len(keys), -1),
            shards=shards,
            lengths=tuple(entry["lengths"]),
            audio=audio,
        )
    return AudioDataset(
        name=index["dataset"],
        label_names=tuple(index["label_names"]),
        splits=splits,
        clip_seconds=index["clip_seconds"],
        task=index.get("task", "multi_label"),  # indexes of the first version do not say
        info={**index["info"], "packed": folder},
    )


def _read(path: str) -> bytes:
    if not is_remote(path):
        if not Path(path).is_file():
            raise DatasetError(
                f"{path} is missing: not a packed data set, or packing did not finish. Make "
                "one with `rfkeras data pack`."
            )
        return Path(path).read_bytes()

    import tensorflow as tf

    prepare_for(path)
    with _reading(path), tf.io.gfile.GFile(path, "rb") as stream:
        return cast(bytes, stream.read())


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn what TensorFlow's file systems raise into DatasetError."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.message or type(error).__name__}. Check the path "
            "and the credentials in the environment."
        ) from error


def _check_size(shard: Shard) -> None:
    if is_remote(shard.path):
        import tensorflow as tf

        with _reading(shard.path):
            size = tf.io.gfile.stat(shard.path).length
    elif Path(shard.path).is_file():
        size = Path(shard.path).stat().st_size
    else:
        raise DatasetError(f"Shard {shard.path} is missing. Copy or pack it again.")
    if size != shard.bytes:
        raise DatasetError(
            f"Shard {shard.path} has {size} bytes, the index says {shard.bytes}. Copy or pack "
            "it again."
        )
