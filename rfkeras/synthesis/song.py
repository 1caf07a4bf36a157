"""Style, key, tempo and harmony, which all parts of a clip share, and the note types.

`draw_song` draws these before any instrument is chosen. The other functions are small
rules of music theory on pitches, chords and rhythm patterns.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

CLIP_SECONDS = 10.0
LEAD_SECONDS = 1.0
"""Music rendered before the clip starts, so that notes already ring when it begins."""

STEPS_PER_BEAT = 4
"""Steps of a rhythm pattern in one quarter note: a step is a sixteenth."""

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}

PROGRESSIONS = {
    "major": (
        (0, 4, 5, 3),
        (0, 5, 3, 4),
        (5, 3, 0, 4),
        (0, 3, 4, 0),
        (1, 4, 0, 5),
        (0, 2, 3, 4),
        (0, 5, 1, 4),
        (3, 0, 4, 5),
        (0, 4, 5, 2, 3, 0, 3, 4),
        (0, 0, 3, 0, 4, 3, 0, 4),
    ),
    "minor": (
        (0, 5, 2, 6),
        (0, 6, 5, 4),
        (0, 3, 4, 0),
        (0, 3, 6, 2),
        (0, 5, 3, 4),
        (1, 4, 0, 0),
        (0, 2, 6, 3),
        (0, 3, 6, 2, 5, 1, 4, 0),
    ),
    "dorian": ((0, 3, 0, 3), (0, 1, 3, 0), (0, 6, 3, 0), (0, 2, 3, 3)),
    "mixolydian": (
        (0, 6, 3, 0),
        (0, 3, 6, 0),
        (0, 4, 3, 6),
        (0, 0, 0, 0, 3, 3, 0, 0, 4, 3, 0, 4),
    ),
}


@dataclass(frozen=True, slots=True)
class Note:
    """One note. Start and end are in beats while composing, and in seconds once performed.

    Velocity is an offset while composing, and 1 to 127 once performed.
    """

    start: float
    end: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Style:
    """A style of music. Instruments are drawn independently of it.

    Attributes:
        name: Name of the style; nothing depends on it.
        tempo_bpm: Range of tempo, in quarter notes per minute.
        swing: Range of the off-beat's position within the beat.
        modes: Modes to choose from.
        seventh: Probability that the chords have sevenths.
        beats_per_chord: Harmonic rhythms to choose from.
        grooves: Names of drum grooves to choose from.
        beats_per_bar: Quarter notes per bar.
    """

    name: str
    tempo_bpm: tuple[float, float]
    swing: tuple[float, float]
    modes: tuple[str, ...]
    seventh: float
    beats_per_chord: tuple[int, ...]
    grooves: tuple[str, ...]
    beats_per_bar: int = 4


_STRAIGHT = (0.5, 0.52)
_TONAL = ("major", "minor")
_MODAL = ("dorian", "mixolydian")
STYLES = (
    Style("pop", (84, 128), _STRAIGHT, _TONAL, 0.2, (4, 2), ("pop", "rock", "disco")),
    Style(
        "rock", (100, 160), _STRAIGHT, (*_TONAL, "mixolydian"), 0.05, (4, 2), ("rock", "toms")
    ),
    Style("ballad", (60, 84), _STRAIGHT, _TONAL, 0.4, (4, 2), ("half_time", "pop")),
    Style("folk", (92, 140), (0.5, 0.56), (*_TONAL, *_MODAL), 0.05, (4, 2), ("train", "pop")),
    Style("jazz", (100, 190), (0.6, 0.67), (*_TONAL, "dorian"), 1.0, (4, 2), ("swing",)),
    Style("shuffle", (88, 132), (0.62, 0.67), _MODAL, 0.5, (4,), ("swing", "rock")),
    Style("latin", (92, 132), _STRAIGHT, _TONAL, 0.7, (4, 2), ("latin", "bossa")),
    Style("funk", (88, 116), (0.5, 0.57), _MODAL, 0.8, (4, 8), ("funk", "disco")),
    Style("classical", (66, 132), _STRAIGHT, _TONAL, 0.3, (4, 2), ("march", "half_time")),
    Style("waltz", (92, 176), _STRAIGHT, _TONAL, 0.3, (3,), ("waltz",), beats_per_bar=3),
    Style(
        "six_eight",
        (84, 140),
        _STRAIGHT,
        (*_TONAL, "dorian"),
        0.2,
        (3,),
        ("six_eight",),
        beats_per_bar=3,
    ),
)


@dataclass(frozen=True)
class Chord:
    """A chord of the harmony: beats from start to end, pitch classes with the root first."""

    start: float
    end: float
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Song:
    """The style, key, tempo and harmony that every part follows.

    Attributes:
        style: Style of the music.
        key: Pitch class of the tonic.
        mode: Name of the scale.
        tempo_bpm: Quarter notes per minute.
        swing: Position of the off-beat within the beat, 0.5 to 0.67.
        groove: Name of the drum groove.
        bars: Number of bars.
        chords: The harmony of all bars, without gaps.
        excerpt_s: Time in the song at which the clip starts, in seconds. It is slightly
            negative if the clip starts with bar 1.
    """

    style: Style
    key: int
    mode: str
    tempo_bpm: float
    swing: float
    groove: str
    bars: int
    chords: tuple[Chord, ...]
    excerpt_s: float

    @property
    def beats_per_bar(self) -> int:
        """Quarter notes per bar."""
        return self.style.beats_per_bar

    def chord_at(self, beat: float) -> Chord:
        """Return the chord at a beat; after the end, the last chord."""
        length = self.chords[0].end - self.chords[0].start
        return self.chords[min(int(beat / length), len(self.chords) - 1)]


def draw_song(rng: random.Random) -> Song:
    """Draw a song: everything that is chosen before the instruments."""
    style = rng.choice(STYLES)
    key, mode = rng.randrange(12), rng.choice(style.modes)
    tempo_bpm = rng.uniform(*style.tempo_bpm)
    bar_s = style.beats_per_bar * 60 / tempo_bpm
    from_bar_one = rng.random() < 0.35
    excerpt_s = -rng.uniform(0.05, 0.4) if from_bar_one else rng.uniform(1, 8) * bar_s
    bars = math.ceil((excerpt_s + CLIP_SECONDS) / bar_s) + 1
    seventh = rng.random() < style.seventh
    progression = rng.choice(PROGRESSIONS[mode])
    beats_per_chord = rng.choice(style.beats_per_chord)
    chords = tuple(
        Chord(
            number * beats_per_chord,
            (number + 1) * beats_per_chord,
            chord_on(key, mode, progression[number % len(progression)], seventh=seventh),
        )
        for number in range(math.ceil(bars * style.beats_per_bar / beats_per_chord))
    )
    return Song(
        style=style,
        key=key,
        mode=mode,
        tempo_bpm=tempo_bpm,
        swing=rng.uniform(*style.swing),
        groove=rng.choice(style.grooves),
        bars=bars,
        chords=chords,
        excerpt_s=excerpt_s,
    )


def scale_pitches(key: int, mode: str, low: int, high: int) -> tuple[int, ...]:
    """Return all pitches of the scale from low to high, ascending."""
    return pitches_in({(key + step) % 12 for step in SCALES[mode]}, low, high)


def chord_on(key: int, mode: str, degree: int, *, seventh: bool) -> tuple[int, ...]:
    """Return the pitch classes of the chord built in thirds on a scale degree, root first.

    In minor, the dominant has the raised leading tone, as in the harmonic minor scale.
    """
    scale = SCALES[mode]
    steps = (0, 2, 4, 6) if seventh else (0, 2, 4)
    classes = [(key + scale[(degree + step) % 7]) % 12 for step in steps]
    if mode == "minor" and degree == 4:
        classes[1] = (key + 11) % 12
    return tuple(classes)


def nearest(pitches: Sequence[int], target: float) -> int:
    """Return the pitch closest to the target; of two equally close ones, the lower."""
    return min(pitches, key=lambda pitch: (abs(pitch - target), pitch))


def pitches_in(classes: Collection[int], low: int, high: int) -> tuple[int, ...]:
    """Return all pitches from low to high with one of the given pitch classes, ascending."""
    return tuple(pitch for pitch in range(low, high + 1) if pitch % 12 in classes)


def voicing(
    classes: Sequence[int], low: int, high: int, voices: int, previous: Sequence[int] = ()
) -> tuple[int, ...]:
    """Choose chord pitches that move as little as possible from the previous chord.

    Args:
        classes: Pitch classes of the chord.
        low: Lowest pitch allowed.
        high: Highest pitch allowed.
        voices: Number of notes; fewer are returned if the range has too few chord tones.
        previous: Pitches of the previous chord. Empty for the first chord, which is placed
            in the middle of the range.

    Returns:
        Ascending pitches. Empty only if the range contains no chord tone.
    """
    tones = pitches_in(classes, low, high)
    voices = min(voices, len(tones))
    if voices == 0:
        return ()
    stacks = [tones[start : start + voices] for start in range(len(tones) - voices + 1)]
    if len(previous) == voices:
        return min(
            stacks,
            key=lambda stack: sum(abs(a - b) for a, b in zip(stack, previous, strict=True)),
        )
    goal = sum(previous) / len(previous) if previous else (low + high) / 2
    return min(stacks, key=lambda stack: abs(sum(stack) / voices - goal))


def parse_rhythm(pattern: str) -> list[tuple[int, int, str]]:
    """Read a pattern of sixteenths: "-" holds the previous note, "." is silence.

    Any other character starts a note and is returned with it.

    Returns:
        (first step, number of steps, character) of each note.
    """
    found: list[tuple[int, int, str]] = []
    open_note = False
    for step, symbol in enumerate(pattern):
        if symbol == "-":
            if open_note:
                start, length, kind = found[-1]
                found[-1] = (start, length + 1, kind)
        elif symbol == ".":
            open_note = False
        else:
            found.append((step, 1, symbol))
            open_note = True
    return found
