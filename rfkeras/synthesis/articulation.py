"""Articulation: performed notes and controller curves that fit the instrument.

`articulate` changes the notes of one part (legato, staccato, strums, rolls, ghost notes,
slides) and draws two curves: the bend of the pitch (vibrato, scoops, bends, slides) and the
level (crescendos and swells). `curves` applies them to MIDI and to samples.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rfkeras.synthesis.compose import tremolo
from rfkeras.synthesis.curves import BEND_RANGE_CENTS, Expression, Points
from rfkeras.synthesis.mapping import DRUM_NOTES, Instrument
from rfkeras.synthesis.song import Note

_CURVE_STEP_S = 0.01

# Notes at most this far apart are one chord, played together or strummed.
_CHORD_S = 0.06
# Notes of a line are further apart than this.
_TOGETHER_S = 0.015
_CLOSEST_STRINGS_S = 0.010
_OVERLAP_S = (0.010, 0.040)
# Notes with a shorter gap belong to one phrase.
_PHRASE_GAP_S = 0.25
_SLIDE_GAP_S = 0.15
_SLIDE_S = (0.05, 0.12)
_SCOOP_S = (0.06, 0.16)
_VIBRATO_HZ = (4.8, 6.6)
_VIBRATO_DELAY_S = (0.12, 0.35)
_VIBRATO_RISE_S = 0.15
_VIBRATO_LEAST_S = 0.45
_FADE_S = 0.03
_RELEASE_S = 0.03
_INSTANT_S = 0.001
_ROLL_HZ = (12.0, 18.0)
_ROLL_LEAST_S = 0.5
_ROLL_MOST_S = 2.0
_SNARE = frozenset(DRUM_NOTES["snare"])

_Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Habits:
    """Probability of each articulation for an instrument.

    Attributes:
        legato: Probability that the lines of a part are played legato.
        staccato: Probability that a part is played staccato.
        strum: Probability that the chords of a part are strummed.
        roll: Probability that a long note is a roll.
        ghost: Probability of a ghost note in a gap that has room for it.
        slide: Probability that a step of at most two semitones is a slide.
        scoop: Probability that a note is reached from below.
        vibrato: Probability that a part has vibrato.
        vibrato_cents: Range of the vibrato's depth, from the middle to the top.
        swell: Probability that the level of a part changes.
        scoop_cents: Range of a scoop's start below the note.
    """

    legato: float = 0.0
    staccato: float = 0.1
    strum: float = 0.0
    roll: float = 0.0
    ghost: float = 0.0
    slide: float = 0.0
    scoop: float = 0.0
    vibrato: float = 0.0
    vibrato_cents: tuple[float, float] = (8.0, 25.0)
    swell: float = 0.0
    scoop_cents: tuple[float, float] = (60.0, 200.0)


_FAMILIES = {
    "plucked": Habits(strum=0.3),
    "struck": Habits(staccato=0.15, swell=0.1),
    "sustained": Habits(legato=0.6, staccato=0.15, vibrato=0.5, swell=0.4),
    "keys": Habits(legato=0.3, staccato=0.15, swell=0.35),
    "kit": Habits(staccato=0.0),
}
_STRUMMED = Habits(strum=0.75, staccato=0.08)
_BRASS = Habits(legato=0.45, staccato=0.2, scoop=0.04, vibrato=0.3, swell=0.4)
_BOWED = Habits(
    legato=0.65, staccato=0.15, slide=0.04, vibrato=0.75, vibrato_cents=(10, 40), swell=0.5
)
_BASS = Habits(legato=0.3, slide=0.06, ghost=0.12, staccato=0.15)
_INSTRUMENTS = {
    "banjo": replace(_STRUMMED, strum=0.4, slide=0.03),
    "bass": _BASS,
    "cello": _BOWED,
    "contrabass": replace(_BOWED, vibrato=0.5),
    "drums": Habits(staccato=0.0, roll=0.06, ghost=0.2),
    "guitar": replace(
        _STRUMMED, legato=0.3, slide=0.08, scoop=0.06, vibrato=0.35, vibrato_cents=(10, 35)
    ),
    "horn": _BRASS,
    "mallet_percussion": Habits(roll=0.35, staccato=0.1),
    "mandolin": _STRUMMED,
    "saxophone": replace(
        _FAMILIES["sustained"], scoop=0.15, slide=0.05, vibrato=0.6, vibrato_cents=(10, 40)
    ),
    "synth_bass": replace(_BASS, ghost=0.0, slide=0.1),
    "synthesizer": replace(_FAMILIES["keys"], legato=0.4, slide=0.08, vibrato=0.2),
    "timpani": Habits(roll=0.6, staccato=0.0),
    "trombone": replace(_BRASS, slide=0.2, scoop=0.08),
    "trumpet": _BRASS,
    "tuba": _BRASS,
    "ukulele": replace(_STRUMMED, strum=0.85),
    "violin": _BOWED,
    "voice": replace(
        _FAMILIES["sustained"],
        legato=0.75,
        staccato=0.05,
        slide=0.1,
        scoop=0.2,
        vibrato=0.6,
        vibrato_cents=(20, 60),
    ),
}


def habits(instrument: Instrument) -> Habits:
    """Return how an instrument is articulated: its own habits, or those of its family."""
    return _INSTRUMENTS.get(instrument.name, _FAMILIES[instrument.family])


def articulate(rng: random.Random, notes: Sequence[Note], instrument: Instrument) -> Expression:
    """Articulate the performed notes of one part.

    Bends, slides and vibrato need a line without chords, because a curve bends all notes
    of a part. Instruments with `tremolo` keep their notes, which are strokes already.

    Args:
        rng: Source of every choice.
        notes: Notes in seconds, with velocities 1..127.
        instrument: The instrument.
    """
    manner = habits(instrument)
    played = sorted(notes, key=lambda note: (note.start, note.pitch, note.end))
    if rng.random() < manner.strum and not instrument.tremolo:
        played = strum(rng, played)
    if manner.roll:
        played = roll(rng, played, manner.roll, kit=instrument.family == "kit")
    if manner.ghost:
        played = ghosts(rng, played, manner.ghost, kit=instrument.family == "kit")
    is_line = bool(played) and instrument.family != "kit" and _is_line(played)
    style = rng.random()
    if style < manner.staccato and not instrument.tremolo:
        played = staccato(rng, played)
    elif is_line and style < manner.staccato + manner.legato:
        played = legato(rng, played)
    bend = np.zeros((0, 2))
    if is_line:
        played, bend = _bent_line(rng, played, manner)
    level = np.zeros((0, 2))
    if played and rng.random() < manner.swell:
        level = swell(rng, played[0].start, max(note.end for note in played))
    return Expression(tuple(played), bend, level)


def _is_line(notes: Sequence[Note]) -> bool:
    """Return whether notes follow each other, with overlaps shorter than a chord's spread."""
    return all(
        following.start - note.start > _TOGETHER_S and note.end - following.start <= _CHORD_S
        for note, following in itertools.pairwise(notes)
    )


def legato(rng: random.Random, notes: Sequence[Note]) -> list[Note]:
    """Connect the notes of each phrase: each note ends 10 to 40 ms after the next starts.

    A repeated pitch cannot overlap itself, so its notes only touch.
    """
    played = list(notes)
    for number, (note, following) in enumerate(itertools.pairwise(notes)):
        if following.start - note.end > _PHRASE_GAP_S:
            continue
        # A short note must not sound together with the two notes around it.
        room = max(0.0, following.end - following.start) / 2
        overlap = min(rng.uniform(*_OVERLAP_S), room) if note.pitch != following.pitch else 0.0
        played[number] = replace(note, end=following.start + overlap)
    return played


def staccato(rng: random.Random, notes: Sequence[Note]) -> list[Note]:
    """Shorten all notes to a quarter or half of their length, but not below 60 ms."""
    share = rng.uniform(0.25, 0.5)
    return [
        replace(note, end=note.start + min(length, max(0.06, share * length)))
        for note in notes
        for length in (note.end - note.start,)
    ]


def _chords(notes: Sequence[Note]) -> list[list[Note]]:
    """Group sorted notes that start in quick succession and sound together."""
    groups: list[list[Note]] = []
    for note in notes:
        last = groups[-1] if groups else None
        if (
            last
            and note.start - last[-1].start <= _CHORD_S
            and note.start < last[0].end - _TOGETHER_S
        ):
            groups[-1].append(note)
        else:
            groups.append([note])
    return groups


def strum(rng: random.Random, notes: Sequence[Note]) -> list[Note]:
    """Strum every chord: 10 to 40 ms from string to string, down or up.

    A chord soon after a down-stroke is an up-stroke, which is softer. The chord stays as it
    is if the next one comes too soon.

    Args:
        rng: Source of every choice.
        notes: Notes, sorted by start.
    """
    spacing = rng.uniform(0.012, 0.036)
    played: list[Note] = []
    groups = _chords(notes)
    last_down = -math.inf
    for group, following in zip(groups, [*groups[1:], []], strict=True):
        pitches = {note.pitch for note in group}
        if len(group) < 3 or len(pitches) < len(group):
            played.extend(group)
            continue
        start = group[0].start
        up = start - last_down < 0.4 and rng.random() < 0.8
        last_down = -math.inf if up else start
        end = min([note.end for note in group] + [note.start for note in following])
        widest = 0.6 * (end - start) / (len(group) - 1)
        if widest < _CLOSEST_STRINGS_S:
            played.extend(group)
            continue
        time = start
        for note in sorted(group, key=lambda note: note.pitch, reverse=up):
            velocity = max(1, note.velocity - 8) if up else note.velocity
            played.append(replace(note, start=time, velocity=velocity))
            drawn = spacing * rng.uniform(0.85, 1.1)
            time += min(drawn, widest)
    return _sorted(played)


def roll(
    rng: random.Random, notes: Sequence[Note], chance: float, *, kit: bool = False
) -> list[Note]:
    """Play long notes as rolls of 12 to 18 strokes per second that grow louder or softer.

    Args:
        rng: Source of every choice.
        notes: Notes, sorted by start.
        chance: Probability of a roll for each note of at least 0.5 s.
        kit: The notes are hits of a drum kit: snare hits become rolls that last until the
            next snare hit.
    """
    played: list[Note] = []
    for number, note in enumerate(notes):
        end = _until_next_snare(notes, number) if kit else note.end
        if (kit and note.pitch not in _SNARE) or end - note.start < _ROLL_LEAST_S:
            played.append(note)
            continue
        if rng.random() >= chance:
            played.append(note)
            continue
        end = min(end, note.start + _ROLL_MOST_S)
        strokes = tremolo(rng, [replace(note, end=end)], rng.uniform(*_ROLL_HZ))
        first, last = rng.choice(((-24, 0), (-24, 0), (0, 0), (0, -20)))
        for place, stroke in enumerate(strokes):
            change = first + (last - first) * place / max(1, len(strokes) - 1)
            velocity = max(1, min(127, round(stroke.velocity + change)))
            played.append(replace(stroke, velocity=velocity))
    return _sorted(played)


def _until_next_snare(notes: Sequence[Note], number: int) -> float:
    """Return the start of the next snare hit, or the end of the hit if it is the last."""
    following = (note.start for note in notes[number + 1 :] if note.pitch in _SNARE)
    return next(following, notes[number].end)


def ghosts(
    rng: random.Random, notes: Sequence[Note], chance: float, *, kit: bool = False
) -> list[Note]:
    """Add ghost notes: short and soft, shortly before a note.

    Args:
        rng: Source of every choice.
        notes: Notes, sorted by start.
        chance: Probability of a ghost note for each gap of at least 0.25 s.
        kit: The notes are hits of a drum kit: ghost notes are snare hits between snare hits.
    """
    hits = [note for note in notes if note.pitch in _SNARE] if kit else list(notes)
    added = []
    cut = {}
    for note, following in itertools.pairwise(hits):
        gap = following.start - note.start
        if gap < 0.25 or rng.random() >= chance:
            continue
        before = min(gap / 2, rng.uniform(0.1, 0.18))
        start = following.start - before
        velocity = max(1, min(45, round(note.velocity * rng.uniform(0.3, 0.5))))
        added.append(Note(start, start + rng.uniform(0.04, 0.06), note.pitch, velocity))
        # The string is free for the ghost note.
        cut[note] = min(note.end, start - 0.01)
    played = [note if kit else replace(note, end=cut.get(note, note.end)) for note in notes]
    return _sorted([*played, *added])


def _bent_line(
    rng: random.Random, notes: Sequence[Note], manner: Habits
) -> tuple[list[Note], Points]:
    """Draw the slides, scoops and vibrato of a line; a slide joins two notes."""
    depth = rng.uniform(*manner.vibrato_cents) if rng.random() < manner.vibrato else 0.0
    rate, delay = rng.uniform(*_VIBRATO_HZ), rng.uniform(*_VIBRATO_DELAY_S)
    played: list[Note] = []
    curve: _Curve = []
    number = 0
    while number < len(notes):
        note = notes[number]
        following = notes[number + 1] if number + 1 < len(notes) else None
        slides = following is not None and _slides(note, following)
        if following is not None and slides and rng.random() < manner.slide:
            interval = 100.0 * (following.pitch - note.pitch)
            curve += slide(note.start, following.start, interval, rng.uniform(*_SLIDE_S))
            number += 1
            note = replace(note, end=max(note.end, following.end))
            reached, base = following.start, interval
        elif rng.random() < manner.scoop:
            length = min(rng.uniform(*_SCOOP_S), (note.end - note.start) / 2)
            curve += scoop(note.start, rng.uniform(*manner.scoop_cents), length)
            reached, base = note.start + length, 0.0
        else:
            reached, base = note.start, 0.0
        later = notes[number + 1].start if number + 1 < len(notes) else math.inf
        if base:
            # The bend ends when the next note starts. The release should be over by then.
            note = replace(note, end=max(reached + 0.02, min(note.end, later - _RELEASE_S)))
        end = min(note.end, later - 2 * _INSTANT_S)
        room = min(depth, BEND_RANGE_CENTS - abs(base))
        if room and end - reached >= _VIBRATO_LEAST_S:
            curve += vibrato(reached, end, room, rate, delay, base)
        if base and later < math.inf:
            curve += [(later - 2 * _INSTANT_S, base), (later - _INSTANT_S, 0.0)]
        played.append(note)
        number += 1
    return played, np.array(curve, dtype=np.float64).reshape(-1, 2)


def _slides(note: Note, following: Note) -> bool:
    """Return whether a slide from a note to the next is possible: a near step, a small gap."""
    return (
        1 <= abs(following.pitch - note.pitch) <= BEND_RANGE_CENTS / 100
        and following.start - note.end <= _SLIDE_GAP_S
        and following.start - note.start >= 2 * _SLIDE_S[1]
        and following.end - following.start >= 0.1
    )


def slide(start: float, reached: float, interval_cents: float, length: float) -> _Curve:
    """Return the bend of a slide that leaves a note and reaches another.

    Args:
        start: Start of the first note.
        reached: Time at which the second pitch is reached.
        interval_cents: From the first pitch to the second.
        length: Duration of the slide in seconds.
    """
    return [(start, 0.0), (reached - length, 0.0), (reached, interval_cents)]


def scoop(start: float, depth_cents: float, length: float) -> _Curve:
    """Return the bend of a note that starts below its pitch and rises to it.

    Args:
        start: Start of the note.
        depth_cents: How far below the pitch it starts.
        length: Duration of the rise in seconds.
    """
    shape = ((0.0, 1.0), (0.3, 0.8), (0.7, 0.2), (1.0, 0.0))
    before = [(start - _INSTANT_S, 0.0)]
    return before + [(start + place * length, -share * depth_cents) for place, share in shape]


def vibrato(
    start: float, end: float, depth_cents: float, rate_hz: float, delay: float, base: float = 0
) -> _Curve:
    """Return the bend of a note whose vibrato begins late and grows.

    Args:
        start: Time at which the note has its pitch.
        end: End of the note.
        depth_cents: From the middle to the top of the vibrato.
        rate_hz: Vibrations per second.
        delay: Seconds without vibrato; at most a third of the note.
        base: Bend around which the pitch vibrates.
    """
    onset = start + min(delay, (end - start) / 3)
    count = max(2, math.ceil((end - onset) / _CURVE_STEP_S))
    curve = []
    for time in np.linspace(onset, end, count + 1).tolist():
        strength = min(1.0, (time - onset) / _VIBRATO_RISE_S, (end - time) / _FADE_S)
        phase = 2 * math.pi * rate_hz * (time - onset)
        curve.append((time, base + depth_cents * strength * math.sin(phase)))
    return curve


def swell(rng: random.Random, start: float, end: float) -> Points:
    """Return a level that rises and falls between -10 and 0 dB every 1 to 4 seconds."""
    time, level = start, rng.uniform(-10, 0)
    points = [(time, level)]
    while time < end:
        time += rng.uniform(1, 4)
        level = rng.uniform(-10, -5) if level > -5 else rng.uniform(-3, 0)
        points.append((time, level))
    return np.array(points)


def _sorted(notes: Iterable[Note]) -> list[Note]:
    return sorted(notes, key=lambda note: (note.start, note.pitch, note.end))
