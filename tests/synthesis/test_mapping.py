"""The General MIDI mapping: classes, programs, ranges and its documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path

from rfkeras.synthesis.mapping import CLASSES, CYMBAL_NOTES, DRUM_NOTES, INSTRUMENTS, UNKNOWN


def test_classes_are_those_of_openmic_in_the_same_order(shared_folder: Path) -> None:
    path = shared_folder / "datasets" / "openmic" / "class-map.json"
    assert json.loads(path.read_text()) == {name: i for i, name in enumerate(CLASSES)}


def test_only_the_documented_programs_belong_to_two_classes() -> None:
    users: dict[int, set[str]] = {}
    for instrument in INSTRUMENTS.values():
        for patch in instrument.patches:
            users.setdefault(patch.program, set()).add(instrument.name)
    shared = {program: names for program, names in users.items() if len(names) > 1}
    assert shared == {24: {"guitar", "ukulele"}, 25: {"guitar", "mandolin"}}


def test_guitar_and_ukulele_have_different_registers_of_nylon_strings() -> None:
    ranges = {
        name: [(p.low, p.high) for p in INSTRUMENTS[name].patches if p.program == 24]
        for name in ("guitar", "ukulele")
    }
    assert ranges["ukulele"] == [(60, 81)]
    assert ranges["guitar"][0][1] < 60
    assert [i.name for i in INSTRUMENTS.values() if i.tremolo] == ["mandolin"]


def test_drums_and_cymbals_share_no_key() -> None:
    drums = {key for keys in DRUM_NOTES.values() for key in keys}
    cymbals = {key for keys in CYMBAL_NOTES.values() for key in keys}
    assert drums == {35, 36, 37, 38, 39, 40, 41, 43, 45, 47, 48, 50}
    assert cymbals == {42, 44, 46, 49, 51, 52, 53, 55, 57, 59}


def test_unknown_sounds_resemble_known_classes() -> None:
    for instrument in UNKNOWN:
        assert instrument.name not in CLASSES
        assert instrument.resembles
        assert set(instrument.resembles) <= set(CLASSES)


def test_every_range_contains_an_octave() -> None:
    for instrument in INSTRUMENTS.values():
        assert all(patch.high - patch.low >= 12 for patch in instrument.patches)


def test_documented_table_matches_the_mapping() -> None:
    page = Path(__file__).parents[2] / "docs" / "gm_instruments.md"
    rows = [line.split("|")[1:4] for line in page.read_text().splitlines() if line[:1] == "|"]
    documented = {
        cells[0].strip().replace(" strings", "").replace(" ", "_"): cells[1] for cells in rows
    }
    for instrument in INSTRUMENTS.values():
        if instrument.family == "kit":
            keys = DRUM_NOTES if instrument.name == "drums" else CYMBAL_NOTES
            expected = {key for group in keys.values() for key in group}
        else:
            expected = {patch.program for patch in instrument.patches}
        found: set[int] = set()
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", documented[instrument.name]):
            found.update(range(int(first), int(last or first) + 1))
        assert found == expected, instrument.name
