"""A whole clip, composed: every part in seconds, with its labels and their mask.

Everything is a function of (version, seed, index). Each matter draws from a random stream
of its own, so that a change in one leaves the others as they are.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from rfkeras.synthesis import arrange
from rfkeras.synthesis.arrange import Casting
from rfkeras.synthesis.mapping import CLASSES, KITS
from rfkeras.synthesis.song import (
    CLIP_SECONDS,
    LEAD_SECONDS,
    Note,
    Song,
    cut,
    draw_hand,
    draw_song,
    perform,
    sounds,
    tremolo,
)

VERSION = 1
"""Raise it whenever the same seed and index would give other sound or other labels."""

LABEL_RATE = 0.85
"""Probability that a label is known, for every class and clip, present or not."""

_ATTEMPTS = 8
_GATES = {
    "plucked": (0.6, 1.0),
    "struck": (0.5, 1.0),
    "keys": (0.5, 1.0),
    "sustained": (0.6, 1.02),
    "kit": (1.0, 1.0),
}


@dataclass(frozen=True)
class Part:
    """What one performer plays in the clip.

    Attributes:
        casting: Instrument, program, role, register.
        notes: Notes in seconds on the clip's clock; some begin up to LEAD_SECONDS before.
        level_db: Loudness beside the other parts.
        reverb: Reverberation send, 0..127.
        vibrato: Modulation wheel, 0..127.
        heard: Whether it sounds often enough inside the clip to be labelled.
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
        song: Style, key, tempo, harmony.
        parts: 1 to 5 parts.
        kit: Program of the drum kit, for clips that have one.
        tuning_cents: Tuning of the whole ensemble against A4 = 440 Hz.
        jitter_db: Random gain of the whole clip. It hides the tenths of a decibel by which
            the audio codec weakens noise (cymbals) more than tones.
        labels: 1 where a class is heard, 0 where it is not, in the order of CLASSES.
        mask: Whether that label is known.
    """

    song: Song
    parts: tuple[Part, ...]
    kit: int
    tuning_cents: float
    jitter_db: float
    labels: tuple[int, ...]
    mask: tuple[bool, ...]


def stream(seed: int, index: int, purpose: str) -> random.Random:
    """The random stream of one matter of one clip."""
    return random.Random(f"gm_instruments/{VERSION}/{seed}/{index}/{purpose}")


def featured_class(seed: int, index: int) -> str:
    """The class that a clip is sure to have: every 20 neighbours feature all 20 classes."""
    block, place = divmod(index, len(CLASSES))
    order = list(CLASSES)
    stream(seed, block, "block").shuffle(order)
    return order[place]


def compose(seed: int, index: int) -> Composition:
    """Compose one clip.

    Args:
        seed: Seed of the data set.
        index: Number of the clip.
    """
    song = draw_song(stream(seed, index, "song"))
    room = stream(seed, index, "room")
    kit, tuning, jitter = room.choice(KITS), room.gauss(0, 10), room.uniform(-2, 2)
    reverb = room.randint(0, 90)
    performers = arrange.cast(stream(seed, index, "cast"), featured_class(seed, index))
    parts = tuple(
        _part(seed, index, number, song, performer, reverb, alone=len(performers) == 1)
        for number, performer in enumerate(performers)
    )
    labels, mask = _labels(stream(seed, index, "labels"), parts)
    return Composition(song, parts, kit, tuning, jitter, labels, mask)


def _part(
    seed: int,
    index: int,
    number: int,
    song: Song,
    performer: Casting,
    reverb: int,
    *,
    alone: bool,
) -> Part:
    """Write and perform one part; one that rests too long in the excerpt is written anew."""
    notes: tuple[Note, ...] = ()
    for attempt in range(_ATTEMPTS):
        rng = stream(seed, index, f"part/{number}/{attempt}")
        hand = draw_hand(rng, _GATES[performer.instrument.family])
        written = _write(rng, song, performer)
        # The first attempts may pause for some bars; later ones and soloists play on.
        if attempt < 2 and not alone:
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
        notes = cut(played, song.excerpt_s, CLIP_SECONDS, LEAD_SECONDS)
        if sounds(notes, CLIP_SECONDS):
            break
    sustained = performer.instrument.family == "sustained"
    return Part(
        casting=performer,
        notes=notes,
        level_db=rng.uniform(-5, 3),
        reverb=max(0, min(127, reverb + rng.randint(-15, 15))),
        vibrato=rng.choice((0, 0, 30, 60)) if sustained else 0,
        heard=sounds(notes, CLIP_SECONDS),
    )


def _write(rng: random.Random, song: Song, performer: Casting) -> list[Note]:
    """The part in beats."""
    low, high, instrument = performer.low, performer.high, performer.instrument
    if performer.role == "kit":
        part = arrange.drum_part if instrument.name == "drums" else arrange.cymbal_part
        return part(rng, song)
    if performer.role == "bass":
        return arrange.bass_line(rng, song, low, high)
    if performer.role == "counter":
        return arrange.counter_melody(rng, song, low, high)
    if performer.role == "chords":
        voices = rng.randint(min(2, instrument.voices), instrument.voices)
        texture = rng.choice(arrange.TEXTURES[instrument.family])
        return arrange.chord_part(rng, song, low, high, voices, texture)
    return arrange.melody(rng, song, low, high, rng.random())


def _with_pauses(rng: random.Random, song: Song, notes: list[Note]) -> list[Note]:
    """Let a part pause: not at all, in every other pair of bars, or one bar in four."""
    manner = rng.choice(("never", "never", "never", "pairs", "fourth"))
    turn = rng.randrange(4)
    kept = []
    for note in notes:
        bar = int(note.start // song.beats_per_bar) + turn
        resting = (manner == "pairs" and bar % 4 < 2) or (manner == "fourth" and bar % 4 == 0)
        if not resting:
            kept.append(note)
    return kept


def _labels(
    rng: random.Random, parts: tuple[Part, ...]
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Labels, and which of them are known.

    Whether a label is known is drawn without looking at it. Two more rules hide labels
    that would be doubtful: a part that is hardly heard, and a class that could be taken
    for an unlabelled sound in the mix.
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
