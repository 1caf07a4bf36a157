"""Packed data sets: TFRecord shards of decoded, resampled audio, and their index.

A packed folder has a file `index.json` and shards. Each record of a shard is a
tf.train.Example with

- `wav`: a 16-bit PCM WAV file with the sample rate and channels in the index,
- `key`, `labels`, `mask`: as in the source.

`rfkeras.datasets.pack` writes such folders.
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
from rfkeras.utils.remote import RemotePath, file_system, is_remote, to_path

INDEX_NAME = "index.json"
FORMAT_NAME = "rfkeras-shards"
FORMAT_VERSION = 1
# URLs that tensorflow-io can open, besides gs:// which TensorFlow itself opens.
_TENSORFLOW_SCHEMES = ("s3://", "gs://", "az://", "hdfs://", "http://", "https://")


@dataclass(frozen=True)
class Shard:
    """A TFRecord file.

    Attributes:
        path: Path or URL.
        records: Number of records.
        bytes: Size.
        sha256: SHA-256 in hex.
    """

    path: str
    records: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class PackedSplit(Split):
    """A split that is stored in shards.

    Attributes:
        shards: The shards, in the order of keys, labels and mask.
        lengths: Length of each clip in samples.
        audio: Format of the clips.
    """

    shards: tuple[Shard, ...]
    lengths: tuple[int, ...]
    audio: AudioFormat

    def select(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> Never:
        """Raise an error, because shards can only be read in sequence.

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
        path: Folder of shards: a local path, or an s3://, gs://, az://, hdfs:// or
            http(s):// URL.

    Returns:
        A data set whose splits are `PackedSplit`.

    Raises:
        DatasetError: index.json is missing or malformed, or a shard is missing or does not
            have the size recorded in the index.
    """
    folder = path.rstrip("/")
    index_path = f"{folder}/{INDEX_NAME}"
    content = _read(index_path)
    try:
        index = parse_json(content)
    except ValueError as error:
        raise DatasetError(f"{index_path} is not JSON: {error}.") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT_NAME:
        raise DatasetError(f'{index_path} is not an index of packed audio ("{FORMAT_NAME}").')
    if index.get("version") != FORMAT_VERSION:
        raise DatasetError(
            f"{index_path} has format version {index.get('version')}; this version of rfkeras "
            f"reads version {FORMAT_VERSION}. Pack the data set again."
        )
    try:
        with located(folder), malformed():
            return _dataset(index, folder)
    except ValueError as error:
        raise DatasetError(f"{index_path} is malformed: {error}. Pack again.") from error


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
                raise ValueError(f"{item['file']!r} is not the name of a shard in this folder")
            _check_size(shard)
        keys = tuple(entry["keys"])
        if sum(shard.records for shard in shards) != len(keys):
            raise ValueError(f"split {name!r} has different numbers of records and keys")
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
        task=index.get("task", "multi_label"),  # the first version did not write the task
        info={**index["info"], "packed": folder},
    )


def _check_size(shard: Shard) -> None:
    path = to_path(shard.path)
    if is_remote(path) and through_tensorflow(shard.path):
        import tensorflow as tf

        with _read_errors(shard.path):
            size = tf.io.gfile.stat(shard.path).length
    elif path.is_file():
        size = path.stat().st_size
    else:
        raise DatasetError(f"Shard {shard.path} is missing. Copy or pack it again.")
    if size != shard.bytes:
        raise DatasetError(
            f"Shard {shard.path} has {size} bytes instead of {shard.bytes}. Copy or pack it "
            "again."
        )


def verify_packed(dataset: AudioDataset) -> None:
    """Compare the SHA-256 of every shard with the index. This reads all shards.

    Args:
        dataset: A packed data set.

    Raises:
        DatasetError: A shard differs or cannot be read.
    """
    for split in dataset.splits.values():
        for shard, digest in damaged_shards(cast(PackedSplit, split)):
            raise DatasetError(
                f"{shard.path} is damaged: its SHA-256 is {digest}, but the index has "
                f"{shard.sha256}. Copy or pack it again."
            )


def damaged_shards(split: PackedSplit) -> Iterator[tuple[Shard, str]]:
    """Find shards whose SHA-256 differs from the index, reading one shard after another.

    Args:
        split: A packed split.

    Yields:
        (shard, its actual SHA-256).

    Raises:
        DatasetError: A shard cannot be read.
    """
    for shard in split.shards:
        digest = sha256(shard.path)
        if digest != shard.sha256:
            yield shard, digest


def sha256(path: str) -> str:
    """Compute the SHA-256 of a local or remote file, in hex.

    Args:
        path: Path or URL.

    Raises:
        DatasetError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with _open(path) as stream:
        while block := stream.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def _read(path: str) -> bytes:
    if not is_remote(path):
        if not Path(path).is_file():
            raise DatasetError(
                f"{path} is missing. This is not a packed data set, or packing did not finish. "
                "Create one with `rfkeras data pack`."
            )
        return Path(path).read_bytes()

    with _open(path) as stream:
        return cast(bytes, stream.read())


@contextmanager
def _open(path: str) -> Iterator[Any]:
    """Open a file for reading; the block raises DatasetError if it cannot be read."""
    if through_tensorflow(path):
        import tensorflow as tf

        with _read_errors(path), tf.io.gfile.GFile(path, "rb") as stream:
            yield stream
        return
    try:
        with to_path(path).open("rb") as stream:
            yield stream
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from error


@contextmanager
def _read_errors(path: str) -> Iterator[None]:
    """Convert the exceptions of TensorFlow's file systems to DatasetError."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.message or type(error).__name__}. Check the path "
            "and the credentials in the environment."
        ) from error


# Remote file systems


def through_tensorflow(path: str) -> bool:
    """Return whether TensorFlow's file systems read a URL, and prepare them.

    fsspec reads URLs, because it keeps local copies and is faster. Without the packages of the
    extra `remote`, tensorflow-io does if it is installed.

    Raises:
        ConfigError: Neither is installed.
    """
    if not is_remote(path):
        return False
    try:
        file_system(RemotePath(path))
    except ConfigError as missing:
        try:
            if not path.startswith(_TENSORFLOW_SCHEMES):
                raise missing
            load_tensorflow_io(s3=path.startswith("s3://"))
        except DatasetError:
            raise missing from None
        return True
    return False


@functools.cache
def load_tensorflow_io(*, s3: bool) -> None:
    """Import tensorflow-io, which registers its file systems and decoders.

    Args:
        s3: Whether an s3:// path will be opened. If so, the process is made to end with the
            correct exit status.

    Raises:
        DatasetError: tensorflow-io is not installed or does not fit this TensorFlow.
    """
    try:
        import tensorflow_io  # noqa: F401  (importing registers the file systems)
    except (ImportError, NotImplementedError) as error:
        raise DatasetError(
            "decoder='tfio' needs tensorflow-io 0.37.1 with TensorFlow 2.16: pip install "
            "'rfkeras[tfio]' on Python 3.11 or 3.12, on Linux or macOS. Elsewhere, use "
            f"decoder='soundfile'. The import failed: {error}"
        ) from error
    if s3:
        _exit_before_aws_destructors()


def _exit_before_aws_destructors() -> None:
    """End the process after Python's own shutdown but before the AWS SDK's destructors.

    tensorflow-io keeps the AWS client in a static object and never shuts the SDK down. At
    exit, that object's destructor writes to a logger that is already destroyed. The process
    aborts with "pure virtual method called" and exit status 134 instead of its own.

    The C library runs exit handlers in reverse order of registration. Handlers registered
    here, after tensorflow-io was loaded, run before that destructor: first fflush(NULL),
    then _exit(status). By then the interpreter has finished: its atexit functions have run
    and its streams are flushed.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "on_exit"):  # glibc has it, and every tensorflow-io wheel needs glibc
        return
    exit_now = ctypes.cast(libc._exit, ctypes.c_void_p)
    flush_all = ctypes.cast(libc.fflush, ctypes.c_void_p)
    libc.on_exit(exit_now, None)  # called as _exit(status, NULL)
    libc.__cxa_atexit(flush_all, None, None)  # called as fflush(NULL), before _exit
