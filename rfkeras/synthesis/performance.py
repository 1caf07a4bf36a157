"""Play a piece: every part with a source of its own, then a chain of recording."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis.compose import Part
from rfkeras.synthesis.curves import Expression, apply_level
from rfkeras.synthesis.ensemble import Piece
from rfkeras.synthesis.filters import AmplifierKind, draw_amplifier
from rfkeras.synthesis.recording_chain import Chain, draw_chain
from rfkeras.synthesis.recordings import RecordedInstrument, Recordings, load_recordings
from rfkeras.synthesis.render import (
    RENDER_RATE_HZ,
    SAMPLE_RATE_HZ,
    gated_loudness,
    mix,
    render_stem,
)
from rfkeras.synthesis.sampler import can_play_notes, play
from rfkeras.synthesis.song import CLIP_SECONDS
from rfkeras.synthesis.sources import (
    FontSource,
    PresetFont,
    RecordingSource,
    draw_source,
    font_sources,
    load_presets,
)

VERSION = 1
"""Raise it whenever the same piece would sound different with the same sounds."""

Source = FontSource | RecordingSource[RecordedInstrument]
Samples = NDArray[np.float32]

# Clean, overdriven and distorted electric guitar.
_AMPLIFIERS: dict[int, tuple[AmplifierKind, ...]] = {
    27: ("clean", "clean", "crunch"),
    29: ("crunch", "distorted"),
    30: ("distorted", "distorted", "fuzz"),
}


@dataclass(frozen=True)
class Sounds:
    """What pieces can be played with.

    Attributes:
        fonts: Sound fonts, which may be partial.
        recordings: Recorded notes; None for sound fonts only.
        share: Probability that a recording plays a part, if one fits; None for
            `sources.recording_share`.
    """

    fonts: tuple[PresetFont, ...]
    recordings: Recordings | None = None
    share: float | None = None

    def able(self, part: Part, class_name: str) -> list[RecordedInstrument]:
        """Return the recorded instruments of a class that reach the notes of a part."""
        if self.recordings is None:
            return []
        groups = self.recordings.groups(class_name)
        return [group for group in groups if can_play_notes(group, part.notes)]


@dataclass(frozen=True, eq=False)
class Take:
    """A piece as it was recorded.

    Attributes:
        samples: (441000,) mono at 44.1 kHz.
        sources: The source of each part.
        chain: The chain of recording.
    """

    samples: Samples
    sources: tuple[Source, ...]
    chain: Chain


def load_sounds(
    fonts: Sequence[Path],
    recordings: Path | None = None,
    leave_out: Sequence[str] = (),
    share: float | None = None,
) -> Sounds:
    """Read sound fonts and a table of recorded notes.

    Args:
        fonts: SoundFont 2 files; none if the recordings suffice.
        recordings: Table of recorded notes; see `rfkeras.synthesis.recordings`.
        leave_out: Names of recordings that are not used. The pitches of sounds that have none
            in the table are measured.
        share: See Sounds.

    Raises:
        ConfigError: There is neither a font nor a table, or recordings are left out of no
            table, or a file does not exist, or its content is wrong.
        DatasetError: A sound file of the table does not exist.
    """
    if not fonts and recordings is None:
        raise ConfigError("Music needs a sound font (.sf2) or a table of recorded notes.")
    if leave_out and recordings is None:
        raise ConfigError(
            f"Without a table of recorded notes, none can be left out. Received: "
            f"{', '.join(leave_out)}."
        )
    table = (
        None
        if recordings is None
        else load_recordings(recordings, leave_out, estimate_pitches=True)
    )
    return Sounds(tuple(load_presets(path.resolve()) for path in fonts), table, share)


def perform(piece: Piece, sounds: Sounds, seed: int, index: int, *, chain: bool = True) -> Take:
    """Play a piece and record it.

    Args:
        piece: The piece.
        sounds: Sound fonts and recordings.
        seed: Seed of the data set.
        index: Number of the clip. With the seed it determines every choice.
        chain: Whether the clip goes through a chain of recording. Without it, the clip stays
            at the level of the default data set.

    Raises:
        DatasetError: No source can play a part, or a file cannot be decoded.
    """
    composition = piece.composition
    stems: list[Samples] = []
    sources: list[Source] = []
    for number, (part, expression) in enumerate(
        zip(composition.parts, piece.expressions, strict=True)
    ):
        rng = _stream(seed, index, f"part/{number}")
        source, stem = _play(rng, part, expression, piece, sounds)
        sources.append(source)
        stems.append(stem)
    dry = mix(composition, stems)
    drawn = draw_chain(_stream(seed, index, "chain")) if chain else Chain(())
    return Take(drawn.apply(dry, SAMPLE_RATE_HZ), tuple(sources), drawn)


def _play(
    rng: random.Random, part: Part, expression: Expression, piece: Piece, sounds: Sounds
) -> tuple[Source, Samples]:
    """Return the source and the samples of a part.

    A preset may lack the keys that a part needs. Then another source plays it.
    """
    composition = piece.composition
    drawn = draw_source(
        rng,
        part.casting,
        sounds.fonts,
        functools.partial(sounds.able, part),
        composition.kit,
        sounds.share,
    )
    fonts = font_sources(part.casting, sounds.fonts, composition.kit)
    for source in (drawn, *(font for font in fonts if font != drawn)):
        stem = _stem(rng, source, part, expression, composition.tuning_cents)
        if not part.heard or np.isfinite(gated_loudness(stem, RENDER_RATE_HZ)):
            return source, stem
    raise DatasetError(
        f"{part.casting.instrument.name} (program {part.casting.program}, pitches "
        f"{part.casting.low} to {part.casting.high}) is silent with every source. Add a "
        "complete General MIDI sound font, such as TimGM6mb."
    )


def _stem(
    rng: random.Random, source: Source, part: Part, expression: Expression, tuning_cents: float
) -> Samples:
    """Return the samples of a part: (480000,) at 48 kHz."""
    if isinstance(source, FontSource):
        # The bank of kits is sent by the track's being a drum track.
        is_kit = part.casting.instrument.family == "kit"
        return render_stem(
            part,
            source.program,
            tuning_cents,
            source.font,
            bank=0 if is_kit else source.bank,
            expression=expression,
        )
    samples = play(
        source.recorded,
        expression.notes,
        rng,
        CLIP_SECONDS,
        RENDER_RATE_HZ,
        bend_cents=expression.bend_cents,
        tuning_cents=tuning_cents,
    )
    samples = apply_level(samples, expression.level_db, RENDER_RATE_HZ, 0.0)
    if source.amplified:
        kind = rng.choice(_AMPLIFIERS[part.casting.program])
        samples = draw_amplifier(rng, kind).apply(samples, RENDER_RATE_HZ)
    return samples


def _stream(seed: int, index: int, purpose: str) -> random.Random:
    """Return the random stream of one aspect of one clip."""
    return random.Random(f"performance/{seed}/{index}/{purpose}")
