"""Who plays what: the instruments of a clip, their roles and their registers."""

from __future__ import annotations

import random
from dataclasses import dataclass

from rfkeras.data.sources.gm_instruments.mapping import (
    CLASSES,
    INSTRUMENTS,
    UNKNOWN,
    Instrument,
    Patch,
)

ROLES = ("melody", "counter", "chords", "bass")
_PART_COUNTS = {1: 0.32, 2: 0.30, 3: 0.21, 4: 0.11, 5: 0.06}
_UNKNOWN_RATE = 0.12
_KIT_TOGETHER = 5.0
# By how much a role becomes less likely once somebody has it.
_REPEATED = {"melody": 0.5, "counter": 0.0, "chords": 0.5, "bass": 0.15}
_BASS_TOP = 52
"""A bass line stays at or under E3, so it needs an instrument with an octave below that."""


@dataclass(frozen=True)
class Casting:
    """One performer of a clip.

    Attributes:
        instrument: What it is.
        program: GM program, 0-based; 0 for kits, whose program the clip chooses.
        role: One of ROLES; "kit" for drums and cymbals.
        low: Lowest pitch that this part may use.
        high: Highest pitch that this part may use.
    """

    instrument: Instrument
    program: int
    role: str
    low: int
    high: int


def cast(rng: random.Random, featured: str) -> tuple[Casting, ...]:
    """Choose 1 to 5 performers, the featured class among them.

    The others come from all classes alike, except that drums and cymbals attract each
    other; now and then a sound of unknown class takes a place.
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
        # Nobody plays a counter-melody to nothing.
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
    low, high = _register(rng, patch, role)
    return Casting(instrument, patch.program, role, low, high)


def _role_weights(instrument: Instrument, patch: Patch, taken: list[str]) -> list[float]:
    """Weight of each role. Only the bass prefers one, and it too plays all of them."""
    low_enough = patch.low + 11 <= _BASS_TOP
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
            weights[role] *= _REPEATED[role]
    return [weights[role] for role in ROLES]


def _register(rng: random.Random, patch: Patch, role: str) -> tuple[int, int]:
    """The window of the patch's range in which the part stays."""
    if role == "bass":
        top = min(patch.high, _BASS_TOP)
        low = rng.randint(patch.low, max(patch.low, min(patch.low + 8, top - 14)))
        return low, max(low + 11, min(top, low + 18))
    width = min(patch.high - patch.low, rng.randint(14, 22))
    low = rng.randint(patch.low, patch.high - width)
    return low, low + width
