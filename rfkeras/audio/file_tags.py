"""Write a field of tags into audio files with mutagen, so that players and catalogues find it.

The field is "RFKERAS_TAGS" in every format: a TXXX frame of ID3 (MP3, WAV, AIFF), a Vorbis
comment (FLAC, Ogg, Opus), an item of APEv2 (WavPack, Musepack, Monkey's Audio), an attribute of
ASF (WMA), and the freeform atom `----:com.apple.iTunes:RFKERAS_TAGS` of MP4. Everything else in
a file stays as it was: the copy that replaces it is decoded and read again first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rfkeras.audio.decode import check_audio, open_audio
from rfkeras.audio.io import AudioFormat
from rfkeras.errors import AudioError, ConfigError, RFKerasError, install_extra, one_file
from rfkeras.utils.files import atomic_write
from rfkeras.utils.remote import RemotePath
from rfkeras.utils.text import TAG_SEPARATOR

FIELD = "RFKERAS_TAGS"
_ATOM = f"----:com.apple.iTunes:{FIELD}"
_FRAME = f"TXXX:{FIELD}"
_BLOCK_SAMPLES = 1 << 20
_ID3V1 = b"TAG"
_END_BYTES = 256  # an ID3v1 tag has 128, at the end or just before it
_UNDECODABLE = "\ufffd"
_REWRITTEN = (1, 4)  # blocks of FLAC: padding, and the comments themselves


class UntaggableError(RFKerasError):
    """A file's format cannot carry tags, or not without a change of its other tags."""


@dataclass(frozen=True)
class FieldChange:
    """The field of one file before and after writing.

    Attributes:
        before: Its value; None if the file does not have it.
        after: Its new value; None if no tag applies, so that the field is removed.
    """

    before: str | None
    after: str | None

    @property
    def is_needed(self) -> bool:
        """Return whether the values differ."""
        return self.before != self.after


def require_mutagen() -> None:
    """Check that mutagen is installed.

    Raises:
        ConfigError: It is not. The message explains how to install it.
    """
    _mutagen("mutagen")


def plan_field(path: Path, tags: Sequence[str]) -> FieldChange:
    """Return how the field of a file will change, without changing it.

    Args:
        path: The audio file.
        tags: The tags that apply.

    Raises:
        UntaggableError: The file cannot carry the field.
        AudioError: The file cannot be read or written.
    """
    if isinstance(path, RemotePath):
        raise UntaggableError("files at URLs are left as they are")
    with _errors_of(path):
        if not os.access(path, os.W_OK) or not path.stat().st_mode & 0o222:
            raise AudioError(str(path), "its tags cannot be written: the file is read-only")
        return FieldChange(_Container(path).field, TAG_SEPARATOR.join(tags) or None)


def write_field(path: Path, tags: Sequence[str], *, decoder: str = "soundfile") -> FieldChange:
    """Write the field into a file, in place of an earlier one; remove it without tags.

    A copy next to the file is changed, checked and moved into its place, so that the file is
    never incomplete. It keeps its owner and permissions. A link stays, and the file that it
    leads to is changed. If the value is the same, nothing is written.

    Args:
        path: The audio file.
        tags: The tags that apply.
        decoder: See `rfkeras.audio.decode.open_audio`.

    Returns:
        What was changed.

    Raises:
        UntaggableError: The file cannot carry the field.
        AudioError: The file cannot be read or written, changed meanwhile, or the copy has other
            sound or other tags. The file is as it was.
    """
    change = plan_field(path, tags)
    if not change.is_needed:
        return change
    with _errors_of(path):
        file = Path(os.path.realpath(path))
        before = file.stat()
        with atomic_write(file, file.suffix) as copy:
            shutil.copy2(file, copy)
            if hasattr(os, "chown"):
                os.chown(copy, before.st_uid, before.st_gid)
            _Container(copy).write(change.after)
            os.utime(copy)
            _check_copy(file, copy, change.after, decoder)
            now = file.stat()
            if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise _refused(file, "another program changed the file meanwhile")
    return change


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turn every exception in the block into an AudioError, except UntaggableError."""
    try:
        with one_file(path):
            yield
    except AudioError as error:
        if isinstance(error.__cause__, UntaggableError):
            raise error.__cause__ from None
        raise


def _refused(file: Path, reason: str) -> AudioError:
    return AudioError(str(file), f"its tags were not written: {reason}")


def sound_digest(path: Path, decoder: str = "soundfile") -> str:
    """Return the MD5 of a file's decoded samples, at its own rate.

    Args:
        path: The audio file.
        decoder: See `rfkeras.audio.decode.open_audio`.

    Raises:
        AudioError: The file cannot be decoded.
    """
    info = check_audio(path, decoder=decoder)
    audio = AudioFormat(info.sample_rate_hz, min(2, info.channels))
    digest = hashlib.md5(usedforsecurity=False)
    with open_audio(path, audio, decoder=decoder) as file:
        for start in range(0, info.frames, _BLOCK_SAMPLES):
            digest.update(file.read(start, min(_BLOCK_SAMPLES, info.frames - start)).tobytes())
    return digest.hexdigest()


def _check_copy(file: Path, copy: Path, field: str | None, decoder: str) -> None:
    """Check that a copy differs from the file in the field only.

    Raises:
        AudioError: It does not.
    """
    old, new = _Container(file), _Container(copy)
    if new.field != field:
        raise _refused(file, f"they would have become {new.field!r}")
    if new.others() != old.others():
        raise _refused(file, "its other tags would not have stayed the same")
    if sound_digest(copy, decoder) != sound_digest(file, decoder):
        raise _refused(file, "its sound would not have stayed the same")


class _Container:
    """The tags of one file.

    Raises:
        UntaggableError: It cannot carry the field.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        found = _mutagen("mutagen").File(path)
        id3, ape = _mutagen("mutagen.id3"), _mutagen("mutagen.apev2")
        kinds = {
            "id3": id3.ID3,
            "vorbis": _mutagen("mutagen._vorbis").VCommentDict,
            "mp4": _mutagen("mutagen.mp4").MP4Tags,
            "ape": ape.APEv2,
            "asf": _mutagen("mutagen.asf").ASFTags,
        }
        generic = (id3.ID3FileType, ape.APEv2File)  # of a format that mutagen does not know
        if found is None or type(found) in generic:
            raise UntaggableError("its format cannot carry tags")
        has_tags = found.tags is not None
        if not has_tags:
            try:
                found.add_tags()
            except Exception as error:
                raise UntaggableError("its format cannot carry tags") from error
        known = (name for name, kind in kinds.items() if isinstance(found.tags, kind))
        self._kind = next(known, "")
        if not self._kind:
            raise UntaggableError("its format cannot carry tags")
        if self._kind == "id3" and has_tags:
            # As they are: not converted to ID3v2.4, nor completed from ID3v1.
            only_v1 = found.tags.version[0] == 1
            found = type(found)(path, translate=False, load_v1=only_v1)
        self._file, self._tags = found, found.tags
        if self._kind == "id3" and self._tags.version[:2] == (2, 2):
            raise UntaggableError("its tags are of ID3v2.2, which would have to be converted")
        if self._kind == "vorbis" and any(_UNDECODABLE in value for _, value in self._items()):
            raise UntaggableError("it has tags that are not valid UTF-8")

    @property
    def field(self) -> str | None:
        """The value of the field; None if there is none."""
        values: Sequence[Any] = ()
        if self._kind == "id3":
            values = [text for frame in self._tags.getall(_FRAME) for text in frame.text]
        elif self._kind == "mp4":
            values = [
                bytes(value).decode("utf-8", "replace") for value in self._tags.get(_ATOM, ())
            ]
        elif FIELD in self._tags:
            found = self._tags[FIELD]
            values = found if isinstance(found, list) else [found]
        return TAG_SEPARATOR.join(map(str, values)) or None

    def write(self, value: str | None) -> None:
        """Write the field into the file, or remove it."""
        tags, options = self._tags, {}
        if self._kind == "id3":
            id3 = _mutagen("mutagen.id3")
            tags.delall(_FRAME)
            if value is not None:
                tags.add(id3.TXXX(encoding=id3.Encoding.UTF8, desc=FIELD, text=[value]))
            if tags.version[:2] == (2, 3):
                options = {"v2_version": 3, "v23_sep": None}
        else:
            key = _ATOM if self._kind == "mp4" else FIELD
            if key in tags:
                del tags[key]
            if value is not None:
                mp4 = _mutagen("mutagen.mp4")
                tags[key] = [mp4.MP4FreeForm(value.encode())] if key == _ATOM else value
        end = self._id3v1_end()
        self._file.save(self._path, **options)
        if end:  # mutagen would write it again, from the newer tags
            with self._path.open("r+b") as file:
                file.seek(-len(end), os.SEEK_END)
                file.write(end)

    def _id3v1_end(self) -> bytes:
        """Return the last bytes of the file from an ID3v1 tag on; b"" if it has none."""
        if self._kind != "id3":
            return b""
        with self._path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END_BYTES))
            end = file.read()
        place = end.find(_ID3V1)
        return b"" if place < 0 else end[place:]

    def others(self) -> list[Any]:
        """Return everything but the field, to compare it."""
        own = {"id3": _FRAME, "mp4": _ATOM}.get(self._kind, FIELD)
        # Names of Vorbis comments and items of APEv2 have no case.
        items = self._items()
        content: list[Any] = sorted(item for item in items if item[0] not in (own, own.lower()))
        if self._kind == "id3":
            content += [self._id3v1_end(), *map(bytes, self._tags.unknown_frames)]
        if self._kind == "vorbis":
            content.append(self._tags.vendor)
            blocks = getattr(self._file, "metadata_blocks", ())
            content += [block.write() for block in blocks if block.code not in _REWRITTEN]
        if self._kind == "mp4":
            content.append(repr(self._tags._failed_atoms))
        return content

    def _items(self) -> list[tuple[str, str]]:
        if self._kind == "vorbis":
            return [(key, value) for key, value in self._tags]
        return [(key, repr(value)) for key, value in self._tags.items()]


def _mutagen(name: str) -> Any:
    """Import a module of mutagen.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"Writing tags into audio files needs mutagen: {install_extra('tags')}."
        ) from error
