"""Notes, rhythm patterns, and how a performer's hand turns beats into seconds."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

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
