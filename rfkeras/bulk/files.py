"""Audio files wherever Beam's file systems reach, and results written there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from rfkeras.data.opening import Source
from rfkeras.errors import AudioError, ConfigError
from rfkeras.files import write_bytes
from rfkeras.tagging.files import SUFFIXES, FoundFile, find_audio

MAX_REMOTE_BYTES = 2_000_000_000  # of a file that is read into memory whole
_WILD = "*?["


@dataclass(frozen=True)
class RemoteFile(FoundFile):
    """A file that only Beam's file systems reach.

    Attributes:
        uri: Its address: gs://bucket/song.flac.
    """

    uri: str = ""

    @property
    def name(self) -> str:
        """The address."""
        return self.uri

    @property
    def key(self) -> str:
        """The address."""
        return self.uri


def is_remote(path: str) -> bool:
    """Whether a path names a file system, as gs:// does."""
    return "://" in path


def check_reachable(path: str) -> None:
    """Refuse a path of a file system that Beam does not know here.

    Raises:
        ConfigError: It is of one.
    """
    try:
        FileSystems.get_filesystem(path)
    except ValueError as error:
        raise ConfigError(
            f"Beam cannot reach {path}: {error} Beam's extras bring the file systems: pip "
            "install 'apache-beam[gcp]' (gs://), '[aws]' (s3://), '[azure]' (azfs://)."
        ) from error


def find(argument: str) -> Iterator[FoundFile]:
    """The files that a word of the command line names.

    Args:
        argument: A local file, a local folder, which is searched at any depth, an address,
            or a pattern: `gs://bucket/**.mp3`. Of a pattern that ends with `*`, files with
            the suffix of audio are taken.
    """
    if Path(argument).is_dir():
        try:
            yield from find_audio([argument])
        except ConfigError as error:  # no audio in it
            yield FoundFile(Path(argument), Path(), str(error))
        return
    if not is_remote(argument) and (Path(argument).exists() or not _is_pattern(argument)):
        yield from find_audio([argument])
        return
    if not _is_pattern(argument):
        yield _remote(argument)
        return
    try:
        matches = FileSystems.match([argument])[0].metadata_list
    except BeamIOError as error:
        yield _remote(argument, f"cannot be listed: {error}")
        return
    chosen = [
        match.path
        for match in matches
        if not argument.endswith("*") or match.path.lower().endswith(SUFFIXES)
    ]
    if not chosen:
        yield _remote(argument, "no file matches")
    for path in chosen:
        if is_remote(path):
            yield _remote(path)
        else:
            yield from find_audio([path])


def _is_pattern(argument: str) -> bool:
    return any(character in argument for character in _WILD)


def _remote(uri: str, error: str | None = None) -> RemoteFile:
    name = Path(uri.rpartition("/")[2])
    return RemoteFile(name, name, error, uri)


def source_of(file: FoundFile) -> Source:
    """What a decoder reads of a file: its path, or the content of a remote one.

    Raises:
        AudioError: It cannot be read, or is too large.
    """
    if not isinstance(file, RemoteFile):
        return file.path
    try:
        with FileSystems.open(file.uri, "application/octet-stream") as stream:
            content: bytes = stream.read(MAX_REMOTE_BYTES + 1)
    except Exception as error:  # each file system raises errors of its own
        raise AudioError(file.uri, f"unreadable: {error}") from error
    if len(content) > MAX_REMOTE_BYTES:
        raise AudioError(file.uri, f"too large: more than {MAX_REMOTE_BYTES:,} bytes")
    if not content:
        raise AudioError(file.uri, "empty file (0 bytes)")
    return content


def write_whole(path: str, content: bytes) -> None:
    """Write a file under its name only when it is whole."""
    if not is_remote(path):
        write_bytes(path, content)
        return
    folder, name = FileSystems.split(path)
    aside = FileSystems.join(folder, f".{name}.{uuid.uuid4().hex}.partial")
    with FileSystems.create(aside) as stream:
        stream.write(content)
    FileSystems.rename([aside], [path])


def listed(folder: str, pattern: str) -> list[str]:
    """Files in a folder whose names match, sorted."""
    if not is_remote(folder):  # whose own name is no pattern
        return sorted(str(path) for path in Path(folder).glob(pattern))
    matches = FileSystems.match([FileSystems.join(folder, pattern)])[0].metadata_list
    return sorted(match.path for match in matches)
