"""What all parts of a piece share: style, key, metre, tempo, harmony, and the excerpt."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

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


def scale_pitches(key: int, mode: str, low: int, high: int) -> tuple[int, ...]:
    """All pitches of the scale from low to high, ascending."""
    members = {(key + step) % 12 for step in SCALES[mode]}
    return tuple(pitch for pitch in range(low, high + 1) if pitch % 12 in members)


def chord_on(key: int, mode: str, degree: int, *, seventh: bool) -> tuple[int, ...]:
    """Pitch classes of the chord built in thirds on a scale degree, root first.

    In minor the dominant takes the raised leading tone, as in the harmonic minor scale.
    """
    scale = SCALES[mode]
    steps = (0, 2, 4, 6) if seventh else (0, 2, 4)
    classes = [(key + scale[(degree + step) % 7]) % 12 for step in steps]
    if mode == "minor" and degree == 4:
        classes[1] = (key + 11) % 12
    return tuple(classes)


def nearest(pitches: Sequence[int], target: float) -> int:
    """The pitch closest to the target; the lower of two equally close ones."""
    return min(pitches, key=lambda pitch: (abs(pitch - target), pitch))


def members(classes: Sequence[int], low: int, high: int) -> tuple[int, ...]:
    """All pitches from low to high whose pitch class is among those given."""
    return tuple(pitch for pitch in range(low, high + 1) if pitch % 12 in classes)


def voicing(
    classes: Sequence[int], low: int, high: int, voices: int, previous: Sequence[int] = ()
) -> tuple[int, ...]:
    """Chord pitches that move as little as possible from the chord before.

    Args:
        classes: Pitch classes of the chord.
        low: Lowest pitch allowed.
        high: Highest pitch allowed.
        voices: Wanted number of notes; fewer come back where the range has no room.
        previous: Pitches of the chord before; empty for the first, which is put in the
            middle of the range.

    Returns:
        Ascending pitches. Empty only if the range holds no chord tone.
    """
    tones = members(classes, low, high)
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


STEPS_PER_BEAT = 4
MIN_ONSETS = 4
MIN_SECONDS = 1.0
MAX_REST_SECONDS = 2.5
RING_SECONDS = 0.25
"""Shortest time for which a note is counted as heard: even a staccato note rings on."""


@dataclass(frozen=True, slots=True)
class Note:
    """One note; start and end are in beats while composing, in seconds when performed."""

    start: float
    end: float
    pitch: int
    velocity: int


def parse_rhythm(pattern: str) -> list[tuple[int, int, str]]:
    """Read a pattern of sixteenths: "-" holds the note before, "." is silence.

    Any other character starts a note, and is handed back with it.

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


def swung(beat: float, swing: float) -> float:
    """Move the off-beat: with swing 0.5 it lies half-way, with 2/3 it is a triplet."""
    whole = beat // 1
    part = beat - whole
    if part < 0.5:
        return whole + part * 2 * swing
    return whole + swing + (part - 0.5) * 2 * (1 - swing)


@dataclass(frozen=True)
class Hand:
    """A performer's habits.

    Attributes:
        velocity: Mean velocity.
        dynamics: Standard deviation of velocity.
        accent: Velocity added on the first beat of the bar, half of it on other beats.
        timing_s: Standard deviation of each onset, in seconds.
        lag_s: Constant push (negative) or drag, in seconds.
        gate: Share of its written length for which a note is held; a long note loses no
            more than half a beat.
    """

    velocity: float
    dynamics: float
    accent: float
    timing_s: float
    lag_s: float
    gate: float


def draw_hand(rng: random.Random, gate: tuple[float, float]) -> Hand:
    """A performer, with a gate drawn from the given range."""
    return Hand(
        velocity=rng.uniform(58, 104),
        dynamics=rng.uniform(2, 9),
        accent=rng.uniform(0, 16),
        timing_s=rng.uniform(0.002, 0.014),
        lag_s=rng.gauss(0, 0.006),
        gate=rng.uniform(*gate),
    )


def perform(
    rng: random.Random,
    notes: Iterable[Note],
    hand: Hand,
    *,
    tempo_bpm: float,
    swing: float,
    beats_per_bar: int,
) -> list[Note]:
    """Written notes (beats, velocity as an offset) to played ones (seconds, 1..127)."""
    beat_s = 60 / tempo_bpm
    played = []
    for note in notes:
        place = note.start % beats_per_bar
        accent = hand.accent if place == 0 else hand.accent / 2 if place % 1 == 0 else 0
        velocity = hand.velocity + note.velocity + accent + rng.gauss(0, hand.dynamics)
        start = swung(note.start, swing) * beat_s + hand.lag_s + rng.gauss(0, hand.timing_s)
        written_s = (swung(note.end, swing) - swung(note.start, swing)) * beat_s
        length = max(written_s * hand.gate, written_s - beat_s / 2)
        played.append(
            Note(
                start,
                start + max(length, 0.04),
                note.pitch,
                max(20, min(127, round(velocity))),
            )
        )
    return played


def tremolo(rng: random.Random, notes: Iterable[Note], strokes_hz: float) -> list[Note]:
    """Repeat every note (seconds) as quick strokes of alternating strength."""
    strokes = []
    for note in notes:
        count = max(1, round((note.end - note.start) * strokes_hz))
        step = (note.end - note.start) / count
        for stroke in range(count):
            start = note.start + stroke * step + (rng.gauss(0, 0.003) if stroke else 0)
            softer = 10 if stroke % 2 else 0
            velocity = max(20, min(127, note.velocity - softer + rng.randint(-4, 4)))
            strokes.append(replace(note, start=start, end=start + step, velocity=velocity))
    return strokes


def cut(notes: Iterable[Note], start: float, length: float, lead: float) -> tuple[Note, ...]:
    """The notes heard in a window, on the window's own clock, sorted.

    Notes that began before the window are kept, so that they ring into it, but none
    begins earlier than `lead` seconds before it.
    """
    kept = []
    for note in notes:
        first, last = note.start - start, min(note.end - start, length)
        # A note that ended shortly before the window may still ring inside it.
        if first >= length or (last <= 0 and first <= -lead):
            continue
        first = max(first, -lead)
        if last - first > 0.01:
            kept.append(replace(note, start=first, end=last))
    return tuple(sorted(kept, key=lambda note: (note.start, note.pitch, note.end)))


def sounds(notes: Sequence[Note], length: float) -> bool:
    """Whether a part is heard in a clip: enough notes, enough sound, no long rest.

    Args:
        notes: The part, in seconds on the clip's clock.
        length: Seconds of the clip.
    """
    onsets = [note.start for note in notes if 0 <= note.start < length - RING_SECONDS]
    silences = rests(notes, length)
    return (
        len(onsets) >= MIN_ONSETS
        and length - sum(silences) >= MIN_SECONDS
        and max(silences, default=0.0) <= MAX_REST_SECONDS
    )


def rests(notes: Sequence[Note], length: float) -> list[float]:
    """Seconds of each silence of a part in a clip; a note counts for 0.25 s at least."""
    silences, reached = [], 0.0
    for note in sorted(notes, key=lambda note: note.start):
        if note.start > reached:
            silences.append(note.start - reached)
        reached = max(reached, note.end, note.start + RING_SECONDS)
    if reached < length:
        silences.append(length - reached)
    return silences
