"""Find audio files: suffixes, the walk over folders, and lists of paths.

Tagging, data sets and pipelines find their files here, so that all follow the same rules.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from rfkeras.errors import ConfigError
from rfkeras.utils.files import decode_text, fit_name
from rfkeras.utils.remote import RemoteEntry, RemotePath, to_path
from rfkeras.utils.text import count, first_few, printable

# Suffixes that folders are searched for. Files with other suffixes are read when named.
# fmt: off
AUDIO_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff",
    ".3ga", ".3gp", ".aac", ".ac3", ".adts", ".aifc", ".alac", ".amr", ".ape", ".asf", ".au",
    ".bwf", ".caf", ".dff", ".dsf", ".dts", ".eac3", ".gsm", ".m4a", ".m4b", ".m4r", ".mka",
    ".mp1", ".mp2", ".mp4", ".mpa", ".mpc", ".mpga", ".ogx", ".rf64", ".shn", ".snd", ".spx",
    ".tak", ".tta", ".voc", ".w64", ".wave", ".weba", ".webm", ".wma", ".wv",
    ".avi", ".m4v", ".mkv", ".mov",  # the sound of videos, as that of .mp4 and .webm
)
# Sounds that cannot be decoded: scores, modules, encrypted files and rare formats.
UNREADABLE_SUFFIXES = (
    ".aax", ".aaxc", ".it", ".kar", ".m4p", ".mid", ".midi", ".mod", ".ra", ".rmi",
    ".s3m", ".sd2", ".sid", ".xm",
)
# fmt: on
PLAYLIST_SUFFIXES = (".m3u", ".m3u8")
# Folders of operating systems and storage devices, in lower case.
_SYSTEM_FOLDERS = {
    "__macosx",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "lost+found",
    "@eadir",
    "#recycle",
    "#snapshot",
}
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_EXTENDED_M3U = re.compile(r"#EXTM3U8?(\s|$)", re.IGNORECASE)
_PLS_ENTRY = re.compile(r"\s*File\d+\s*=(.*)", re.IGNORECASE)
_FILE_URL = re.compile(r"file:(?://(?:localhost)?)?(?=/)", re.IGNORECASE)


@dataclass(frozen=True)
class FoundFile:
    """A file to read, or a folder or link that could not be read.

    Attributes:
        path: The path as given, or as found in a given folder.
        inside: Path relative to the given folder; for a given file, its name.
        error: Why the path cannot be read. None for files, which have not been opened yet.
    """

    path: Path
    inside: Path
    error: str | None = None

    @property
    def name(self) -> str:
        """The path as text that any Unicode encoding can represent."""
        return printable(self.path)

    @property
    def key(self) -> str:
        """The absolute path, independent of the current folder; or the URL."""
        if isinstance(self.path, RemotePath):
            return self.name
        return printable(os.path.realpath(self.path))  # Path.resolve fails at a loop of links


# Folders


class LeftOut:
    """Files and folders that a walk left out, by kind, with paths.

    Attributes:
        hidden: Hidden folders, and hidden files with an audio suffix.
        system: Folders of operating systems and storage devices.
        repeated: Links to folders that were read already.
        unreadable: Files of sound whose format cannot be decoded.
        others: Number of files by suffix that is not one of audio, "" for none.
    """

    def __init__(self) -> None:
        self.hidden: list[Path] = []
        self.system: list[Path] = []
        self.repeated: list[Path] = []
        self.unreadable: list[Path] = []
        self.others: Counter[str] = Counter()

    def add(self, other: LeftOut) -> None:
        """Add what another walk left out."""
        self.hidden += other.hidden
        self.system += other.system
        self.repeated += other.repeated
        self.unreadable += other.unreadable
        self.others += other.others

    def notes(self) -> tuple[str, ...]:
        """Return a sentence per kind."""
        kinds = (
            (self.unreadable, "file in an audio format that cannot be decoded",
             "files in audio formats that cannot be decoded"),
            (self.hidden, "hidden file or folder", "hidden files or folders"),
            (self.system, "folder of the operating system", "folders of the operating system"),
            (self.repeated, "link to a folder that has already been read",
             "links to folders that have already been read"),
        )  # fmt: skip
        notes = [
            f"left out {count(len(paths), one, many)}: {first_few(map(printable, paths))}"
            for paths, one, many in kinds
            if paths
        ]
        if self.others:
            files = self.others.total()
            common = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
            suffixes = [
                f"{times:,} {printable(suffix) or 'without suffix'}" for suffix, times in common
            ]
            notes.append(
                f"left out {count(files, 'file')} without an audio suffix: "
                f"{first_few(suffixes, 5)}"
            )
        return tuple(notes)


@dataclass(frozen=True)
class Walk:
    """Result of a walk over a folder.

    Attributes:
        files: The audio files, and folders and links that cannot be read (with `error`),
            sorted by path.
        folders: All folders that were entered, relative to the root, without the root.
        left_out: Everything else.
    """

    files: tuple[FoundFile, ...]
    folders: tuple[Path, ...]
    left_out: LeftOut


def walk_audio(root: Path) -> Walk:
    """Find the audio files in a folder, at any depth.

    Files are chosen by suffix, regardless of case. Links are followed, but a folder reached
    twice, for example in a loop of links, is read once. Hidden files and folders, and folders
    of operating systems such as `__MACOSX`, are left out.

    Args:
        root: The folder, local or remote. Its own name may be hidden.
    """
    # Follow links only after all real folders, so that a folder reachable both ways keeps its
    # real path.
    files: list[FoundFile] = []
    folders: list[Path] = []
    left_out = LeftOut()
    seen: set[object] = set()
    linked = [root]
    while linked:
        waiting = [linked.pop(0)]
        while waiting:
            folder = waiting.pop()
            try:
                identity = _identity(folder)
                if identity in seen:
                    left_out.repeated.append(folder)
                    continue
                seen.add(identity)
                entries = _entries(folder)
            except OSError as error:
                reason = f"unreadable folder: {error.strerror}"
                files.append(FoundFile(folder, folder.relative_to(root), reason))
                continue
            if folder != root:
                folders.append(folder.relative_to(root))
            for entry in entries:
                path = folder / entry.name
                suffix = path.suffix.lower()
                if _is_folder(entry):
                    if entry.name.startswith("."):
                        left_out.hidden.append(path)
                    elif entry.name.lower() in _SYSTEM_FOLDERS:
                        left_out.system.append(path)
                    else:
                        (linked if entry.is_symlink() else waiting).append(path)
                elif entry.name.startswith("."):
                    if suffix in AUDIO_SUFFIXES:
                        left_out.hidden.append(path)
                elif suffix in AUDIO_SUFFIXES:
                    files.append(FoundFile(path, path.relative_to(root), _fault(entry)))
                elif suffix in UNREADABLE_SUFFIXES:
                    left_out.unreadable.append(path)
                elif entry.is_symlink() and not path.exists():
                    files.append(FoundFile(path, path.relative_to(root), "broken link"))
                else:
                    left_out.others[suffix] += 1
    files.sort(key=lambda file: file.path.parts)
    return Walk(tuple(files), tuple(sorted(folders, key=lambda path: path.parts)), left_out)


def _identity(folder: Path) -> object:
    """Return what is the same for a folder and for all links to it."""
    if isinstance(folder, RemotePath):
        return folder
    status = folder.stat()
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> Sequence[os.DirEntry[str] | RemoteEntry]:
    """Return the entries of a folder, sorted by name."""
    if isinstance(folder, RemotePath):
        return folder.scandir()
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str] | RemoteEntry) -> bool:
    """Return whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link in a loop
        return False


def _fault(entry: os.DirEntry[str] | RemoteEntry) -> str | None:
    """Return why an entry with an audio suffix is not a file; None if it is one."""
    try:
        if entry.is_file():
            return None
    except OSError as error:
        return f"unreadable link: {error.strerror}"
    return "broken link" if entry.is_symlink() else "not a file"


def find_audio(
    arguments: Sequence[str | Path], note: Callable[[str], None] | None = None
) -> list[FoundFile]:
    """List the audio files that the arguments name, in a fixed order.

    A file given by name is always included, even with another suffix or if it does not exist;
    reading it reports the error. Folders are searched as `walk_audio` does.

    Args:
        arguments: Files and folders, local or at URLs.
        note: Called with a sentence per kind of file or folder that was left out.

    Raises:
        ConfigError: No audio file and no unreadable folder was found, or an argument is empty.
    """
    if any(str(argument) == "" for argument in arguments):
        raise ConfigError(
            'A path to read is empty (""), for example from a variable that is not set. Write '
            "a point (.) for the current folder."
        )
    found: dict[str, FoundFile] = {}
    left_out = LeftOut()
    for argument in map(to_path, arguments):
        files: Iterable[FoundFile] = [FoundFile(argument, Path(argument.name))]
        if _is_dir(argument):
            walk = walk_audio(argument)
            files = walk.files
            left_out.add(walk.left_out)
        for file in files:
            found.setdefault(_absolute(file.path), file)
    if not found:
        folders = ", ".join(printable(argument) for argument in arguments)
        notes = "".join(f" {text[0].upper()}{text[1:]}." for text in left_out.notes())
        raise ConfigError(
            f"Found no audio in {folders}: no file name ends in {', '.join(AUDIO_SUFFIXES)}."
            f"{notes} To read a file with another suffix, give its path."
        )
    if note is not None:
        for text in left_out.notes():
            note(text)
    return list(found.values())


def _is_dir(path: Path) -> bool:
    # Path.is_dir fails at too long names.
    return path.is_dir() if isinstance(path, RemotePath) else os.path.isdir(path)  # noqa: PTH112


def _absolute(path: Path) -> str:
    # Path.resolve would follow links.
    return str(path) if isinstance(path, RemotePath) else os.path.abspath(path)  # noqa: PTH100


# Lists of paths


def read_path_list(source: str | Path, content: bytes) -> tuple[list[str], tuple[str, ...]]:
    """Read a list of paths, one per line, or a playlist.

    A list is text in UTF-8, UTF-16 or UTF-32. Lines end in "\\n", "\\r\\n" or "\\r"; other
    characters, white space included, belong to the paths. A path that does not exist as it
    stands, but does without quotation marks or white space around it, is read so. If the
    content has NUL bytes, as the output of `find -print0`, they separate the paths instead.
    Bytes that are not UTF-8 are kept, because file names need not be text.

    In a playlist (`.m3u`, `.m3u8`, or a first line `#EXTM3U`), lines that start with "#" are
    comments, paths are relative to the playlist, and addresses such as http:// are left out.
    In a playlist of the form `.pls`, the paths follow "File1=", "File2=" and so on.

    Args:
        source: Name of the list: a path, or "-" for standard input.
        content: The whole content.

    Returns:
        (paths, notes for the user)

    Raises:
        ConfigError: The content has a byte order mark, but is not text in that encoding; or
            it is no list, but audio or XML.
    """
    path = to_path(source)
    if path.suffix.lower() in AUDIO_SUFFIXES:
        raise ConfigError(
            f"{printable(source)} is an audio file by its suffix, not a list of paths. Give it "
            "as a file to read."
        )
    items = _items(source, content)
    first = next((item for item in items if item.strip()), "").strip()
    if first.startswith("<"):
        raise ConfigError(
            f"{printable(source)} is XML, not a list of paths. Save the playlist as .m3u8."
        )
    if first.casefold() == "[playlist]":
        entries = filter(None, map(_PLS_ENTRY.match, items))
        return _playlist((entry[1] for entry in entries), path.parent)
    if path.suffix.lower() in PLAYLIST_SUFFIXES or _EXTENDED_M3U.match(first):
        lines = (item for item in items if not item.lstrip(" \t").startswith("#"))
        return _playlist(lines, path.parent)
    return [_listed(None, _without_url(item)) for item in items if item.strip()], ()


def _items(source: str | Path, content: bytes) -> list[str]:
    """Decode a list and split it into its items, some of them blank."""
    try:
        text = decode_text(content, "surrogateescape")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{printable(source)} starts as {error.encoding.upper()} text but is not: {error}. "
            "Save the list as UTF-8."
        ) from error
    if "\0" in text:
        return [item for item in text.split("\0") if item]
    lines = text.split("\n" if "\n" in text else "\r")
    # Lists that were joined have a byte order mark at each former start.
    return [line.removesuffix("\r").removeprefix("\ufeff") for line in lines]


def _playlist(items: Iterable[str], folder: Path) -> tuple[list[str], tuple[str, ...]]:
    """Return the paths in a playlist, and notes."""
    paths: list[str] = []
    addresses: list[str] = []
    for line in items:
        item = line.strip(" \t")
        if not item:
            continue
        local = _without_url(item)
        if local == item and _ADDRESS.match(item):
            addresses.append(item)
        else:
            paths.append(_listed(folder, local, _playlist_forms(local)))
    if not addresses:
        return paths, ()
    entries = count(len(addresses), "address", "addresses")
    return paths, (f"left out {entries} in a playlist: {first_few(map(printable, addresses))}",)


def _without_url(item: str) -> str:
    """Return the path of a file:// URL, and any other item unchanged."""
    scheme = _FILE_URL.match(item)
    if scheme is None:
        return item
    return os.fsdecode(unquote_to_bytes(os.fsencode(item[scheme.end() :])))


def _listed(folder: Path | None, item: str, forms: Iterable[str] = ()) -> str:
    """Return the path of an item: the first form that exists, or the item as it stands.

    Args:
        folder: The folder to which the item is relative; None for the current one.
        item: The item.
        forms: Further forms, tried before those without white space and quotation marks.
    """
    bare = item.strip()
    quoted = len(bare) > 2 and bare[0] == bare[-1] and bare[0] in "'\""
    for form in (item, *forms, bare, *([bare[1:-1]] if quoted else [])):
        if _exists(Path(form) if folder is None else folder / form):
            break
    else:
        form = item
    return form if folder is None else str(folder / form)


def _playlist_forms(item: str) -> Iterator[str]:
    """Yield what players write: backslashes, percent-encoding, the encoding of Windows."""
    yield item.replace("\\", "/")
    yield os.fsdecode(unquote_to_bytes(os.fsencode(item)))
    old = os.fsencode(item).decode("cp1252", "replace")
    yield old
    yield old.replace("\\", "/")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for the file system, or with a NUL
        return False


def output_paths(folder: Path, files: Sequence[FoundFile], suffix: str) -> list[Path]:
    """Return the output path for each input file, in the same tree under another folder.

    Args:
        folder: Root of the output tree.
        files: The input files.
        suffix: Appended to the whole name: song.ogg becomes song.ogg.tags.json. Names that no
            file system can store are shortened, see `rfkeras.utils.files.fit_name`.

    Raises:
        ConfigError: Two files would be written to the same path.
    """
    targets: dict[Path, FoundFile] = {}
    for file in files:
        target = folder / file.inside.with_name(fit_name(file.inside.name, suffix))
        if (other := targets.setdefault(target, file)) is not file:
            raise ConfigError(
                f"{other.name} and {file.name} would both be written to "
                f"{printable(target)}. Give their common parent folder instead of the files: "
                "outputs keep the tree below it."
            )
    return list(targets)
