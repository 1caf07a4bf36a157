"""Drum and cymbal parts: grooves of one bar, fills, crashes (in beats, GM drum keys).

Drums (skins, stick, clap) and cymbals are two classes and two parts: both play from the
same groove, so that they fit together, and each stands alone as well.
"""

from __future__ import annotations

import random

from rfkeras.data.sources.gm_instruments.mapping import CYMBAL_NOTES, DRUM_NOTES
from rfkeras.data.sources.gm_instruments.notes import STEPS_PER_BEAT, Note
from rfkeras.data.sources.gm_instruments.song import Song

# "x" a hit, "o" a soft one. A groove names a few voices; a bar is 16 or 12 sixteenths.
_DRUM_GROOVES = {
    "pop": {"kick": "x.......x.x.....", "snare": "....x.......x..."},
    "rock": {"kick": "x.....x.x.x.....", "snare": "....x.......x..o"},
    "disco": {
        "kick": "x...x...x...x...",
        "clap": "....x.......x...",
        "snare": "....x..o....x..o",
    },
    "half_time": {"kick": "x.....x.........", "snare": "........x......."},
    "toms": {
        "kick": "x.......x.......",
        "floor_tom": "x..x..x.........",
        "low_tom": "..........x.x...",
        "high_tom": "..............x.",
    },
    "train": {"kick": "x.......x.......", "snare": "o.o.x.o.o.o.x.oo"},
    "swing": {
        "kick": "x.......o.......",
        "snare": "..o.......o...x.",
        "stick": "....x.......x...",
    },
    "latin": {
        "kick": "x.....x.x.....x.",
        "stick": "x..x..x...x.x...",
        "high_tom": "..............xx",
        "low_tom": "......x.........",
    },
    "bossa": {"kick": "x.....xxx.....xx", "stick": "x..x..x...x..x.."},
    "funk": {"kick": "x..x..x...x..x..", "snare": "....x..o.o..x..o"},
    "march": {"kick": "x.......x.......", "snare": "x.o.x.ooo.o.x.xx"},
    "waltz": {"kick": "x...........", "snare": "....o...o...", "stick": "....x...x..."},
    "six_eight": {"kick": "x.....o..x..", "snare": "......x....o"},
}
_CYMBAL_GROOVES = {
    4: (
        {"closed_hat": "x.o.x.o.x.o.x.o."},
        {"closed_hat": "x...x...x...x..."},
        {"closed_hat": "xoxoxoxoxoxoxoxo"},
        {"closed_hat": "x.o.x.o.x.o.x...", "open_hat": "..............x."},
        {"closed_hat": "x...x...x...x...", "open_hat": "..x...x...x...x."},
        {"ride": "x...x...x...x...", "pedal_hat": "....x.......x..."},
        {"ride": "x...x.o.x...x.o.", "pedal_hat": "....x.......x..."},
        {"ride": "x.o.x.o.x.o.x.o.", "bell": "x.......x......."},
        {"crash": "x.......x.......", "closed_hat": "....x.......x..."},
        {"open_hat": "x...x...x...x...", "china": "........x......."},
    ),
    3: (
        {"closed_hat": "x...o...o..."},
        {"closed_hat": "x.o.o.x.o.o."},
        {"ride": "x...x...x...", "pedal_hat": "....x...x..."},
        {"ride": "x.o.o.x.o.o.", "crash": "x..........."},
        {"open_hat": "x.....x....."},
    ),
}
_SOFT = -28
_FILL_VOICES = ("snare", "high_tom", "low_tom", "floor_tom")


def _bar(rng: random.Random, pattern: str, key: int, bar_beat: float) -> list[Note]:
    """Hits of one voice in one bar; a soft hit is sometimes left out."""
    notes = []
    for step, symbol in enumerate(pattern):
        if symbol == "." or (symbol == "o" and rng.random() < 0.12):
            continue
        start = bar_beat + step / STEPS_PER_BEAT
        velocity = _SOFT if symbol == "o" else 0
        notes.append(Note(start, start + 0.25, key, velocity))
    return notes


def _fill(rng: random.Random, song: Song, bar_beat: float) -> list[Note]:
    """Sixteenths or eighths down the toms in the last one or two beats of a bar."""
    beats = rng.choice((1, 1, 2))
    step = rng.choice((0.25, 0.25, 0.5))
    first = bar_beat + song.beats_per_bar - beats
    count = int(beats / step)
    voices = sorted(rng.choices(range(len(_FILL_VOICES)), k=count))
    return [
        Note(
            first + number * step,
            first + (number + 1) * step,
            DRUM_NOTES[_FILL_VOICES[voice]][0],
            number,
        )
        for number, voice in enumerate(voices)
    ]


def drum_part(rng: random.Random, song: Song) -> list[Note]:
    """Kick, snare, stick, clap and toms of the song's groove, with a fill every 4 or 8 bars."""
    groove = _DRUM_GROOVES[song.groove]
    keys = {voice: rng.choice(DRUM_NOTES[voice]) for voice in groove}
    every, offset = rng.choice((4, 4, 8, 2)), rng.randrange(4)
    notes: list[Note] = []
    for bar in range(song.bars):
        beat = float(bar * song.beats_per_bar)
        hits = [
            note
            for voice, pattern in groove.items()
            for note in _bar(rng, pattern, keys[voice], beat)
        ]
        if (bar + offset) % every == every - 1:
            fill = _fill(rng, song, beat)
            hits = [note for note in hits if note.start < fill[0].start] + fill
        notes.extend(hits)
    return notes


def cymbal_part(rng: random.Random, song: Song) -> list[Note]:
    """Hi-hat or ride pattern, with a crash or splash at the head of some phrases."""
    groove = rng.choice(_CYMBAL_GROOVES[song.beats_per_bar])
    keys = {voice: rng.choice(CYMBAL_NOTES[voice]) for voice in groove}
    phrase = rng.choice((2, 4, 4, 8))
    crash = rng.choice((*CYMBAL_NOTES["crash"], *CYMBAL_NOTES["splash"]))
    notes: list[Note] = []
    for bar in range(song.bars):
        beat = float(bar * song.beats_per_bar)
        for voice, pattern in groove.items():
            notes.extend(_bar(rng, pattern, keys[voice], beat))
        if bar % phrase == 0 and rng.random() < 0.8:
            notes.append(Note(beat, beat + 1.0, crash, 6))
    return notes
