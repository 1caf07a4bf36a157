"""The source of each track: a preset of one of the sound fonts, or one recording.

Every track of a composition draws its own source. A sound font takes part for the programs
that it has, so fonts may be partial. A recording takes part if it can play the track and
has the character of the program.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from rfkeras.errors import DatasetError
from rfkeras.synthesis.arrange import Casting
from rfkeras.synthesis.mapping import KITS
from rfkeras.synthesis.render import DRUM_BANK, SoundFont, read_sound_font

_GS_PRESETS = {("ukulele", 24): (8, 24), ("mandolin", 25): (16, 25)}
"""(bank, program) of the variation that replaces the approximation of a class, from the
Roland GS standard."""

_MOST_RECORDINGS = 0.6
_HALF_WAY = 3

_CHARACTERS: dict[str, dict[int, tuple[str, ...]]] = {
    "bass": {36: ("slap",), 37: ("slap",)},
    "guitar": {
        28: ("muted",),
        29: ("overdriv", "distort"),
        30: ("overdriv", "distort"),
    },
    "mallet_percussion": {
        9: ("glockenspiel",),
        11: ("vibraphone",),
        12: ("marimba",),
        13: ("xylophone",),
    },
    "organ": {18: ("rock",)},
    "piano": {2: ("electric_grand",), 3: ("honky", "tack")},
    "trumpet": {59: ("muted",)},
    "voice": {54: ("synth",)},
}
"""Programs of special character, by class. A recording plays one of them only if the name of
its instrument contains one of the words, and then it plays no other program."""

_AMPLIFIED = {27, 29, 30}
"""Electric guitars. Clean recordings play them through an amplifier."""
_NOT_AMPLIFIED = ("nylon", "muted")

_UNLABELLED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bassoon": (("other",), ("bassoon",)),
    "contrabass": (("bass",), ("arco", "bowed")),
    "electric_piano": (("other",), ("electric_piano",)),
    "harmonium": (("other",), ("harmonium",)),
    "harp": (("other",), ("harp",)),
    "horn": (("other",), ("horn",)),
    "string_ensemble": (("cello", "violin"), ("section",)),
    "tuba": (("other",), ("tuba",)),
}
"""Classes and words of the recordings that play sounds without a label. The labels of these
sounds would be doubtful, so the recordings do not play for their class."""


class Recorded(Protocol):
    """One instrument of a recording."""

    @property
    def recording(self) -> str:
        """Name of the recording. Instruments of one recording are not independent."""

    @property
    def instrument(self) -> str:
        """Name of the instrument, such as "nylon_guitar"."""


R = TypeVar("R", bound=Recorded)


@dataclass(frozen=True)
class PresetFont:
    """A sound font that may be partial.

    Attributes:
        font: The file, as the renderer takes it.
        presets: (bank, program) of its presets; drum kits are in bank 128.
    """

    font: SoundFont
    presets: frozenset[tuple[int, int]]


@dataclass(frozen=True)
class FontSource:
    """A preset of a sound font.

    Attributes:
        font: The sound font.
        bank: Its bank, to be sent as controller 0; 128 for drum kits.
        program: Its program, which may differ from that of the casting for drum kits.
    """

    font: SoundFont
    bank: int
    program: int


@dataclass(frozen=True)
class RecordingSource(Generic[R]):
    """One instrument of a recording.

    Attributes:
        recorded: The recorded instrument.
        amplified: Whether a clean guitar stands in for an electric or distorted one (programs
            27, 29 and 30), so that its sound must go through an amplifier.
    """

    recorded: R
    amplified: bool = False


@functools.lru_cache(maxsize=16)
def load_presets(path: Path) -> PresetFont:
    """Read a sound font, which need not have every program.

    Args:
        path: A SoundFont 2 file (.sf2).

    Raises:
        ConfigError: The file does not exist or is not in SoundFont 2 format.
    """
    content, presets = read_sound_font(path)
    kits = frozenset(program for bank, program in presets if bank == DRUM_BANK)
    sha256 = hashlib.sha256(content).hexdigest()
    return PresetFont(SoundFont(path, content, sha256, kits), presets)


def recording_share(count: int) -> float:
    """Return the probability that a track is played by a recording: 0.6 n / (n + 3).

    One recording would replace the variety of the sound fonts by a single sound, so its
    share is small; many recordings are worth more than the fonts. The values for 1, 3 and 9
    recordings are 0.15, 0.3 and 0.45.

    Args:
        count: Number of independent recordings that can play the track.
    """
    return _MOST_RECORDINGS * count / (count + _HALF_WAY)


def draw_source(
    rng: random.Random,
    casting: Casting,
    fonts: Sequence[PresetFont],
    able: Callable[[str], Iterable[R]] | None = None,
    kit: int = KITS[0],
    share: float | None = None,
) -> FontSource | RecordingSource[R]:
    """Draw the source of one track.

    The share of recordings follows `recording_share`. All fonts that have the program are
    equally likely, and so are all independent recordings; if a recording has several
    instruments that fit, these are equally likely within it.

    Args:
        rng: Source of every choice.
        casting: Instrument, program and register of the track.
        fonts: The sound fonts.
        able: Returns the recorded instruments of a class that can play the track, such as
            those that reach its notes. The class may be "other". None for sound fonts only.
        kit: Program of the drum kit. A font without it plays its standard kit, or else its
            first one.
        share: Probability that a recording plays the track, if one fits; None for
            `recording_share`.

    Raises:
        DatasetError: Neither a font nor a recording can play the track.
    """
    presets = font_sources(casting, fonts, kit)
    by_recording: dict[str, list[RecordingSource[R]]] = {}
    for source in recording_sources(casting, able) if able else ():
        by_recording.setdefault(source.recorded.recording, []).append(source)
    if share is None:
        share = recording_share(len(by_recording))
    # The number is drawn in any case, so that one font more or less changes little else.
    if by_recording and (rng.random() < share or not presets):
        fitting = by_recording[rng.choice(sorted(by_recording))]
        return rng.choice(sorted(fitting, key=lambda source: source.recorded.instrument))
    if presets:
        return rng.choice(presets)
    what = f"drum kit (bank {DRUM_BANK})" if casting.role == "kit" else "program"
    raise DatasetError(
        f"No source can play {casting.instrument.name}, pitches {casting.low} to "
        f"{casting.high}: none of the {len(fonts)} sound fonts has its {what} "
        f"{kit if casting.role == 'kit' else casting.program}, and no recording fits. Add a "
        "complete General MIDI sound font, such as TimGM6mb."
    )


def font_sources(
    casting: Casting, fonts: Sequence[PresetFont], kit: int = KITS[0]
) -> tuple[FontSource, ...]:
    """Return the preset of each font that can play a track.

    Args:
        casting: Instrument, program and register of the track.
        fonts: The sound fonts.
        kit: Program of the drum kit, for kits.
    """
    found = []
    for font in fonts:
        preset = _preset(casting, font, kit)
        if preset is not None:
            found.append(FontSource(font.font, *preset))
    return tuple(found)


def _preset(casting: Casting, font: PresetFont, kit: int) -> tuple[int, int] | None:
    """Return (bank, program) of the font's preset for a track, or None."""
    if casting.instrument.family == "kit":
        kits = sorted(font.font.kits)
        if not kits:
            return None
        return DRUM_BANK, kit if kit in kits else kits[0]
    variation = _GS_PRESETS.get((casting.instrument.name, casting.program))
    if variation in font.presets:
        return variation
    preset = (0, casting.program)
    return preset if preset in font.presets else None


def recording_sources(
    casting: Casting, able: Callable[[str], Iterable[R]]
) -> tuple[RecordingSource[R], ...]:
    """Return every recorded instrument that can play a track and has its character.

    Args:
        casting: Instrument, program and register of the track.
        able: Returns the recorded instruments of a class that can play the track.
    """
    name, program = casting.instrument.name, casting.program
    if name in _UNLABELLED:
        classes, words = _UNLABELLED[name]
        return tuple(
            RecordingSource(recorded)
            for wanted in classes
            for recorded in able(wanted)
            if _contains(recorded.instrument, words)
        )
    doubtful = tuple(
        word for classes, words in _UNLABELLED.values() if name in classes for word in words
    )
    return tuple(
        RecordingSource(recorded, _needs_amplifier(name, program, recorded.instrument))
        for recorded in able(name)
        if _fits(name, program, recorded.instrument)
        and not _contains(recorded.instrument, doubtful)
    )


def _fits(name: str, program: int, instrument: str) -> bool:
    """Return whether a recorded instrument has the character of a program."""
    characters = _CHARACTERS.get(name, {})
    if _contains(instrument, characters.get(program, ())):
        return True
    if _needs_amplifier(name, program, instrument):
        return not _contains(instrument, _NOT_AMPLIFIED)
    special = any(_contains(instrument, words) for words in characters.values())
    return program not in characters and not special


def _needs_amplifier(name: str, program: int, instrument: str) -> bool:
    """Return whether a recorded guitar is clean but the program is an electric guitar."""
    distorted = _contains(instrument, _CHARACTERS["guitar"][30])
    return name == "guitar" and program in _AMPLIFIED and not distorted


def _contains(instrument: str, words: Sequence[str]) -> bool:
    """Return whether the name of an instrument contains one of the words."""
    return any(word in instrument.lower() for word in words)
