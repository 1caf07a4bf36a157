"""Ensembles: sizes, balance of the classes, levels, labels and masks."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from rfkeras.synthesis.compose import LABEL_RATE, featured_class, is_heard
from rfkeras.synthesis.ensemble import (
    BACKGROUND,
    KINDS,
    PART_COUNTS,
    Ensemble,
    Piece,
    cast_ensemble,
    compose_ensemble,
    hide_drowned,
)
from rfkeras.synthesis.mapping import CLASSES, INSTRUMENTS
from rfkeras.synthesis.song import CLIP_SECONDS, LEAD_SECONDS

CASTS, CLIPS = 2000, 1000


@pytest.fixture(scope="module")
def ensembles() -> list[Ensemble]:
    return [
        cast_ensemble(random.Random(index), featured_class(0, index)) for index in range(CASTS)
    ]


@pytest.fixture(scope="module")
def pieces() -> list[Piece]:
    return [compose_ensemble(0, index) for index in range(CLIPS)]


def _within(count: int, share: float, of: int) -> bool:
    """Return whether a count is within 4 standard deviations of its binomial mean."""
    return abs(count - of * share) <= 4 * math.sqrt(of * share * (1 - share))


def _names(piece: Piece) -> list[str]:
    return [member.casting.instrument.name for member in piece.ensemble.members]


def test_part_counts_are_as_documented(ensembles: list[Ensemble]) -> None:
    assert sum(PART_COUNTS.values()) == pytest.approx(1)
    counts = Counter(len(ensemble.members) for ensemble in ensembles)
    assert set(counts) == set(PART_COUNTS)
    for size, share in PART_COUNTS.items():
        assert _within(counts[size], share, CASTS)


def test_most_parts_of_large_bands_are_heard(pieces: list[Piece]) -> None:
    large = [piece for piece in pieces if len(piece.composition.parts) == 8]
    playing = [
        sum(is_heard(part.notes, CLIP_SECONDS) for part in piece.composition.parts)
        for piece in large
    ]
    assert np.mean(np.array(playing) >= 7) > 0.9
    assert min(playing) >= 6


def test_classes_are_balanced(ensembles: list[Ensemble], pieces: list[Piece]) -> None:
    counts = Counter(
        name
        for ensemble in ensembles
        for name in {member.casting.instrument.name for member in ensemble.members}
    )
    cast = [counts[name] / CASTS for name in CLASSES]
    assert max(cast) < 1.8 * min(cast)
    assert min(cast) > 0.1
    for index, piece in enumerate(pieces):
        assert featured_class(0, index) == _names(piece)[0]
    labels = np.array([piece.composition.labels for piece in pieces])
    mask = np.array([piece.composition.mask for piece in pieces])
    prevalence = labels.mean(axis=0)
    assert prevalence.max() < 2 * prevalence.min()
    assert 0.1 < prevalence.mean() < 0.2
    known = (labels * mask).sum(axis=0)
    assert known.max() < 2.5 * known.min()
    assert mask.mean(axis=0).min() > 0.5


def test_bands_have_a_rhythm_section(pieces: list[Piece]) -> None:
    bands = [set(_names(piece)) for piece in pieces if piece.ensemble.kind == "band"]
    assert len(bands) > 80
    for name, share in (("drums", 0.8), ("bass", 0.75), ("guitar", 0.7), ("cymbals", 0.5)):
        assert np.mean([name in band for band in bands]) > share
    guitars = [
        member.casting.role
        for piece in pieces
        if piece.ensemble.kind == "band"
        for member in piece.ensemble.members
        if member.casting.instrument.name == "bass"
    ]
    assert guitars.count("bass") > 0.8 * len(guitars)
    assert {piece.ensemble.kind for piece in pieces} == {kind.name for kind in KINDS}


def test_solos_are_unaccompanied_and_some_are_fast(pieces: list[Piece]) -> None:
    solos = [piece for piece in pieces if piece.ensemble.kind == "solo"]
    assert all(len(piece.composition.parts) == 1 for piece in solos)
    assert all(sum(piece.composition.labels) <= 1 for piece in solos)
    assert np.mean([sum(piece.composition.labels) for piece in solos]) > 0.95
    fast = [p for p in solos if p.ensemble.members[0].casting.role == "run"]
    assert 0.1 < len(fast) / len(solos) < 0.25
    rates = [
        len({note.start for note in piece.composition.parts[0].notes}) / CLIP_SECONDS
        for piece in fast
    ]
    assert np.median(rates) > 6
    voice = [p for p in solos if _names(p) == ["voice"]]
    assert all(piece not in fast for piece in voice)


def test_levels_of_leads_and_backgrounds(pieces: list[Piece]) -> None:
    by_place: dict[str, list[float]] = {"lead": [], "accompaniment": [], "background": []}
    for piece in pieces:
        members = piece.ensemble.members
        assert [part.level_db for part in piece.composition.parts] == [
            member.level_db for member in members
        ]
        if len(members) == 1:
            continue
        assert sum(member.place == "lead" for member in members) == 1
        for member in members:
            by_place[member.place].append(member.level_db)
            is_class = member.casting.instrument.name in CLASSES
            assert is_class == (member.place != "background")
            if not is_class:
                assert member.casting.role in ("chords", "counter", "bass", "kit")
    lead = np.array(by_place["lead"])
    assert _within(int((lead >= 3).sum()), 0.75, len(lead))
    assert lead.max() <= 8
    assert lead.min() >= -1
    assert max(map(abs, by_place["accompaniment"])) <= 2.5
    assert -12 <= min(by_place["background"]) <= max(by_place["background"]) <= -6
    assert len(by_place["background"]) > 300


def test_labels_and_masks(pieces: list[Piece]) -> None:
    hidden = drowned = 0
    for piece in pieces:
        clip = piece.composition
        heard = {part.casting.instrument.name for part in clip.parts if part.heard}
        assert clip.labels == tuple(int(name in heard) for name in CLASSES)
        for part in clip.parts:
            instrument = part.casting.instrument
            doubtful = set(instrument.resembles)
            if not part.heard and instrument.name in CLASSES:
                doubtful.add(instrument.name)
                drowned += is_heard(part.notes, CLIP_SECONDS)
            for name in doubtful - heard:
                assert not clip.mask[CLASSES.index(name)]
                hidden += 1
    assert hidden > 500
    assert 10 < drowned < 100
    plain = [p for p in pieces if all(m.place != "background" for m in p.ensemble.members)]
    mask = np.array([piece.composition.mask for piece in plain])
    labels = np.array([piece.composition.labels for piece in plain])
    assert mask[labels == 1].mean() == pytest.approx(LABEL_RATE, abs=0.03)


def test_parts_far_below_the_clip_count_as_hardly_heard(pieces: list[Piece]) -> None:
    part = next(p for piece in pieces for p in piece.composition.parts if p.heard)
    loud, soft, softer = (replace(part, level_db=level) for level in (8.0, -3.5, -4.5))
    assert [p.heard for p in hide_drowned([loud, soft])] == [True, True]
    assert [p.heard for p in hide_drowned([loud, softer])] == [True, False]
    assert [p.heard for p in hide_drowned([softer])] == [True]
    assert not hide_drowned([replace(loud, heard=False)])[0].heard


def test_notes_are_within_the_clip_and_the_register(pieces: list[Piece]) -> None:
    for piece in pieces[:300]:
        for part, expression in zip(piece.composition.parts, piece.expressions, strict=True):
            assert part.notes == expression.notes
            casting = part.casting
            for note in part.notes:
                assert -LEAD_SECONDS <= note.start < note.end <= CLIP_SECONDS + 0.05
                assert casting.low <= note.pitch <= casting.high
                assert 1 <= note.velocity <= 127


def test_backgrounds_are_unlabelled_sounds() -> None:
    assert len({instrument.name for instrument in BACKGROUND}) == len(BACKGROUND)
    for instrument in BACKGROUND:
        assert instrument.name not in INSTRUMENTS
        assert instrument.resembles
        assert set(instrument.resembles) <= set(CLASSES)
    names = {instrument.name for instrument in BACKGROUND} | set(INSTRUMENTS)
    for kind in KINDS:
        assert set(kind.backgrounds) <= names - set(CLASSES)
        assert set(kind.others) <= set(CLASSES)
        assert all(set(choice) <= set(CLASSES) for choice in kind.core)


def test_piece_is_determined_by_seed_and_index() -> None:
    first, again, other = (compose_ensemble(seed, 11) for seed in (0, 0, 1))
    assert first.composition == again.composition
    assert first.ensemble == again.ensemble
    for one, two in zip(first.expressions, again.expressions, strict=True):
        assert one.bend_cents.tolist() == two.bend_cents.tolist()
        assert one.level_db.tolist() == two.level_db.tolist()
    assert other.composition != first.composition
