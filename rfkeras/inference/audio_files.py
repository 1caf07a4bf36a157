"""The paths of the outputs for audio files that a command line names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rfkeras.audio.find import FoundFile, find_audio
from rfkeras.errors import ConfigError
from rfkeras.utils.files import fit_name
from rfkeras.utils.text import printable

__all__ = ["FoundFile", "find_audio", "output_paths", "printable"]


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
