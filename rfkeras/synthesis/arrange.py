"""Casting of a clip, and its parts as written notes: melodies, chords, bass lines and drums.

`cast` chooses the performers and their roles; `write_part` writes the part of one of them.
All times are in beats, and velocities are offsets.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from rfkeras.synthesis.mapping import (
    CLASSES,
    CYMBAL_NOTES,
    DRUM_NOTES,
    INSTRUMENTS,
    PERCUSSION_NOTES,
    UNKNOWN,
    Instrument,
    Patch,
)
from rfkeras.synthesis.song import (
    STEPS_PER_BEAT,
    Chord,
    Note,
    Song,
    nearest,
    parse_rhythm,
    pitches_in,
    scale_pitches,
    voicing,
)

ROLES = ("melody", "counter", "chords", "bass")
_PART_COUNTS = {1: 0.32, 2: 0.30, 3: 0.21, 4: 0.11, 5: 0.06}
_UNKNOWN_RATE = 0.12
_KIT_TOGETHER = 5.0
# Factor on a role's weight for each performer that already has it.
_REPEATED_ROLE_WEIGHTS = {"melody": 0.5, "counter": 0.0, "chords": 0.5, "bass": 0.15}
BASS_TOP = 52
"""A bass line stays at or below E3, so its instrument needs an octave below that."""


@dataclass(frozen=True)
class Casting:
    """One performer of a clip.

    Attributes:
        instrument: The instrument.
        program: GM program, 0-based; 0 for kits, because the clip chooses the kit.
        role: One of ROLES; "kit" for drums, cymbals and percussion; "run" for fast passages.
        low: Lowest pitch of the part.
        high: Highest pitch of the part.
    """

    instrument: Instrument
    program: int
    role: str
    low: int
    high: int


def cast(rng: random.Random, featured: str) -> tuple[Casting, ...]:
    """Choose 1 to 5 performers, including the featured class.

    All classes are equally likely for the others, except that drums and cymbals attract
    each other. Occasionally a performer has a sound of unknown class.
    """
    count = rng.choices(tuple(_PART_COUNTS), tuple(_PART_COUNTS.values()))[0]
    chosen = [INSTRUMENTS[featured]]
    while len(chosen) < count:
        if rng.random() < _UNKNOWN_RATE:
            pool, weights = list(UNKNOWN), [1.0] * len(UNKNOWN)
        else:
            pool = [INSTRUMENTS[name] for name in CLASSES]
            has_kit = any(instrument.family == "kit" for instrument in chosen)
            weights = [
                _KIT_TOGETHER if has_kit and instrument.family == "kit" else 1.0
                for instrument in pool
            ]
        instrument = rng.choices(pool, weights)[0]
        if instrument not in chosen:
            chosen.append(instrument)
    castings: list[Casting] = []
    for instrument in chosen:
        # A soloist plays no counter-melody.
        taken = [casting.role for casting in castings] if count > 1 else ["counter"]
        castings.append(_casting(rng, instrument, taken))
    return tuple(castings)


def _casting(rng: random.Random, instrument: Instrument, taken: list[str]) -> Casting:
    """Give an instrument a program, a role that its range allows, and a register."""
    if instrument.family == "kit":
        return Casting(instrument, 0, "kit", 0, 127)
    patch = rng.choice(instrument.patches)
    weights = _role_weights(instrument, patch, taken)
    role = rng.choices(ROLES, weights)[0]
    low, high = draw_register(rng, patch, role)
    return Casting(instrument, patch.program, role, low, high)


def _role_weights(instrument: Instrument, patch: Patch, taken: list[str]) -> list[float]:
    """Return the weight of each role. Only basses prefer one, but they play the others too."""
    low_enough = patch.low + 11 <= BASS_TOP
    weights = {
        "melody": 1.0,
        "counter": 0.5,
        "chords": 1.0,
        "bass": 0.8 if low_enough else 0.0,
    }
    if instrument.name in ("bass", "synth_bass", "contrabass"):
        weights = {"melody": 0.6, "counter": 0.25, "chords": 0.25, "bass": 2.0}
    for role in taken:
        if role in weights:
            weights[role] *= _REPEATED_ROLE_WEIGHTS[role]
    return [weights[role] for role in ROLES]


def draw_register(rng: random.Random, patch: Patch, role: str) -> tuple[int, int]:
    """Draw the part of the patch's range in which a performer stays."""
    if role == "bass":
        top = min(patch.high, BASS_TOP)
        low = rng.randint(patch.low, max(patch.low, min(patch.low + 8, top - 14)))
        return low, max(low + 11, min(top, low + 18))
    width = min(patch.high - patch.low, rng.randint(14, 22))
    low = rng.randint(patch.low, patch.high - width)
    return low, low + width


def write_part(rng: random.Random, song: Song, performer: Casting) -> list[Note]:
    """Write the part of one performer.

    Args:
        rng: Source of every choice.
        song: The song.
        performer: Instrument, role and register.

    Returns:
        Notes with beats as times and velocity offsets.
    """
    low, high, instrument = performer.low, performer.high, performer.instrument
    if performer.role == "kit":
        parts = {"drums": _drum_part, "percussion": _percussion_part}
        return parts.get(instrument.name, _cymbal_part)(rng, song)
    if performer.role == "run":
        return _runs(rng, song, low, high)
    if performer.role == "bass":
        return _bass_line(rng, song, low, high)
    if performer.role == "counter":
        return _counter_melody(rng, song, low, high)
    if performer.role == "chords":
        voices = rng.randint(min(2, instrument.voices), instrument.voices)
        texture = rng.choice(_TEXTURES[instrument.family])
        return _chord_part(rng, song, low, high, voices, texture)
    return _melody(rng, song, low, high, rng.random())


_FAST_TEMPO_BPM = 140.0

# One beat of rhythm each; `_bar_rhythm` gives their weights as a function of density.
_BEAT_PATTERNS = ("x---", "----", "x-x-", "--x-", "x-xx", "xxx-", "x--x", "xxxx", "....")

_BASS_PATTERNS = {
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
    """Draw (first step, steps) of the notes of one bar; dense bars have sixteenths."""
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
    pattern = "".join(rng.choices(_BEAT_PATTERNS, weights, k=beats))
    rhythm = [(start, length) for start, length, _ in parse_rhythm(pattern)]
    return rhythm or [(0, beats * STEPS_PER_BEAT)]


def _motif_bar(rng: random.Random, beats: int, density: float) -> list[tuple[int, int, int]]:
    """Draw a bar of melody without harmony: (first step, steps, scale steps to move)."""
    moves = (-4, -3, -2, -1, 0, 1, 2, 3, 4)
    weights = (1, 2, 4, 8, 3, 8, 4, 2, 1)
    return [
        (start, length, rng.choices(moves, weights)[0])
        for start, length in _bar_rhythm(rng, beats, density)
    ]


def _melody(rng: random.Random, song: Song, low: int, high: int, density: float) -> list[Note]:
    """Write a tune in four-bar phrases: two bars, the first again, an answer or a cadence.

    Strong beats and long notes take chord tones; the notes between them walk on the scale.
    Phrases swell and fade.

    Args:
        rng: Source of every choice.
        song: The song.
        low: Lowest pitch.
        high: Highest pitch, best at least an octave above low.
        density: 0 for long notes, 1 for a stream of sixteenths. Fast tempi halve it.
    """
    beats = song.beats_per_bar
    density = density / 2 if song.tempo_bpm > _FAST_TEMPO_BPM else density
    scale = scale_pitches(song.key, song.mode, low, high)
    theme = [_motif_bar(rng, beats, density) for _ in range(2)]
    answers = [_motif_bar(rng, beats, density) for _ in range(2)]
    cadence = [(0, rng.choice((2, 3)) * STEPS_PER_BEAT, rng.choice((-1, 0, 1)))]
    endings = [answers[1], cadence] if rng.random() < 0.7 else [answers[1], answers[1]]
    swell = rng.uniform(0, 14)
    position = len(scale) // 2 + rng.randint(-2, 2)
    notes: list[Note] = []
    for bar in range(song.bars):
        place, phrase = bar % 4, bar // 4
        motif = (theme[0], theme[1], theme[0], endings[phrase % 2])[place]
        if phrase % 2 and place == 1:
            motif = answers[0]
        for start, steps, move in motif:
            beat = bar * beats + start / STEPS_PER_BEAT
            position = _bounce(position + move, len(scale))
            pitch = scale[position]
            if start % (2 * STEPS_PER_BEAT) == 0 or steps > STEPS_PER_BEAT:
                tones = pitches_in(song.chord_at(beat).classes, low, high) or scale
                pitch = nearest(tones, pitch)
                position = scale.index(nearest(scale, pitch))
            arc = swell * (1 - abs(place + start / (beats * STEPS_PER_BEAT) - 2) / 2)
            notes.append(Note(beat, beat + steps / STEPS_PER_BEAT, pitch, round(arc)))
    return notes


def _runs(rng: random.Random, song: Song, low: int, high: int) -> list[Note]:
    """Write fast passages: scales and broken chords with 8 to 14 notes per second.

    On each beat, the line continues in its direction, turns, or lands on a chord tone.

    Args:
        rng: Source of every choice.
        song: The song.
        low: Lowest pitch.
        high: Highest pitch, best at least an octave above low.
    """
    per_beat = max(3, round(rng.uniform(8, 14) * 60 / song.tempo_bpm))
    scale = scale_pitches(song.key, song.mode, low, high)
    hold, broken = rng.uniform(0.05, 0.25), rng.uniform(0.1, 0.6)
    pitch, direction = nearest(scale, (low + high) / 2), 1
    notes: list[Note] = []
    for beat in range(song.bars * song.beats_per_bar):
        chord = pitches_in(song.chord_at(beat).classes, low, high) or scale
        if rng.random() < hold:
            pitch = nearest(chord, pitch)
            notes.append(Note(beat, beat + 1, pitch, 4))
            continue
        path = chord if rng.random() < broken else scale
        direction = -direction if rng.random() < 0.4 else direction
        place = path.index(nearest(path, pitch))
        for number in range(per_beat):
            if not 0 <= place + direction < len(path):
                direction = -direction
            place = max(0, min(len(path) - 1, place + direction))
            pitch = path[place]
            start = beat + number / per_beat
            notes.append(Note(start, start + 1 / per_beat, pitch, 4 if number == 0 else 0))
    return notes


def _bounce(position: int, size: int) -> int:
    """Reflect an index at the ends of 0..size-1."""
    if position < 0:
        position = -position
    if position >= size:
        position = 2 * (size - 1) - position
    return max(0, min(size - 1, position))


def _counter_melody(rng: random.Random, song: Song, low: int, high: int) -> list[Note]:
    """Write long notes that move to a near chord tone whenever the harmony changes."""
    pitch = (low + high) // 2 + rng.randint(-4, 4)
    parts = rng.choice((1, 1, 2))
    late = rng.choice((0.0, 0.0, 0.5, 1.0))
    notes = []
    for chord in song.chords:
        length = (chord.end - chord.start) / parts
        for part in range(parts):
            tones = pitches_in(chord.classes, low, high)
            fresh = [tone for tone in tones if tone != pitch] or list(tones)
            if not fresh:
                continue
            pitch = nearest(fresh, pitch + rng.uniform(-2, 2))
            start = chord.start + part * length
            offset = late if late < length / 2 else 0.0
            notes.append(Note(start + offset, start + length, pitch, 0))
    return notes


def _bass_line(rng: random.Random, song: Song, low: int, high: int) -> list[Note]:
    """Write a pattern on root, third, fifth and octave of each chord, or a walk to the next.

    Args:
        rng: Source of every choice.
        song: The song.
        low: Lowest pitch.
        high: Highest pitch, at least 11 above low so that every root exists.
    """
    beats = song.beats_per_bar
    pattern = rng.choice(_BASS_PATTERNS[beats])
    variation = rng.choice(_BASS_PATTERNS[beats])
    scale = scale_pitches(song.key, song.mode, low, high)
    root = low + (high - low) // 3
    notes = []
    for bar in range(song.bars):
        for start, steps, symbol in parse_rhythm(variation if bar % 4 == 3 else pattern):
            beat = bar * beats + start / STEPS_PER_BEAT
            end = beat + steps / STEPS_PER_BEAT
            chord = song.chord_at(beat)
            root = nearest(pitches_in(chord.classes[:1], low, high), root)
            if symbol == "s":
                following = song.chord_at(end).classes[:1]
                target = nearest(pitches_in(following, low, high), root)
                pitch = _step_before(scale, target, rng)
            else:
                pitch = _chord_member(symbol, chord.classes, root, low, high)
            notes.append(Note(beat, end, pitch, 0))
    return notes


def _chord_member(symbol: str, classes: Sequence[int], root: int, low: int, high: int) -> int:
    """Return the pitch for a symbol of a bass pattern, kept within the range."""
    interval = {
        "r": 0,
        "3": (classes[1] - classes[0]) % 12,
        "5": (classes[2] - classes[0]) % 12,
        "8": 12,
    }[symbol]
    pitch = root + interval
    return pitch if pitch <= high else max(low, pitch - 12)


def _step_before(scale: Sequence[int], target: int, rng: random.Random) -> int:
    """Choose a scale neighbour of the target, below or above it."""
    neighbours = [pitch for pitch in scale if 0 < abs(pitch - target) <= 2]
    return rng.choice(neighbours) if neighbours else target


_TEXTURES = {
    "plucked": ("strum", "strum", "arpeggio", "comp"),
    "struck": ("comp", "arpeggio", "arpeggio", "pad"),
    "keys": ("pad", "comp", "arpeggio"),
    "sustained": ("pad", "pad", "comp", "arpeggio"),
}
"""Textures by family; repeated ones are more likely. Every family has pads or strums,
comping and arpeggios, so that no texture gives a class away."""

_COMPING_PATTERNS = {
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
_ARPEGGIO_ORDERS = ("up", "down", "up_down", "alberti", "random")


def _chord_part(
    rng: random.Random, song: Song, low: int, high: int, voices: int, texture: str
) -> list[Note]:
    """Accompany the harmony.

    Args:
        rng: Source of every choice.
        song: The song.
        low: Lowest pitch.
        high: Highest pitch.
        voices: Notes per chord; fewer if the range has too few chord tones.
        texture: "pad", "comp", "strum" or "arpeggio".
    """
    voiced: list[tuple[Chord, tuple[int, ...]]] = []
    pitches: tuple[int, ...] = ()
    for chord in song.chords:
        pitches = voicing(chord.classes, low, high, voices, pitches)
        voiced.append((chord, pitches))
    if texture == "pad":
        return _pad(voiced)
    if texture == "arpeggio":
        return _arpeggio(rng, song, voiced)
    return _comp(rng, song, voiced, strummed=texture == "strum")


def _pad(voiced: Sequence[tuple[Chord, tuple[int, ...]]]) -> list[Note]:
    """Hold every chord."""
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
    """Play chords in a rhythm; strums run down the strings on beats, up between them."""
    patterns = _COMPING_PATTERNS[song.beats_per_bar]
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
    """Play the chord's notes one by one, in eighths or, at slow tempi, sixteenths."""
    order = rng.choice(_ARPEGGIO_ORDERS)
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
    """Return one cycle of an arpeggio over ascending pitches."""
    if order == "down":
        return tuple(reversed(pitches))
    if order == "up_down":
        return pitches + tuple(reversed(pitches[1:-1]))
    if order == "alberti" and len(pitches) >= 3:
        return (pitches[0], pitches[-1], pitches[1], pitches[-1])
    if order == "random":
        return tuple(rng.sample(pitches, len(pitches)))
    return pitches


# "x" is a hit, "o" a soft one. A bar has 16 or 12 sixteenths.
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


def _hits(rng: random.Random, pattern: str, key: int, bar_beat: float) -> list[Note]:
    """Write the hits of one drum in one bar; soft hits are sometimes left out."""
    notes = []
    for step, symbol in enumerate(pattern):
        if symbol == "." or (symbol == "o" and rng.random() < 0.12):
            continue
        start = bar_beat + step / STEPS_PER_BEAT
        velocity = _SOFT if symbol == "o" else 0
        notes.append(Note(start, start + 0.25, key, velocity))
    return notes


def _fill(rng: random.Random, song: Song, bar_beat: float) -> list[Note]:
    """Write sixteenths or eighths down the toms in the last one or two beats of a bar."""
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


def _drum_part(rng: random.Random, song: Song) -> list[Note]:
    """Write kick, snare, stick, clap and toms of the song's groove, with regular fills."""
    groove = _DRUM_GROOVES[song.groove]
    keys = {voice: rng.choice(DRUM_NOTES[voice]) for voice in groove}
    every, offset = rng.choice((4, 4, 8, 2)), rng.randrange(4)
    notes: list[Note] = []
    for bar in range(song.bars):
        beat = float(bar * song.beats_per_bar)
        hits = [
            note
            for voice, pattern in groove.items()
            for note in _hits(rng, pattern, keys[voice], beat)
        ]
        if (bar + offset) % every == every - 1:
            fill = _fill(rng, song, beat)
            hits = [note for note in hits if note.start < fill[0].start] + fill
        notes.extend(hits)
    return notes


def _cymbal_part(rng: random.Random, song: Song) -> list[Note]:
    """Write a hi-hat or ride pattern, with a crash or splash at the start of some phrases."""
    groove = rng.choice(_CYMBAL_GROOVES[song.beats_per_bar])
    keys = {voice: rng.choice(CYMBAL_NOTES[voice]) for voice in groove}
    phrase = rng.choice((2, 4, 4, 8))
    crash = rng.choice((*CYMBAL_NOTES["crash"], *CYMBAL_NOTES["splash"]))
    notes: list[Note] = []
    for bar in range(song.bars):
        beat = float(bar * song.beats_per_bar)
        for voice, pattern in groove.items():
            notes.extend(_hits(rng, pattern, keys[voice], beat))
        if bar % phrase == 0 and rng.random() < 0.8:
            notes.append(Note(beat, beat + 1.0, crash, 6))
    return notes


_PERCUSSION_GROOVES = {
    4: (
        {"shaker": "xoxoxoxoxoxoxoxo"},
        {"tambourine": "..x...x...x...x."},
        {"tambourine": "o.x.o.x.o.x.o.x."},
        {"low_conga": "x.......x.....x.", "high_conga": "..o.x.o...o.x..."},
        {"low_bongo": "..o...x...o...x.", "high_bongo": "x...o.o.x...o.o."},
        {"cowbell": "x...x...x...x...", "claves": "x..x..x...x.x..."},
    ),
    3: (
        {"shaker": "x.o.o.x.o.o."},
        {"tambourine": "....x...x..."},
        {"low_conga": "x.......o...", "high_conga": "....x.o...x."},
    ),
}


def _percussion_part(rng: random.Random, song: Song) -> list[Note]:
    """Write one or two patterns of hand percussion."""
    grooves = _PERCUSSION_GROOVES[song.beats_per_bar]
    groove = {
        name: pattern for chosen in rng.sample(grooves, 2) for name, pattern in chosen.items()
    }
    return [
        note
        for bar in range(song.bars)
        for name, pattern in groove.items()
        for note in _hits(rng, pattern, PERCUSSION_NOTES[name], float(bar * song.beats_per_bar))
    ]
