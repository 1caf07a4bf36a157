"""The General MIDI sounds and pitch ranges of each OpenMIC-2018 class.

Programs are 0-based. Pitches are MIDI note numbers (60 = middle C), and both ends of a range
are included. The ranges follow the real instruments, so that a class is heard in the
registers that recordings have.
"""

from __future__ import annotations

from dataclasses import dataclass

CLASSES = (
    "accordion",
    "banjo",
    "bass",
    "cello",
    "clarinet",
    "cymbals",
    "drums",
    "flute",
    "guitar",
    "mallet_percussion",
    "mandolin",
    "organ",
    "piano",
    "saxophone",
    "synthesizer",
    "trombone",
    "trumpet",
    "ukulele",
    "violin",
    "voice",
)

KITS = (0, 8, 16, 24, 25, 32, 40)
"""Drum kits (programs of bank 128): standard, room, power, electronic, 808, jazz, brush."""

DRUM_NOTES = {
    "kick": (35, 36),
    "stick": (37,),
    "snare": (38, 40),
    "clap": (39,),
    "floor_tom": (41, 43),
    "low_tom": (45, 47),
    "high_tom": (48, 50),
}
CYMBAL_NOTES = {
    "closed_hat": (42,),
    "pedal_hat": (44,),
    "open_hat": (46,),
    "ride": (51, 59),
    "bell": (53,),
    "crash": (49, 57),
    "splash": (55,),
    "china": (52,),
}
PERCUSSION_NOTES = {
    "tambourine": 54,
    "cowbell": 56,
    "high_bongo": 60,
    "low_bongo": 61,
    "high_conga": 63,
    "low_conga": 64,
    "shaker": 70,
    "claves": 75,
}


@dataclass(frozen=True)
class Patch:
    """A GM program and the range of pitches that it may play."""

    program: int
    low: int
    high: int


@dataclass(frozen=True)
class Instrument:
    """A class of the data set, or a sound of unknown class.

    Attributes:
        name: Class name; for an unknown sound a name outside CLASSES.
        family: "plucked" or "struck" (both decay by themselves), "sustained" (blown or
            bowed), "keys" (held, played with both hands) or "kit".
        voices: Largest number of notes in a chord.
        patches: Programs, drawn with equal probability. Empty for a kit.
        tremolo: Whether longer notes are played as repeated strokes.
        resembles: For an unknown sound: the classes that it could be mistaken for.
    """

    name: str
    family: str
    voices: int
    patches: tuple[Patch, ...] = ()
    tremolo: bool = False
    resembles: tuple[str, ...] = ()


def patches(low: int, high: int, *programs: int) -> tuple[Patch, ...]:
    """Return patches that share one range of pitches."""
    return tuple(Patch(program, low, high) for program in programs)


_KNOWN = (
    Instrument("accordion", "keys", 4, patches(48, 88, 21, 23)),
    Instrument("banjo", "plucked", 4, patches(48, 84, 105)),
    Instrument("bass", "plucked", 2, patches(28, 60, 32, 33, 34, 35, 36, 37)),
    Instrument("cello", "sustained", 3, patches(36, 74, 42)),
    Instrument("clarinet", "sustained", 3, patches(50, 88, 71)),
    Instrument("cymbals", "kit", 1),
    Instrument("drums", "kit", 1),
    Instrument("flute", "sustained", 3, (*patches(60, 94, 73), *patches(74, 100, 72))),
    # Nylon strings stay below middle C here, because above it they represent the ukulele.
    Instrument(
        "guitar",
        "plucked",
        6,
        (*patches(40, 59, 24), *patches(40, 79, 25, 26, 27, 28, 29, 30)),
    ),
    Instrument(
        "mallet_percussion",
        "struck",
        3,
        (
            *patches(72, 100, 9),
            *patches(53, 88, 11),
            *patches(45, 88, 12),
            *patches(65, 98, 13),
        ),
    ),
    # No GM mandolin exists: steel guitar strings in tremolo, which the guitar never plays.
    Instrument("mandolin", "plucked", 4, patches(55, 86, 25), tremolo=True),
    Instrument("organ", "keys", 4, patches(36, 88, 16, 17, 18, 19, 20)),
    Instrument("piano", "struck", 5, patches(28, 96, 0, 1, 2, 3)),
    Instrument(
        "saxophone",
        "sustained",
        3,
        (
            *patches(56, 86, 64),
            *patches(49, 80, 65),
            *patches(44, 75, 66),
            *patches(37, 68, 67),
        ),
    ),
    Instrument(
        "synthesizer",
        "keys",
        4,
        patches(36, 82, 50, 51, 62, 63, 80, 81, 82, 83, 84, 86, 87, 88, 89, 90, 92, 93, 94, 95),
    ),
    Instrument("trombone", "sustained", 3, patches(40, 70, 57)),
    Instrument("trumpet", "sustained", 3, patches(54, 82, 56, 59)),
    # No GM ukulele exists: nylon strings between C4 and A5, the ukulele's own range.
    Instrument("ukulele", "plucked", 4, patches(60, 81, 24)),
    Instrument("violin", "sustained", 3, patches(55, 93, 40, 110)),
    # GM sings only vowels: aah, ooh and a synthetic voice.
    Instrument("voice", "sustained", 4, patches(45, 80, 52, 53, 54)),
)

UNKNOWN = (
    Instrument(
        "electric_piano",
        "struck",
        4,
        patches(40, 88, 4, 5),
        resembles=("piano", "synthesizer"),
    ),
    Instrument(
        "synth_bass", "plucked", 1, patches(28, 60, 38, 39), resembles=("bass", "synthesizer")
    ),
    Instrument("contrabass", "sustained", 2, patches(28, 57, 43), resembles=("bass", "cello")),
    Instrument(
        "string_ensemble",
        "keys",
        4,
        patches(40, 88, 44, 48, 49),
        resembles=("violin", "cello", "synthesizer"),
    ),
    Instrument("pizzicato", "plucked", 3, patches(40, 84, 45), resembles=("violin", "cello")),
)
"""Unlabelled sounds. The classes that they resemble become "not annotated"."""

INSTRUMENTS = {instrument.name: instrument for instrument in (*_KNOWN, *UNKNOWN)}


def programs_used() -> frozenset[int]:
    """Return every melodic program (bank 0) that a sound font must have."""
    return frozenset(
        patch.program for instrument in INSTRUMENTS.values() for patch in instrument.patches
    )
