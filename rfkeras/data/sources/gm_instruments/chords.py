"""Chord parts: pads, comping, strumming and arpeggios over a voice-led harmony (in beats)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rfkeras.data.sources.gm_instruments import theory
from rfkeras.data.sources.gm_instruments.notes import STEPS_PER_BEAT, Note, parse_rhythm
from rfkeras.data.sources.gm_instruments.song import Chord, Song

TEXTURES = {
    "plucked": ("strum", "strum", "arpeggio", "comp"),
    "struck": ("comp", "arpeggio", "arpeggio", "pad"),
    "keys": ("pad", "comp", "arpeggio"),
    "sustained": ("pad", "pad", "comp", "arpeggio"),
}
"""Textures by family, repeated ones likelier; every family has pads or ringing strums,
comping and arpeggios, so that no texture names a class."""

_COMPS = {
    4: (
        "x---------------",
        "x-------x-------",
        "x---x---x---x---",
        "x-x-x-x-x-x-x-x-",
        "..x-..x-..x-..x-",
        "x-----x-----x---",
        "x--x--x---x-x---",
        "....x-......x-..",
        "x.....x...x.....",
        "x---..x-x-x-..x-",
        "x-xxx-xxx-xxx-xx",
    ),
    3: (
        "x-----------",
        "x---x---x---",
        "....x-..x-..",
        "x-----x-----",
        "x-x-x-x-x-x-",
        "x-----x-x---",
    ),
}
_ORDERS = ("up", "down", "up_down", "alberti", "random")


def chord_part(
    rng: random.Random, song: Song, low: int, high: int, voices: int, texture: str
) -> list[Note]:
    """Accompany the harmony.

    Args:
        rng: Source of every choice.
        song: The frame.
        low: Lowest pitch.
        high: Highest pitch.
        voices: Notes in a chord (a texture of few notes may use fewer).
        texture: "pad", "comp", "strum" or "arpeggio".

    Returns:
        Notes with beats as times and velocity offsets.
    """
    voiced: list[tuple[Chord, tuple[int, ...]]] = []
    pitches: tuple[int, ...] = ()
    for chord in song.chords:
        pitches = theory.voicing(chord.classes, low, high, voices, pitches)
        voiced.append((chord, pitches))
    if texture == "pad":
        return _pad(voiced)
    if texture == "arpeggio":
        return _arpeggio(rng, song, voiced)
    return _comp(rng, song, voiced, strummed=texture == "strum")


def _pad(voiced: Sequence[tuple[Chord, tuple[int, ...]]]) -> list[Note]:
    return [
        Note(chord.start, chord.end, pitch, 0) for chord, pitches in voiced for pitch in pitches
    ]


def _comp(
    rng: random.Random,
    song: Song,
    voiced: Sequence[tuple[Chord, tuple[int, ...]]],
    *,
    strummed: bool,
) -> list[Note]:
    """Chords in a rhythm; strummed ones run over the strings, down on beats, up between."""
    patterns = _COMPS[song.beats_per_bar]
    pattern, variation = rng.choice(patterns), rng.choice(patterns)
    string_s = rng.uniform(0.008, 0.028) if strummed else rng.uniform(0, 0.004)
    string_beats = string_s * song.tempo_bpm / 60
    notes = []
    for bar in range(song.bars):
        for start, steps, _ in parse_rhythm(variation if bar % 4 == 3 else pattern):
            beat = bar * song.beats_per_bar + start / STEPS_PER_BEAT
            chord = song.chord_at(beat)
            pitches = voiced[song.chords.index(chord)][1]
            up = start % STEPS_PER_BEAT != 0
            ordered = tuple(reversed(pitches)) if up else pitches
            end = min(beat + steps / STEPS_PER_BEAT, chord.end)
            for string, pitch in enumerate(ordered):
                delayed = min(beat + string * string_beats, end - 0.05)
                notes.append(Note(delayed, end, pitch, -6 if up and strummed else 0))
    return notes


def _arpeggio(
    rng: random.Random, song: Song, voiced: Sequence[tuple[Chord, tuple[int, ...]]]
) -> list[Note]:
    """The chord's notes one after the other, in eighths or, at slow tempi, sixteenths."""
    order = rng.choice(_ORDERS)
    step = 0.25 if song.tempo_bpm < 120 and rng.random() < 0.45 else 0.5
    ringing = rng.random() < 0.5
    notes = []
    for chord, pitches in voiced:
        if not pitches:
            continue
        cycle = _cycle(order, pitches, rng)
        count = int((chord.end - chord.start) / step)
        for number in range(count):
            start = chord.start + number * step
            # A ringing note lasts until its string is plucked again.
            end = start + (step * len(pitches) if ringing else step)
            pitch = cycle[number % len(cycle)]
            notes.append(Note(start, min(end, chord.end), pitch, 3 if number == 0 else 0))
    return notes


def _cycle(order: str, pitches: tuple[int, ...], rng: random.Random) -> tuple[int, ...]:
    """One turn of an arpeggio over ascending pitches."""
    if order == "down":
        return tuple(reversed(pitches))
    if order == "up_down":
        return pitches + tuple(reversed(pitches[1:-1]))
    if order == "alberti" and len(pitches) >= 3:
        return (pitches[0], pitches[-1], pitches[1], pitches[-1])
    if order == "random":
        return tuple(rng.sample(pitches, len(pitches)))
    return pitches
