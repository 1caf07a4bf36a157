"""Sound fonts: where the default one lies, and whether a font has what the music needs."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from rfkeras.data.sources.gm_instruments.mapping import KITS, programs_used
from rfkeras.errors import ConfigError, DatasetError

DEFAULT_NAME = "TimGM6mb"
_DRUM_BANK = 128
_PRESET_BYTES = 38


@dataclass(frozen=True)
class SoundFont:
    """A checked sound font.

    Attributes:
        path: The file.
        content: Its bytes.
        sha256: Their checksum, hexadecimal.
        kits: Programs of its drum kits.
    """

    path: Path
    content: bytes
    sha256: str
    kits: frozenset[int]


def default_path() -> Path:
    """TimGM6mb.sf2 inside the installed pretty_midi, found without importing that.

    Raises:
        DatasetError: pretty_midi is not installed, or has no sound font any more.
    """
    spec = importlib.util.find_spec("pretty_midi")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "TimGM6mb.sf2"
        if path.is_file():
            return path
    raise DatasetError(
        "The sound font TimGM6mb.sf2 was not found: it is a file of the package pretty_midi "
        "0.2.11. Install that version (pip install pretty_midi==0.2.11), or name another "
        "sound font."
    )


def paths_in(text: str) -> tuple[Path, ...]:
    """Sound fonts named in one text, as absolute paths.

    Args:
        text: One file, or several with ":" between them as in PATH; "TimGM6mb" is the
            default font.

    Raises:
        DatasetError: The default font is named and not installed.
    """
    names = [name for name in text.split(os.pathsep) if name]
    return tuple(
        default_path() if name == DEFAULT_NAME else Path(name).resolve() for name in names
    )


@functools.lru_cache(maxsize=4)
def load(path: Path) -> SoundFont:
    """Read a sound font and check that it has every program that the music uses.

    Args:
        path: A SoundFont 2 file (.sf2).

    Raises:
        ConfigError: No such file, or not SoundFont 2.
        DatasetError: It lacks programs; playing others instead would make labels wrong.
    """
    if not path.is_file():
        raise ConfigError(f"The sound font must be an .sf2 file. Received: {path}: no file.")
    content = path.read_bytes()
    presets = _presets(content)
    if content[:4] != b"RIFF" or content[8:12] != b"sfbk" or not presets:
        raise ConfigError(
            f"The sound font must be in SoundFont 2 format (.sf2). Received: {path}: not one."
        )
    missing = sorted(programs_used() - {program for bank, program in presets if bank == 0})
    kits = frozenset(program for bank, program in presets if bank == _DRUM_BANK)
    if missing or KITS[0] not in kits:
        raise DatasetError(
            f"{path}: the sound font needs a standard drum kit (bank {_DRUM_BANK}, program "
            f"{KITS[0]}) and all GM programs of the mapping. Missing programs: {missing}; "
            f"drum kits found: {sorted(kits)}. Use a complete General MIDI sound font."
        )
    return SoundFont(path, content, hashlib.sha256(content).hexdigest(), kits)


def _presets(content: bytes) -> set[tuple[int, int]]:
    """(bank, program) of every preset that the font's header lists."""
    # The header stands in the last chunk, so a sample that spells "phdr" cannot mislead.
    place = content.rfind(b"phdr")
    if place < 0 or place + 8 > len(content):
        return set()
    size = int.from_bytes(content[place + 4 : place + 8], "little")
    table = content[place + 8 : place + 8 + size]
    # The last record only marks the end.
    starts = range(0, len(table) - 2 * _PRESET_BYTES + 1, _PRESET_BYTES)
    found = (struct.unpack_from("<HH", table, start + 20) for start in starts)
    return {(bank, program) for program, bank in found}
