"""Finding the audio files that a command line names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfkeras.datasets.folder import SUFFIXES as DATA_SET_SUFFIXES
from rfkeras.errors import ConfigError

SUFFIXES = (*DATA_SET_SUFFIXES, ".aifc", ".au", ".caf", ".rf64", ".w64", ".wave")


@dataclass(frozen=True)
class FoundFile:
    """A file to read, or a folder that could not be.

    Attributes:
        path: As it was given, or as it was found under a folder that was given.
        inside: Path under the folder that was given; of a file that was given, its name.
        error: Why nothing can be read there; None for files, which nobody has opened yet.
    """

    path: Path
    inside: Path
    error: str | None = None

    @property
    def name(self) -> str:
        """The path as text that every encoding of Unicode can hold."""
        return printable(self.path)

    @property
    def key(self) -> str:
        """Its absolute path: the same from whichever folder a command is started."""
        return printable(os.path.realpath(self.path))  # Path.resolve fails at a loop of links


def printable(path: Path | str) -> str:
    """A path as text: bytes that are no UTF-8 become escapes such as `\\udcff`."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def find_audio(arguments: Sequence[str | Path]) -> list[FoundFile]:
    """List the files that arguments name, in an order that does not change.

    A file is taken whatever its name is, and also if it is missing: reading it will tell.
    A folder is searched at any depth for audio by suffix, in the order of the names. Hidden
    files and folders are left out. Links are followed, but a folder that is met twice, in a
    loop of links for example, is read once.

    Args:
        arguments: Files and folders.

    Raises:
        ConfigError: There is no file to read, and no folder that failed to be read.
    """
    found: dict[str, FoundFile] = {}
    for argument in map(Path, arguments):
        each = (
            _under(argument) if argument.is_dir() else (FoundFile(argument, _name(argument)),)
        )
        for file in each:
            found.setdefault(os.path.abspath(file.path), file)  # noqa: PTH100 (keeps links)
    if not found:
        folders = ", ".join(printable(argument) for argument in arguments)
        raise ConfigError(
            f"There is no audio under {folders}: no name ends in {', '.join(SUFFIXES)}. A file "
            "of any other name is read if you name the file itself."
        )
    return list(found.values())


def _name(path: Path) -> Path:
    return Path(path.name)


def _under(root: Path) -> list[FoundFile]:
    """What lies under a folder, sorted by path."""
    # Links wait until all real folders are read, so that a folder which can be reached both
    # ways keeps its real path.
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
    with os.scandir(folder) as entries:
        yield from sorted(
            (entry for entry in entries if not entry.name.startswith(".")),
            key=lambda entry: entry.name,
        )


def beside(folder: Path, files: Sequence[FoundFile], suffix: str) -> list[Path]:
    """A file to write for each that is read, in the same tree under another folder.

    Args:
        folder: Where the tree of outputs begins.
        files: What is read.
        suffix: Put behind the whole name: song.ogg becomes song.ogg.tags.json.

    Raises:
        ConfigError: Two files would be written to the same place.
    """
    targets: dict[Path, FoundFile] = {}
    for file in files:
        target = folder / file.inside.with_name(file.inside.name + suffix)
        if (other := targets.setdefault(target, file)) is not file:
            raise ConfigError(
                f"{other.name} and {file.name} would both be written to "
                f"{printable(target)}. Name the folder above them in place of the files: the "
                "tree under it is kept."
            )
    return list(targets)
