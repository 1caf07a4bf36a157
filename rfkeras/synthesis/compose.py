"""Compose a whole clip: every part in seconds, with its labels and their mask.

Everything is a function of (version, seed, index). Each aspect draws from its own random
stream, so that changing one aspect leaves the others unchanged.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from rfkeras.synthesis.arrange import Casting, cast, write_part
from rfkeras.synthesis.mapping import CLASSES, KITS
from rfkeras.synthesis.song import CLIP_SECONDS, LEAD_SECONDS, Note, Song, draw_song

VERSION = 1
"""Raise it whenever the same seed and index would give different sound or labels."""

LABEL_RATE = 0.85
"""Probability that a label is known, for every class and clip, present or not."""

_ATTEMPTS = 8
# Range of the articulation (see Hand.gate) by instrument family.
_GATES = {
    "plucked": (0.6, 1.0),
    "struck": (0.5, 1.0),
    "keys": (0.5, 1.0),
    "sustained": (0.6, 1.02),
    "kit": (1.0, 1.0),
}

# A part counts as heard with at least this many onsets and seconds, and no longer rest.
_MIN_ONSETS = 4
_MIN_SECONDS = 1.0
_MAX_REST_SECONDS = 2.5
# A note counts for at least this long: even a staccato note keeps ringing.
_RING_SECONDS = 0.25


@dataclass(frozen=True)
class Part:
    """The notes and mixing parameters of one performer in a clip.

    Attributes:
        casting: Instrument, program, role and register.
        notes: Notes in seconds from the start of the clip. Some begin up to LEAD_SECONDS
            before it.
        level_db: Loudness relative to the other parts.
        reverb: Reverberation send, 0..127.
        vibrato: Modulation wheel, 0..127.
        heard: Whether the part sounds often enough inside the clip to be labelled.
    """

    casting: Casting
    notes: tuple[Note, ...]
    level_db: float
    reverb: int
    vibrato: int
    heard: bool


@dataclass(frozen=True)
class Composition:
    """A clip before rendering.

    Attributes:
        song: Style, key, tempo and harmony.
        parts: The parts, 1 to 5 in version 1.
        kit: Program of the drum kit, for clips that have one.
        tuning_cents: Tuning of the whole ensemble relative to A4 = 440 Hz.
        jitter_db: Random gain of the whole clip. It hides that the audio codec attenuates
            noise (cymbals) some tenths of a decibel more than tones.
        labels: 1 if a class is heard, else 0, in the order of CLASSES.
        mask: Whether each label is known.
    """

    song: Song
    parts: tuple[Part, ...]
    kit: int
    tuning_cents: float
    jitter_db: float
    labels: tuple[int, ...]
    mask: tuple[bool, ...]


def compose(seed: int, index: int) -> Composition:
    """Compose one clip.

    Args:
        seed: Seed of the data set.
        index: Number of the clip.
    """
    song = draw_song(_stream(seed, index, "song"))
    room = _stream(seed, index, "room")
    kit, tuning, jitter = room.choice(KITS), room.gauss(0, 10), room.uniform(-2, 2)
    reverb = room.randint(0, 90)
    performers = cast(_stream(seed, index, "cast"), featured_class(seed, index))
    stream = functools.partial(_stream, seed, index)
    parts = tuple(
        make_part(stream, number, song, performer, reverb, is_solo=len(performers) == 1)
        for number, performer in enumerate(performers)
    )
    labels, mask = draw_labels(_stream(seed, index, "labels"), parts)
    return Composition(song, parts, kit, tuning, jitter, labels, mask)


def featured_class(seed: int, index: int, classes: Sequence[str] = CLASSES) -> str:
    """Return the class that a clip always has. Neighbours feature all classes in turn."""
    block, place = divmod(index, len(classes))
    order = list(classes)
    _stream(seed, block, "block").shuffle(order)
    return order[place]


def _stream(seed: int, index: int, purpose: str) -> random.Random:
    """Return the random stream of one aspect of one clip."""
    return random.Random(f"gm_instruments/{VERSION}/{seed}/{index}/{purpose}")


def make_part(
    stream: Callable[[str], random.Random],
    number: int,
    song: Song,
    performer: Casting,
    reverb: int,
    *,
    is_solo: bool,
) -> Part:
    """Write and perform one part; write it again if it rests too long in the excerpt.

    Args:
        stream: Returns the random stream of one aspect of the clip.
        number: Position of the part in the clip.
        song: The song.
        performer: Instrument, role and register.
        reverb: Reverberation send of the clip, 0..127.
        is_solo: Whether the part is the only one; it then has no pauses.
    """
    notes: tuple[Note, ...] = ()
    for attempt in range(_ATTEMPTS):
        rng = stream(f"part/{number}/{attempt}")
        hand = draw_hand(rng, _GATES[performer.instrument.family])
        written = write_part(rng, song, performer)
        # The first attempts may pause for some bars; later ones and soloists play throughout.
        if attempt < 2 and not is_solo:
            written = _with_pauses(rng, song, written)
        played = perform(
            rng,
            written,
            hand,
            tempo_bpm=song.tempo_bpm,
            swing=song.swing,
            beats_per_bar=song.beats_per_bar,
        )
        if performer.instrument.tremolo:
            played = tremolo(rng, played, rng.uniform(11, 15))
        notes = excerpt(played, song.excerpt_s, CLIP_SECONDS, LEAD_SECONDS)
        if is_heard(notes, CLIP_SECONDS):
            break
    sustained = performer.instrument.family == "sustained"
    return Part(
        casting=performer,
        notes=notes,
        level_db=rng.uniform(-5, 3),
        reverb=max(0, min(127, reverb + rng.randint(-15, 15))),
        vibrato=rng.choice((0, 0, 30, 60)) if sustained else 0,
        heard=is_heard(notes, CLIP_SECONDS),
    )


def _with_pauses(rng: random.Random, song: Song, notes: list[Note]) -> list[Note]:
    """Let a part rest never, in every other pair of bars, or in one bar of four."""
    manner = rng.choice(("never", "never", "never", "pairs", "fourth"))
    turn = rng.randrange(4)
    kept = []
    for note in notes:
        bar = int(note.start // song.beats_per_bar) + turn
        resting = (manner == "pairs" and bar % 4 < 2) or (manner == "fourth" and bar % 4 == 0)
        if not resting:
            kept.append(note)
    return kept


def draw_labels(
    rng: random.Random, parts: tuple[Part, ...]
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Return the labels and their mask.

    Whether a label is known is drawn without looking at its value. Two more rules hide
    doubtful labels: those of parts that are hardly heard, and those of classes that could be
    mistaken for an unlabelled sound in the mix.
    """
    heard = {part.casting.instrument.name for part in parts if part.heard}
    hardly = {part.casting.instrument.name for part in parts if not part.heard}
    resembled = {name for part in parts for name in part.casting.instrument.resembles}
    labels = tuple(int(name in heard) for name in CLASSES)
    drawn = [rng.random() < LABEL_RATE for _ in CLASSES]
    doubtful = hardly | (resembled - heard)
    mask = tuple(
        known and name not in doubtful for name, known in zip(CLASSES, drawn, strict=True)
    )
    return labels, mask


@dataclass(frozen=True)
class Hand:
    """A performer's habits.

    Attributes:
        velocity: Mean velocity.
        dynamics: Standard deviation of velocity.
        accent: Velocity added on the first beat of the bar; half of it on other beats.
        timing_s: Standard deviation of each onset, in seconds.
        lag_s: Constant push (negative) or drag, in seconds.
        gate: Fraction of its written length for which a note is held. A long note is
            shortened by at most half a beat.
    """

    velocity: float
    dynamics: float
    accent: float
    timing_s: float
    lag_s: float
    gate: float


def draw_hand(rng: random.Random, gate: tuple[float, float]) -> Hand:
    """Draw a performer's habits, with a gate from the given range."""
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
    """Convert written notes (beats, velocity offsets) to played ones (seconds, 1..127)."""
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


def swung(beat: float, swing: float) -> float:
    """Move the off-beat: swing 0.5 leaves it half-way, 2/3 makes it a triplet."""
    whole = beat // 1
    part = beat - whole
    if part < 0.5:
        return whole + part * 2 * swing
    return whole + swing + (part - 0.5) * 2 * (1 - swing)


def tremolo(rng: random.Random, notes: Iterable[Note], strokes_hz: float) -> list[Note]:
    """Repeat every note (in seconds) as quick strokes of alternating strength."""
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


def excerpt(
    notes: Iterable[Note], start: float, length: float, lead: float
) -> tuple[Note, ...]:
    """Return the notes heard in a window, sorted, with times relative to its start.

    Notes that began before the window are kept, so that they ring into it, but none starts
    more than `lead` seconds before it.
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


def is_heard(notes: Sequence[Note], length: float) -> bool:
    """Return whether a part has enough notes, enough sound and no long rest in a clip.

    Args:
        notes: The part, in seconds from the start of the clip.
        length: Length of the clip in seconds.
    """
    onsets = [note.start for note in notes if 0 <= note.start < length - _RING_SECONDS]
    silences = rests(notes, length)
    return (
        len(onsets) >= _MIN_ONSETS
        and length - sum(silences) >= _MIN_SECONDS
        and max(silences, default=0.0) <= _MAX_REST_SECONDS
    )


def rests(notes: Sequence[Note], length: float) -> list[float]:
    """Return the seconds of each silence of a part; a note counts for at least 0.25 s."""
    silences, reached = [], 0.0
    for note in sorted(notes, key=lambda note: note.start):
        if note.start > reached:
            silences.append(note.start - reached)
        reached = max(reached, note.end, note.start + _RING_SECONDS)
    if reached < length:
        silences.append(length - reached)
    return silences
