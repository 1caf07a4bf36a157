"""Sources of tracks: shares of fonts and recordings, GS banks and the character of programs."""

from __future__ import annotations

import csv
import math
import random
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis.arrange import Casting
from rfkeras.synthesis.compose import Part
from rfkeras.synthesis.ensemble import BACKGROUND
from rfkeras.synthesis.mapping import CLASSES, INSTRUMENTS, UNKNOWN
from rfkeras.synthesis.render import SoundFont, default_sound_font, load_sound_font, render_stem
from rfkeras.synthesis.song import Note
from rfkeras.synthesis.sources import (
    FontSource,
    PresetFont,
    RecordingSource,
    draw_source,
    font_sources,
    load_presets,
    recording_share,
    recording_sources,
)

DRAWS = 4000


class Take(NamedTuple):
    """A recorded instrument."""

    recording: str
    instrument: str


Pool = Callable[[str], Sequence[Take]]


def _pool(**instruments: Sequence[tuple[str, str]]) -> Pool:
    """Return a function from the name of a class to its recorded instruments."""
    return lambda name: [Take(*names) for names in instruments.get(name, ())]


def _font(name: str, *presets: tuple[int, int]) -> PresetFont:
    kits = frozenset(program for bank, program in presets if bank == 128)
    return PresetFont(SoundFont(Path(name), b"", name, kits), frozenset(presets))


def _casting(name: str, program: int, low: int = 60, high: int = 72) -> Casting:
    instrument = INSTRUMENTS[name]
    if instrument.family == "kit":
        return Casting(instrument, 0, "kit", 0, 127)
    return Casting(instrument, program, "melody", low, high)


def _count(casting: Casting, fonts: Sequence[PresetFont], pool: Pool | None) -> Counter[str]:
    """Count the sources of many draws, by font and by recording/instrument."""
    rng = random.Random(5)
    counts: Counter[str] = Counter()
    for _ in range(DRAWS):
        source = draw_source(rng, casting, fonts, pool)
        if isinstance(source, FontSource):
            counts[source.font.path.name] += 1
        else:
            counts["/".join(source.recorded)] += 1
    return counts


def _within(count: int, share: float) -> bool:
    """Return whether a count is within 4 standard deviations of its binomial mean."""
    return abs(count - DRAWS * share) <= 4 * math.sqrt(DRAWS * share * (1 - share))


@pytest.mark.parametrize(("count", "share"), [(0, 0), (1, 0.15), (3, 0.3), (9, 0.45)])
def test_share_of_recordings_grows_with_their_number(count: int, share: float) -> None:
    assert recording_share(count) == pytest.approx(share)
    pool = _pool(flute=[(f"take{number}", "flute") for number in range(count)])
    fonts = [_font("one", (0, 73)), _font("two", (0, 73)), _font("other", (0, 40))]
    counts = _count(_casting("flute", 73), fonts, pool)
    assert counts["other"] == 0
    assert all(_within(counts[font], (1 - share) / 2) for font in ("one", "two"))
    for number in range(count):
        assert _within(counts[f"take{number}/flute"], share / count)


def test_recording_with_many_instruments_has_the_weight_of_one() -> None:
    pool = _pool(
        flute=[("a", "flute"), ("b", "flute")]
        + [("c", f"flute_{number}") for number in range(4)]
    )
    counts = _count(_casting("flute", 73), [_font("one", (0, 73))], pool)
    assert _within(counts["a/flute"], 0.1)
    assert _within(counts["b/flute"], 0.1)
    assert all(_within(counts[f"c/flute_{number}"], 0.1 / 4) for number in range(4))


def test_without_a_font_a_recording_plays_and_without_both_it_is_an_error() -> None:
    flute = _casting("flute", 73)
    pool = _pool(flute=[("a", "flute")])
    assert _count(flute, [_font("one", (0, 40))], pool) == {"a/flute": DRAWS}
    with pytest.raises(DatasetError, match=r"flute, pitches 60 to 72: none of"):
        draw_source(random.Random(0), flute, [_font("one", (0, 40))])
    with pytest.raises(DatasetError, match=r"drum kit \(bank 128\) 8"):
        draw_source(random.Random(0), _casting("drums", 0), [_font("one", (0, 0))], kit=8)


@pytest.mark.parametrize(
    ("name", "program", "expected"),
    [
        ("ukulele", 24, (8, 24)),
        ("mandolin", 25, (16, 25)),
        ("guitar", 24, (0, 24)),
        ("guitar", 25, (0, 25)),
    ],
)
def test_gs_variations_replace_approximations(
    name: str, program: int, expected: tuple[int, int]
) -> None:
    full = _font("full", (0, 24), (0, 25), (8, 24), (16, 25))
    plain = _font("plain", (0, 24), (0, 25))
    found = font_sources(_casting(name, program), [full, plain])
    assert [(s.font.path.name, s.bank, s.program) for s in found] == [
        ("full", *expected),
        ("plain", 0, program),
    ]


def test_font_with_only_the_variation_takes_part() -> None:
    found = font_sources(_casting("ukulele", 24), [_font("ukulele", (8, 24))])
    assert [(s.bank, s.program) for s in found] == [(8, 24)]
    assert font_sources(_casting("guitar", 24), [_font("ukulele", (8, 24))]) == ()


def test_kits_fall_back_within_a_font() -> None:
    fonts = [_font("a", (128, 0), (128, 8)), _font("b", (128, 24), (128, 25)), _font("c")]
    found = font_sources(_casting("drums", 0), fonts, kit=8)
    assert [(s.font.path.name, s.bank, s.program) for s in found] == [
        ("a", 128, 8),
        ("b", 128, 24),
    ]


GUITARS = _pool(
    guitar=[
        ("clean", "electric_guitar"),
        ("spanish", "nylon_guitar"),
        ("metal", "distorted_guitar"),
        ("palm", "muted_guitar"),
    ]
)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (24, {"clean": False, "spanish": False}),
        (25, {"clean": False, "spanish": False}),
        (26, {"clean": False, "spanish": False}),
        (27, {"clean": True}),
        (28, {"palm": False}),
        (29, {"clean": True, "metal": False}),
        (30, {"clean": True, "metal": False}),
    ],
)
def test_guitars_keep_the_character_of_the_program(
    program: int, expected: dict[str, bool]
) -> None:
    found = recording_sources(_casting("guitar", program), GUITARS)
    assert {source.recorded.recording: source.amplified for source in found} == expected


@pytest.mark.parametrize(
    ("name", "program", "instrument", "fits"),
    [
        ("bass", 33, "electric_bass", True),
        ("bass", 36, "electric_bass", False),
        ("bass", 36, "slap_bass", True),
        ("bass", 33, "slap_bass", False),
        ("bass", 32, "double_bass_arco", False),
        ("bass", 32, "double_bass_pizz", True),
        ("mallet_percussion", 12, "marimba", True),
        ("mallet_percussion", 12, "vibraphone", False),
        ("organ", 18, "organ", False),
        ("piano", 0, "grand_piano", True),
        ("piano", 0, "electric_grand_cp80", False),
        ("piano", 2, "electric_grand_cp80", True),
        ("piano", 3, "grand_piano", False),
        ("trumpet", 59, "trumpet", False),
        ("violin", 40, "violin_section", False),
        ("voice", 54, "sung_vowel", False),
        ("voice", 53, "sung_vowel", True),
    ],
)
def test_special_programs_are_played_by_recordings_of_their_kind(
    name: str, program: int, instrument: str, fits: bool
) -> None:
    pool = _pool(**{name: [("take", instrument)]})
    assert len(recording_sources(_casting(name, program), pool)) == fits


def test_unlabelled_sounds_use_recordings_without_a_class() -> None:
    pool = _pool(
        bass=[("a", "double_bass_arco"), ("a", "double_bass_pizz")],
        cello=[("b", "cello_section"), ("b", "cello")],
        other=[("c", "french_horn"), ("c", "electric_piano")],
    )
    unlabelled = {instrument.name: instrument for instrument in (*UNKNOWN, *BACKGROUND)}
    found = {
        name: [
            source.recorded.instrument
            for source in recording_sources(Casting(instrument, 0, "chords", 48, 60), pool)
        ]
        for name, instrument in unlabelled.items()
    }
    assert {name: sources for name, sources in found.items() if sources} == {
        "contrabass": ["double_bass_arco"],
        "string_ensemble": ["cello_section"],
        "horn": ["french_horn"],
        "electric_piano": ["electric_piano"],
    }


def test_draws_are_determined_by_the_random_stream() -> None:
    fonts = [_font("one", (0, 25)), _font("two", (0, 25))]

    def draws(seed: int) -> list[FontSource | RecordingSource[Take]]:
        rng = random.Random(seed)
        casting = _casting("guitar", 25)
        return [draw_source(rng, casting, fonts, GUITARS) for _ in range(40)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_partial_font_is_loaded(tmp_path: Path) -> None:
    presets = [(0, 24), (8, 24), (128, 25)]
    header = b"".join(
        struct.pack("<20sHHHIII", b"", program, bank, 0, 0, 0, 0)
        for bank, program in (*presets, (0, 0))
    )
    path = tmp_path / "partial.sf2"
    path.write_bytes(b"RIFF\0\0\0\0sfbk" + b"phdr" + struct.pack("<I", len(header)) + header)
    font = load_presets(path)
    assert font.presets == set(presets)
    assert font.font.kits == {25}
    # The default data set needs a complete font.
    with pytest.raises(DatasetError, match="Missing programs"):
        load_sound_font(path)
    with pytest.raises(ConfigError, match="does not exist"):
        load_presets(tmp_path / "none.sf2")


def test_default_font_plays_every_class() -> None:
    font = load_presets(default_sound_font())
    assert font.font == load_sound_font(default_sound_font())
    for instrument in (*(INSTRUMENTS[name] for name in CLASSES), *UNKNOWN, *BACKGROUND):
        for program in [patch.program for patch in instrument.patches] or [0]:
            (source,) = font_sources(Casting(instrument, program, "chords", 48, 60), [font])
            assert (source.bank, source.program) == (
                (128, 0) if instrument.family == "kit" else (0, program)
            )


def test_variation_of_a_font_is_played(tmp_path: Path) -> None:
    # A copy of the default font in which the trumpet has the place of the ukulele.
    content = bytearray(default_sound_font().read_bytes())
    start = content.rfind(b"phdr") + 8
    while struct.unpack_from("<HH", content, start + 20) != (56, 0):
        start += 38
    struct.pack_into("<HH", content, start + 20, 24, 8)
    path = tmp_path / "ukulele.sf2"
    path.write_bytes(content)
    casting = _casting("ukulele", 24)
    (source,) = font_sources(casting, [load_presets(path)])
    assert (source.bank, source.program) == (8, 24)
    notes = (Note(0.5, 1.5, 69, 90),)
    part = Part(casting, notes, level_db=0, reverb=0, vibrato=0, heard=True)
    trumpet = replace(part, casting=_casting("trumpet", 56))
    original = load_sound_font(default_sound_font())
    played = render_stem(part, 0, 0.0, source.font, bank=source.bank)
    assert np.abs(played).max() > 0.01
    assert played == pytest.approx(render_stem(trumpet, 0, 0.0, original))
    guitar = render_stem(part, 0, 0.0, original)
    assert render_stem(part, 0, 0.0, source.font) == pytest.approx(guitar)


def test_shares_of_the_real_recordings(shared_folder: Path) -> None:
    table = shared_folder / "recordings" / "notes.csv"
    if not table.is_file():
        pytest.skip(f"this test needs the recorded notes of {table}")
    ranges: dict[str, dict[Take, list[float]]] = defaultdict(lambda: defaultdict(list))
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            take = Take(row["recording"], row["instrument"])
            if row["midi_pitch"] or row["class"] in ("drums", "cymbals"):
                ranges[row["class"]][take].append(float(row["midi_pitch"] or 60))

    def count(name: str, program: int, low: int, high: int) -> int:
        def able(wanted: str) -> list[Take]:
            return [
                take
                for take, pitches in ranges[wanted].items()
                if wanted in ("drums", "cymbals")
                or (min(pitches) - 3 <= low and high <= max(pitches) + 3)
            ]

        found = recording_sources(_casting(name, program, low, high), able)
        return len({source.recorded.recording for source in found})

    expected = {
        ("banjo", 105, 60, 70): 1,
        ("bass", 33, 30, 45): 5,
        ("bass", 36, 30, 45): 0,
        ("drums", 0, 0, 127): 5,
        ("guitar", 25, 45, 60): 8,
        ("guitar", 30, 45, 60): 5,
        ("guitar", 28, 45, 60): 0,
        ("mallet_percussion", 12, 50, 70): 1,
        ("mallet_percussion", 11, 60, 80): 3,
        ("piano", 0, 50, 70): 8,
        ("piano", 2, 50, 70): 1,
        ("saxophone", 66, 50, 70): 3,
        ("synthesizer", 81, 50, 70): 0,
        ("violin", 40, 60, 80): 1,
    }
    assert {casting: count(*casting) for casting in expected} == expected
