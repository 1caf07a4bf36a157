"""Find the audio files that a command line names, and the paths of their outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfkeras.audio.io import AUDIO_SUFFIXES
from rfkeras.errors import ConfigError

SUFFIXES = (*AUDIO_SUFFIXES, ".aifc", ".au", ".caf", ".rf64", ".w64", ".wave")


@dataclass(frozen=True)
class FoundFile:
    """A file to read, or a folder that could not be read.

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
        """The absolute path, independent of the current folder."""
        return printable(os.path.realpath(self.path))  # Path.resolve fails at a loop of links


def find_audio(arguments: Sequence[str | Path]) -> list[FoundFile]:
    """List the audio files that the arguments name, in a fixed order.

    A file given by name is always included, even with another suffix or if it does not exist;
    reading it reports the error. Folders are searched at any depth for audio suffixes, sorted
    by name. Hidden files and folders are skipped. Links are followed, but a folder reached
    twice, for example in a loop of links, is read once.

    Args:
        arguments: Files and folders.

    Raises:
        ConfigError: No audio file and no unreadable folder was found.
    """
    found: dict[str, FoundFile] = {}
    for argument in map(Path, arguments):
        files = (
            _files_in(argument)
            if argument.is_dir()
            else [FoundFile(argument, Path(argument.name))]
        )
        for file in files:
            found.setdefault(os.path.abspath(file.path), file)  # noqa: PTH100 (keeps links)
    if not found:
        folders = ", ".join(printable(argument) for argument in arguments)
        raise ConfigError(
            f"Found no audio in {folders}: no file name ends in {', '.join(SUFFIXES)}. To read "
            "a file with another suffix, give its path."
        )
    return list(found.values())


def _files_in(root: Path) -> list[FoundFile]:
    """Return the audio files and unreadable folders in a folder, sorted by path."""
    # Follow links only after all real folders, so that a folder reachable both ways keeps its
    # real path.
    files: list[FoundFile] = []
    seen: set[tuple[int, int]] = set()
    linked = [root]
    while linked:
        waiting = [linked.pop(0)]
        while waiting:
            folder = waiting.pop()
            try:
                status = folder.stat()
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                entries = list(_visible(folder))
            except OSError as error:
                reason = f"unreadable folder: {error.strerror}"
                files.append(FoundFile(folder, folder.relative_to(root), reason))
                continue
            for entry in entries:
                path = folder / entry.name
                if entry.is_dir():
                    (linked if entry.is_symlink() else waiting).append(path)
                elif path.suffix.lower() in SUFFIXES:
                    files.append(FoundFile(path, path.relative_to(root)))
    return sorted(files, key=lambda file: file.path.parts)


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder that are not hidden, sorted by name."""
    with os.scandir(folder) as entries:
        yield from sorted(
            (entry for entry in entries if not entry.name.startswith(".")),
            key=lambda entry: entry.name,
        )


def output_paths(folder: Path, files: Sequence[FoundFile], suffix: str) -> list[Path]:
    """Return the output path for each input file, in the same tree under another folder.

    Args:
        folder: Root of the output tree.
        files: The input files.
        suffix: Appended to the whole name: song.ogg becomes song.ogg.tags.json.

    Raises:
        ConfigError: Two files would be written to the same path.
    """
    targets: dict[Path, FoundFile] = {}
    for file in files:
        target = folder / file.inside.with_name(file.inside.name + suffix)
        if (other := targets.setdefault(target, file)) is not file:
            raise ConfigError(
                f"{other.name} and {file.name} would both be written to "
                f"{printable(target)}. Give their common parent folder instead of the files: "
                "outputs keep the tree below it."
            )
    return list(targets)


def printable(path: Path | str) -> str:
    """Return a path as text, with bytes that are not UTF-8 as escapes such as `\\udcff`."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")
