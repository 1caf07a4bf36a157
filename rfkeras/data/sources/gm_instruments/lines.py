"""One-note-at-a-time parts: melodies, counter-melodies and bass lines (in beats)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rfkeras.data.sources.gm_instruments import theory
from rfkeras.data.sources.gm_instruments.notes import STEPS_PER_BEAT, Note, parse_rhythm
from rfkeras.data.sources.gm_instruments.song import Song

_FAST_TEMPO_BPM = 140.0

# One beat of rhythm each, with its weight as a function of density d in 0..1.
_CELLS = ("x---", "----", "x-x-", "--x-", "x-xx", "xxx-", "x--x", "xxxx", "....")

_BASS_FIGURES = {
    4: (
        "r---------------",
        "r-------5-------",
        "r---r---r---r---",
        "r-r-r-r-r-r-r-r-",
        "r---5---8---5---",
        "r-----r-5-------",
        "r---3---5---s---",
        "r---s---5---s---",
        "r-8-r-8-r-8-r-8-",
        "r--r--8-r--r--5-",
        "r.r...r.5.8.r.5.",
        "..r-..r-..r-..r-",
    ),
    3: (
        "r-----------",
        "r---5---5---",
        "r---3---5---",
        "r-----5-----",
        "r-----5-8---",
        "r---5---s---",
        "r-5-8-5-3-5-",
    ),
}


def _bar_rhythm(rng: random.Random, beats: int, density: float) -> list[tuple[int, int]]:
    """(first step, steps) of the notes of one bar; a dense bar has sixteenths."""
    weights = (
        1.5,
        1.2 * (1 - density),
        0.6 + 1.6 * density,
        0.4,
        1.2 * density,
        0.8 * density,
        0.3,
        0.9 * density**2,
        0.3,
    )
    pattern = "".join(rng.choices(_CELLS, weights, k=beats))
    rhythm = [(start, length) for start, length, _ in parse_rhythm(pattern)]
    return rhythm or [(0, beats * STEPS_PER_BEAT)]


def _motif_bar(rng: random.Random, beats: int, density: float) -> list[tuple[int, int, int]]:
    """A bar of melody before it meets the harmony: (first step, steps, scale step)."""
    moves = (-4, -3, -2, -1, 0, 1, 2, 3, 4)
    weights = (1, 2, 4, 8, 3, 8, 4, 2, 1)
    return [
        (start, length, rng.choices(moves, weights)[0])
        for start, length in _bar_rhythm(rng, beats, density)
    ]


def melody(rng: random.Random, song: Song, low: int, high: int, density: float) -> list[Note]:
    """A tune in four-bar phrases: two bars, the first again, then an answer or a cadence.

    Strong beats and long notes take chord tones; what lies between walks on the scale.

    Args:
        rng: Source of every choice.
        song: The frame.
        low: Lowest pitch.
        high: Highest pitch; at least an octave above low gives it room to breathe.
        density: 0 for long notes, 1 for a stream of sixteenths; fast tempi halve it.

    Returns:
        Notes with beats as times and velocity offsets (phrases swell and fade).
    """
    beats = song.beats_per_bar
    density = density / 2 if song.tempo_bpm > _FAST_TEMPO_BPM else density
    scale = theory.scale_pitches(song.key, song.mode, low, high)
    theme = [_motif_bar(rng, beats, density) for _ in range(2)]
    answers = [_motif_bar(rng, beats, density) for _ in range(2)]
    cadence = [(0, rng.choice((2, 3)) * STEPS_PER_BEAT, rng.choice((-1, 0, 1)))]
    endings = [answers[1], cadence] if rng.random() < 0.7 else [answers[1], answers[1]]
    swell = rng.uniform(0, 14)
    position = len(scale) // 2 + rng.randint(-2, 2)
    notes: list[Note] = []
    for bar in range(song.bars):
        place, phrase = bar % 4, bar // 4
        figure = (theme[0], theme[1], theme[0], endings[phrase % 2])[place]
        if phrase % 2 and place == 1:
            figure = answers[0]
        for start, steps, move in figure:
            beat = bar * beats + start / STEPS_PER_BEAT
            position = _bounce(position + move, len(scale))
            pitch = scale[position]
            if start % (2 * STEPS_PER_BEAT) == 0 or steps > STEPS_PER_BEAT:
                tones = theory.members(song.chord_at(beat).classes, low, high) or scale
                pitch = theory.nearest(tones, pitch)
                position = scale.index(theory.nearest(scale, pitch))
            arc = swell * (1 - abs(place + start / (beats * STEPS_PER_BEAT) - 2) / 2)
            notes.append(Note(beat, beat + steps / STEPS_PER_BEAT, pitch, round(arc)))
    return notes


def _bounce(position: int, size: int) -> int:
    """Reflect an index that left 0..size-1."""
    if position < 0:
        position = -position
    if position >= size:
        position = 2 * (size - 1) - position
    return max(0, min(size - 1, position))


def counter_melody(rng: random.Random, song: Song, low: int, high: int) -> list[Note]:
    """Long notes that move to a near chord tone whenever the harmony changes."""
    pitch = (low + high) // 2 + rng.randint(-4, 4)
    parts = rng.choice((1, 1, 2))
    late = rng.choice((0.0, 0.0, 0.5, 1.0))
    notes = []
    for chord in song.chords:
        length = (chord.end - chord.start) / parts
        for part in range(parts):
            tones = theory.members(chord.classes, low, high)
            fresh = [tone for tone in tones if tone != pitch] or list(tones)
            if not fresh:
                continue
            pitch = theory.nearest(fresh, pitch + rng.uniform(-2, 2))
            start = chord.start + part * length
            offset = late if late < length / 2 else 0.0
            notes.append(Note(start + offset, start + length, pitch, 0))
    return notes


def bass_line(rng: random.Random, song: Song, low: int, high: int) -> list[Note]:
    """A figure on root, third, fifth and octave of every chord, or a walk towards the next.

    Args:
        rng: Source of every choice.
        song: The frame.
        low: Lowest pitch.
        high: Highest pitch, at least 11 above low so that every root exists.
    """
    beats = song.beats_per_bar
    figure = rng.choice(_BASS_FIGURES[beats])
    variation = rng.choice(_BASS_FIGURES[beats])
    scale = theory.scale_pitches(song.key, song.mode, low, high)
    root = low + (high - low) // 3
    notes = []
    for bar in range(song.bars):
        for start, steps, symbol in parse_rhythm(variation if bar % 4 == 3 else figure):
            beat = bar * beats + start / STEPS_PER_BEAT
            end = beat + steps / STEPS_PER_BEAT
            chord = song.chord_at(beat)
            root = theory.nearest(theory.members(chord.classes[:1], low, high), root)
            if symbol == "s":
                following = song.chord_at(end).classes[:1]
                target = theory.nearest(theory.members(following, low, high), root)
                pitch = _step_before(scale, target, rng)
            else:
                pitch = _chord_member(symbol, chord.classes, root, low, high)
            notes.append(Note(beat, end, pitch, 0))
    return notes


def _chord_member(symbol: str, classes: Sequence[int], root: int, low: int, high: int) -> int:
    """Pitch that a bass figure's symbol means, kept within the range."""
    interval = {
        "r": 0,
        "3": (classes[1] - classes[0]) % 12,
        "5": (classes[2] - classes[0]) % 12,
        "8": 12,
    }[symbol]
    pitch = root + interval
    return pitch if pitch <= high else max(low, pitch - 12)


def _step_before(scale: Sequence[int], target: int, rng: random.Random) -> int:
    """A scale neighbour of the target, from below or above."""
    neighbours = [pitch for pitch in scale if 0 < abs(pitch - target) <= 2]
    return rng.choice(neighbours) if neighbours else target
