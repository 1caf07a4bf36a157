"""Scales, chords, progressions and voice-leading: pure functions over pitch classes.

A pitch class is 0..11 (0 = C), a pitch a MIDI note number, a degree 0..6 (0 = tonic).
"""

from __future__ import annotations

from collections.abc import Sequence

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
