"""What all parts of a piece share: style, key, metre, tempo, harmony, and the excerpt."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from rfkeras.data.sources.gm_instruments import theory

CLIP_SECONDS = 10.0
LEAD_SECONDS = 1.0
"""Music rendered before the clip's start, so that notes already ring when it begins."""


@dataclass(frozen=True)
class Style:
    """A manner of playing. Instruments are drawn without regard to it.

    Attributes:
        name: For the reader.
        tempo_bpm: Range of tempo, quarter notes a minute.
        swing: Range of the off-beat's place within the beat.
        modes: Modes to choose from.
        seventh: Probability that the chords have sevenths.
        beats_per_chord: Harmonic rhythms to choose from.
        grooves: Names of drum grooves.
        beats_per_bar: Quarter notes a bar.
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
    """The frame that every part is written into.

    Attributes:
        style: The manner of playing.
        key: Pitch class of the tonic.
        mode: Name of the scale.
        tempo_bpm: Quarter notes a minute.
        swing: Place of the off-beat within the beat, 0.5 to 0.67.
        groove: Name of the drum groove.
        bars: Number of bars.
        chords: The harmony without gaps, over all bars.
        excerpt_s: Second of the piece at which the clip starts; a little below 0 where
            the clip starts with bar 1.
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
        """Quarter notes a bar."""
        return self.style.beats_per_bar

    def chord_at(self, beat: float) -> Chord:
        """The chord that sounds at a beat; past the end, the last one."""
        length = self.chords[0].end - self.chords[0].start
        return self.chords[min(int(beat / length), len(self.chords) - 1)]


def draw_song(rng: random.Random) -> Song:
    """A new frame: everything here is drawn before any instrument is chosen."""
    style = rng.choice(STYLES)
    key, mode = rng.randrange(12), rng.choice(style.modes)
    tempo_bpm = rng.uniform(*style.tempo_bpm)
    bar_s = style.beats_per_bar * 60 / tempo_bpm
    from_bar_one = rng.random() < 0.35
    excerpt_s = -rng.uniform(0.05, 0.4) if from_bar_one else rng.uniform(1, 8) * bar_s
    bars = math.ceil((excerpt_s + CLIP_SECONDS) / bar_s) + 1
    seventh = rng.random() < style.seventh
    progression = rng.choice(theory.PROGRESSIONS[mode])
    beats_per_chord = rng.choice(style.beats_per_chord)
    chords = tuple(
        Chord(
            number * beats_per_chord,
            (number + 1) * beats_per_chord,
            theory.chord_on(key, mode, progression[number % len(progression)], seventh=seventh),
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
