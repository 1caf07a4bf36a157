"""Ensembles of real density: solos, duos, bands of up to 8 parts with unlabelled backgrounds.

`cast_ensemble` chooses the performers and their levels; `compose_ensemble` composes a whole
clip with labels, mask and articulation. About 30 % of the clips are solos, 18 % duos, 12 %
trios, and the other 40 % have 4 to 8 parts.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rfkeras.synthesis.arrange import BASS_TOP, Casting, draw_register
from rfkeras.synthesis.articulation import articulate
from rfkeras.synthesis.compose import (
    Composition,
    Part,
    draw_labels,
    featured_class,
    is_heard,
    make_part,
)
from rfkeras.synthesis.curves import Expression
from rfkeras.synthesis.mapping import (
    CLASSES,
    INSTRUMENTS,
    KITS,
    UNKNOWN,
    Instrument,
    Patch,
    patches,
)
from rfkeras.synthesis.song import CLIP_SECONDS, draw_song

VERSION = 1
"""Raise it whenever the same seed and index would give a different composition."""

PART_COUNTS = {1: 0.30, 2: 0.18, 3: 0.12, 4: 0.11, 5: 0.10, 6: 0.08, 7: 0.06, 8: 0.05}
"""Probability of each number of parts."""

BACKGROUND = (
    Instrument("choir", "keys", 4, patches(48, 79, 52, 53), resembles=("voice", "synthesizer")),
    Instrument(
        "choir_pad", "keys", 4, patches(48, 79, 85, 91), resembles=("voice", "synthesizer")
    ),
    Instrument(
        "brass_section",
        "keys",
        4,
        patches(46, 79, 61),
        resembles=("trumpet", "trombone", "saxophone", "synthesizer"),
    ),
    Instrument("horn", "sustained", 3, patches(41, 72, 60), resembles=("trombone", "trumpet")),
    Instrument("tuba", "sustained", 1, patches(28, 58, 58), resembles=("trombone", "bass")),
    Instrument(
        "oboe", "sustained", 1, patches(58, 88, 68), resembles=("clarinet", "saxophone")
    ),
    Instrument(
        "bassoon", "sustained", 1, patches(34, 70, 70), resembles=("clarinet", "saxophone")
    ),
    Instrument(
        "orchestra_hit",
        "struck",
        1,
        patches(48, 72, 55),
        resembles=("violin", "cello", "trumpet", "trombone", "synthesizer", "cymbals"),
    ),
    Instrument("harp", "plucked", 5, patches(36, 93, 46), resembles=("guitar", "piano")),
    Instrument("harmonium", "keys", 4, patches(40, 76, 20), resembles=("accordion", "organ")),
    Instrument(
        "celesta", "struck", 4, patches(60, 96, 8, 10), resembles=("mallet_percussion",)
    ),
    Instrument("timpani", "struck", 1, patches(40, 55, 47), resembles=("drums",)),
    Instrument("percussion", "kit", 1, resembles=("drums", "cymbals")),
)
"""More sounds without a label, for backgrounds. The classes that they resemble become "not
annotated"."""

_UNLABELLED = {instrument.name: instrument for instrument in (*UNKNOWN, *BACKGROUND)}

LEAD_DB, OFTEN_LEADING = (3.0, 8.0), 0.75
LEVEL_DB = (-2.5, 2.5)
BACKGROUND_DB = (-12.0, -6.0)
DROWNED_DB = -12.0
"""A part whose level is that far below the whole clip counts as hardly heard."""

_CORE_RATE = 0.85
_KIT_TOGETHER = 3.0
_RUN_RATE, _SOLO_RUN_RATE = 0.12, 0.25
_NEVER_FAST = frozenset({"voice", "trombone", "choir", "tuba"})
_DOUBLED = frozenset({"guitar", "synthesizer", "trumpet", "violin", "voice"})
_BASSES = frozenset({"bass", "contrabass", "synth_bass", "tuba"})
_ACCOMPANYING = {"sustained": (0.5, 1.0, 0.7), "other": (0.3, 0.4, 2.0)}
"""Weights of melody, counter-melody and chords. A role that is taken becomes less likely."""


@dataclass(frozen=True)
class Kind:
    """A kind of ensemble.

    Attributes:
        name: Its name.
        sizes: Smallest and largest number of parts.
        weight: Relative frequency among the kinds that have the featured class.
        core: Classes that come first, in this order, after the featured one. Each entry is
            a choice.
        others: Weight of each class for the remaining parts.
        backgrounds: Sounds without a label.
        background_rate: Probability that a part after the core is one of them.
    """

    name: str
    sizes: tuple[int, int]
    weight: float
    core: tuple[tuple[str, ...], ...]
    others: dict[str, float]
    backgrounds: tuple[str, ...]
    background_rate: float


_ANY = dict.fromkeys(CLASSES, 1.0)
KINDS = (
    Kind("solo", (1, 1), 1.0, (), _ANY, (), 0.0),
    Kind("small", (2, 3), 1.0, (), _ANY, tuple(_UNLABELLED), 0.12),
    Kind("mixed", (4, 8), 0.7, (), _ANY, tuple(_UNLABELLED), 0.2),
    Kind(
        "band",
        (4, 8),
        1.6,
        (("drums",), ("bass",), ("guitar",), ("cymbals",), ("piano", "organ", "synthesizer")),
        {
            "guitar": 1.0,
            "mallet_percussion": 1.0,
            "organ": 1.5,
            "piano": 1.0,
            "saxophone": 3.0,
            "synthesizer": 1.0,
            "trombone": 3.0,
            "trumpet": 3.0,
            "voice": 3.0,
        },
        ("string_ensemble", "electric_piano", "brass_section", "percussion", "choir"),
        0.35,
    ),
    Kind(
        "orchestra",
        (4, 8),
        1.2,
        (("violin",), ("cello",)),
        {
            "cello": 1.0,
            "clarinet": 2.0,
            "flute": 2.0,
            "mallet_percussion": 3.0,
            "piano": 1.5,
            "saxophone": 1.0,
            "trombone": 3.0,
            "trumpet": 3.0,
            "violin": 0.5,
        },
        (
            "string_ensemble",
            "contrabass",
            "horn",
            "tuba",
            "oboe",
            "bassoon",
            "harp",
            "celesta",
            "timpani",
            "choir",
            "pizzicato",
            "orchestra_hit",
        ),
        0.45,
    ),
    Kind(
        "electronic",
        (4, 8),
        0.6,
        (("synthesizer",), ("drums",)),
        {
            "cymbals": 1.0,
            "guitar": 0.5,
            "mallet_percussion": 1.0,
            "organ": 1.0,
            "piano": 0.5,
            "saxophone": 1.0,
            "voice": 2.0,
        },
        ("synth_bass", "choir_pad", "string_ensemble", "electric_piano", "orchestra_hit"),
        0.45,
    ),
    Kind(
        "folk",
        (4, 8),
        1.2,
        (),
        {
            "accordion": 2.0,
            "banjo": 2.0,
            "bass": 0.3,
            "clarinet": 1.0,
            "flute": 1.0,
            "guitar": 0.3,
            "mandolin": 2.0,
            "ukulele": 2.0,
            "violin": 0.5,
            "organ": 0.5,
            "piano": 0.5,
            "saxophone": 0.5,
            "voice": 0.5,
        },
        ("percussion", "harmonium", "contrabass", "harp"),
        0.2,
    ),
)


@dataclass(frozen=True)
class Member:
    """One performer of an ensemble.

    Attributes:
        casting: Instrument, program, role and register.
        place: "lead", "accompaniment" or "background".
        level_db: Loudness relative to the other parts.
    """

    casting: Casting
    place: str
    level_db: float


@dataclass(frozen=True)
class Ensemble:
    """The performers of a clip and the name of their kind; see KINDS."""

    kind: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Piece:
    """A composed clip.

    Attributes:
        composition: Song, parts, labels and mask. The notes of its parts are articulated.
        ensemble: The performers, in the order of the parts.
        expressions: The notes and the curves of each part, in the order of the parts.
    """

    composition: Composition
    ensemble: Ensemble
    expressions: tuple[Expression, ...]


def cast_ensemble(
    rng: random.Random, featured: str, parts: tuple[int, int] = (1, 8)
) -> Ensemble:
    """Choose the performers, including the featured class.

    Args:
        rng: Source of every choice.
        featured: A class of the data set. It leads, or accompanies if it is a kit.
        parts: Smallest and largest number of parts, within 1 and 8.
    """
    counts = {n: rate for n, rate in PART_COUNTS.items() if parts[0] <= n <= parts[1]}
    count = rng.choices(tuple(counts), tuple(counts.values()))[0]
    kinds = [
        kind
        for kind in KINDS
        if kind.sizes[0] <= count <= kind.sizes[1]
        and (featured in kind.others or any(featured in choice for choice in kind.core))
    ]
    kind = rng.choices(kinds, [kind.weight for kind in kinds])[0]
    chosen = _instruments(rng, kind, featured, count)
    lead = _lead(rng, chosen)
    taken: list[str] = []
    members = []
    for number, instrument in enumerate(chosen):
        place = "lead" if number == lead else "accompaniment"
        if instrument.name not in CLASSES and count > 1:
            place = "background"
        casting = _casting(rng, instrument, place, taken, count)
        taken.append(casting.role)
        members.append(Member(casting, place, _level_db(rng, place, count)))
    return Ensemble(kind.name, tuple(members))


def _instruments(rng: random.Random, kind: Kind, featured: str, count: int) -> list[Instrument]:
    """Choose the instruments of an ensemble, the featured one first."""
    chosen = [INSTRUMENTS[featured]]
    for choice in kind.core:
        present = any(instrument.name in choice for instrument in chosen)
        if len(chosen) < count and not present and rng.random() < _CORE_RATE:
            chosen.append(INSTRUMENTS[rng.choice(choice)])
    while len(chosen) < count:
        names = [instrument.name for instrument in chosen]
        if kind.backgrounds and rng.random() < kind.background_rate:
            pool = {name: 1.0 for name in kind.backgrounds if name not in names}
        else:
            has_kit = any(instrument.family == "kit" for instrument in chosen)
            pool = {
                name: weight * _factor(name, names, has_kit=has_kit)
                for name, weight in kind.others.items()
            }
        if sum(pool.values()) > 0:
            name = rng.choices(tuple(pool), tuple(pool.values()))[0]
            chosen.append(INSTRUMENTS[name] if name in CLASSES else _UNLABELLED[name])
    return chosen


def _factor(name: str, names: Sequence[str], *, has_kit: bool) -> float:
    """Return the factor on the weight of one more player of a class."""
    if name in names:
        return 0.3 if name in _DOUBLED and names.count(name) < 2 else 0.0
    return _KIT_TOGETHER if has_kit and INSTRUMENTS[name].family == "kit" else 1.0


def _lead(rng: random.Random, chosen: Sequence[Instrument]) -> int:
    """Return the number of the leading part: often the featured one, never a kit or bass."""
    able = [
        number
        for number, instrument in enumerate(chosen)
        if instrument.name in CLASSES
        and instrument.family != "kit"
        and instrument.name not in _BASSES
    ]
    if not able:
        return 0
    return able[0] if rng.random() < 0.5 else rng.choice(able)


def _casting(
    rng: random.Random, instrument: Instrument, place: str, taken: Sequence[str], count: int
) -> Casting:
    """Give an instrument a program, a role for its place, and a register."""
    if instrument.family == "kit":
        return Casting(instrument, 0, "kit", 0, 127)
    patch = rng.choice(instrument.patches)
    role = _role(rng, instrument, patch, place, taken, count)
    low, high = draw_register(rng, patch, role)
    return Casting(instrument, patch.program, role, low, high)


def _role(
    rng: random.Random,
    instrument: Instrument,
    patch: Patch,
    place: str,
    taken: Sequence[str],
    count: int,
) -> str:
    """Draw the role of a part from its place."""
    low_enough = patch.low + 11 <= BASS_TOP
    if instrument.name in _BASSES and low_enough and rng.random() < (0.5, 0.9)[count > 1]:
        return "bass"
    run_rate = _SOLO_RUN_RATE if count == 1 else _RUN_RATE
    if place == "lead":
        if instrument.name not in _NEVER_FAST and rng.random() < run_rate:
            return "run"
        alone = count == 1 and instrument.voices > 2 and rng.random() < 0.4
        return "chords" if alone else "melody"
    kind = "sustained" if instrument.family == "sustained" else "other"
    weights = dict(zip(("melody", "counter", "chords"), _ACCOMPANYING[kind], strict=True))
    if place == "background":
        weights["melody"] = 0.0
    if instrument.voices == 1:
        weights["chords"] = 0.0
    for role in taken:
        if role in weights:
            weights[role] *= 0.6
    return rng.choices(tuple(weights), tuple(weights.values()))[0]


def _level_db(rng: random.Random, place: str, count: int) -> float:
    """Draw the level of a part: leads stand out, backgrounds stay behind."""
    if count == 1:
        return 0.0
    if place == "background":
        return rng.uniform(*BACKGROUND_DB)
    if place == "lead":
        often = rng.random() < OFTEN_LEADING
        return rng.uniform(*LEAD_DB) if often else rng.uniform(-1, LEAD_DB[0])
    return rng.uniform(*LEVEL_DB)


def compose_ensemble(
    seed: int,
    index: int,
    *,
    parts: tuple[int, int] = (1, 8),
    featured: Sequence[str] = CLASSES,
) -> Piece:
    """Compose one clip for an ensemble.

    The classes take turns to be featured, so that every 20 neighbours feature all 20. Labels
    follow the rules of `draw_labels`. The label of a class whose parts are all more than 12 dB
    below the whole clip is hidden too.

    Args:
        seed: Seed of the data set.
        index: Number of the clip.
        parts: Smallest and largest number of parts, within 1 and 8.
        featured: Classes that are featured in turn.
    """
    stream = functools.partial(_stream, seed, index)
    song = draw_song(stream("song"))
    room = stream("room")
    kit, tuning, jitter = room.choice(KITS), room.gauss(0, 10), room.uniform(-2, 2)
    reverb = room.randint(0, 90)
    ensemble = cast_ensemble(stream("cast"), featured_class(seed, index, featured), parts)
    played, expressions = [], []
    for number, member in enumerate(ensemble.members):
        is_solo = len(ensemble.members) == 1
        part = make_part(stream, number, song, member.casting, reverb, is_solo=is_solo)
        expression = articulate(
            stream(f"articulation/{number}"), part.notes, member.casting.instrument
        )
        part = replace(
            part,
            notes=expression.notes,
            level_db=member.level_db,
            # The vibrato of lines is in the bend.
            vibrato=0 if len(expression.bend_cents) else part.vibrato,
            heard=is_heard(expression.notes, CLIP_SECONDS),
        )
        played.append(part)
        expressions.append(expression)
    audible = hide_drowned(played)
    labels, mask = draw_labels(stream("labels"), audible)
    composition = Composition(song, audible, kit, tuning, jitter, labels, mask)
    return Piece(composition, ensemble, tuple(expressions))


def hide_drowned(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Return the parts; those far below the sum of all count as hardly heard.

    Args:
        parts: The parts of a clip, whose levels are relative to each other.
    """
    total_db = 10 * math.log10(sum(10 ** (part.level_db / 10) for part in parts))
    return tuple(
        replace(part, heard=part.heard and part.level_db - total_db > DROWNED_DB)
        for part in parts
    )


def _stream(seed: int, index: int, purpose: str) -> random.Random:
    """Return the random stream of one aspect of one clip."""
    return random.Random(f"ensemble/{VERSION}/{seed}/{index}/{purpose}")
