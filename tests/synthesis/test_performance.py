from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis import performance
from rfkeras.synthesis.curves import Expression
from rfkeras.synthesis.ensemble import compose_ensemble
from rfkeras.synthesis.mapping import INSTRUMENTS
from rfkeras.synthesis.performance import Sounds, load_sounds, perform
from rfkeras.synthesis.recordings import load_recordings
from rfkeras.synthesis.render import CLIP_RMS, default_sound_font
from rfkeras.synthesis.song import Note
from rfkeras.synthesis.sources import FontSource, RecordingSource
from tests.helpers.recorded_notes import tone, write_table


def flutes(folder, recordings=("one", "two", "three")):
    """Return a table of flutes whose tones can play every part of a flute."""
    return write_table(
        folder,
        [
            ({"class": "flute", "midi_pitch": pitch, "recording": name}, tone(pitch, 1.5))
            for name in recordings
            for pitch in range(48, 109, 3)
        ],
    )


def solo(class_name="flute"):
    """Return a piece of one part, its number and its only part."""
    for index in range(400):
        piece = compose_ensemble(7, index, parts=(1, 1), featured=(class_name,))
        (part,) = piece.composition.parts
        if part.heard and part.casting.role != "kit":
            return piece, index
    raise AssertionError("no such piece")


@pytest.fixture(scope="module")
def font():
    return load_sounds([default_sound_font()]).fonts


def test_recordings_play_what_they_can(tmp_path, font):
    piece, index = solo()
    sounds = Sounds(font, load_recordings(flutes(tmp_path)), share=1.0)
    take = perform(piece, sounds, 7, index, chain=False)
    (source,) = take.sources
    assert isinstance(source, RecordingSource)
    again = perform(piece, sounds, 7, index, chain=False)
    np.testing.assert_array_equal(take.samples, again.samples)
    by_font = perform(piece, replace(sounds, share=0.0), 7, index, chain=False)
    assert isinstance(by_font.sources[0], FontSource)
    assert np.abs(by_font.samples - take.samples).max() > 0.01
    # Both have the level of the default data set.
    for samples in (take.samples, by_font.samples):
        assert samples.shape == (441000,)
        level_db = 20 * np.log10(np.sqrt(np.mean(samples.astype(float) ** 2)) / CLIP_RMS)
        assert abs(level_db) < 2.1


def test_recordings_are_left_out(tmp_path, font):
    table = flutes(tmp_path)
    sounds = load_sounds([default_sound_font()], table, ("one", "three"), share=1.0)
    piece, index = solo()
    names = set()
    for seed in range(8):
        (source,) = perform(piece, sounds, seed, index, chain=False).sources
        names.add(source.recorded.recording)
    assert names == {"two"}


def test_curves_reach_both_kinds_of_sources(tmp_path, font):
    """A part that falls silent by its level is silent, whoever plays it."""
    piece, index = solo()
    (part,) = piece.composition.parts
    notes = tuple(Note(start, start + 0.9, 72, 90) for start in range(10))
    level = np.array([[4.9, 0.0], [5.0, -60.0]])
    quiet = replace(
        piece,
        composition=replace(piece.composition, parts=(replace(part, notes=notes),)),
        expressions=(Expression(notes, level_db=level),),
    )
    recordings = load_recordings(flutes(tmp_path))
    for share in (0.0, 1.0):
        samples = perform(quiet, Sounds(font, recordings, share), 7, index, chain=False).samples
        first, second = samples[44100 : 4 * 44100], samples[6 * 44100 : 9 * 44100]
        assert np.abs(first).max() > 30 * np.abs(second).max()


def test_chain_is_drawn_for_each_clip(font):
    piece, index = solo()
    takes = [perform(piece, Sounds(font), seed, index) for seed in range(4)]
    chains = {take.chain.to_json() for take in takes}
    assert len(chains) > 1
    for take in takes:
        assert take.samples.shape == (441000,)
        assert np.isfinite(take.samples).all()


def test_banks_of_presets_reach_the_renderer(font, monkeypatch):
    banks = []
    monkeypatch.setattr(
        performance, "render_stem", lambda *_, bank, **options: banks.append(bank)
    )
    piece, _ = solo("ukulele")
    (part,), (expression,) = piece.composition.parts, piece.expressions
    kit = replace(part, casting=replace(part.casting, instrument=INSTRUMENTS["drums"]))
    for played, bank in ((part, 8), (part, 0), (kit, 128)):
        source = FontSource(font[0].font, bank, 24)
        performance._stem(random.Random(0), source, played, expression, 0.0)
    # Drum tracks choose the bank of kits by themselves.
    assert banks == [8, 0, 0]


def test_another_source_replaces_a_silent_preset(font, monkeypatch):
    piece, index = solo()
    silent = replace(font[0], font=replace(font[0].font, sha256="silent"))
    render = performance.render_stem

    def stem(part, kit, tuning, sound_font, **options):
        wave = render(part, kit, tuning, sound_font, **options)
        return wave * (sound_font.sha256 != "silent")

    monkeypatch.setattr(performance, "render_stem", stem)
    for seed in range(6):
        take = perform(piece, Sounds((silent, *font)), seed, index, chain=False)
        assert take.sources[0].font.sha256 != "silent"
    with pytest.raises(DatasetError, match="is silent with every source"):
        perform(piece, Sounds((silent,)), 0, index, chain=False)


def test_clean_guitars_play_distorted_parts_through_an_amplifier(tmp_path):
    table = write_table(
        tmp_path,
        [
            (
                {"class": "guitar", "midi_pitch": pitch, "instrument": "electric_guitar"},
                tone(pitch, 2.0),
            )
            for pitch in range(36, 97, 3)
        ],
    )
    sounds = Sounds((), load_recordings(table))
    piece, index = solo("guitar")
    (part,) = piece.composition.parts
    (expression,) = piece.expressions

    def overtones(program):
        casting = replace(part.casting, program=program)
        source = RecordingSource(
            sounds.recordings.groups("guitar")[0], amplified=program in (29, 30)
        )
        changed = replace(part, casting=casting)
        stem = performance._stem(random.Random(0), source, changed, expression, 0.0)
        power = np.abs(np.fft.rfft(stem)) ** 2
        hertz = np.fft.rfftfreq(len(stem), 1 / 48000)
        return power[hertz > 1500].sum() / power.sum()

    # The recorded tones are pure; only an amplifier adds overtones.
    assert overtones(30) > 20 * overtones(25)


def test_errors_of_sounds(tmp_path):
    with pytest.raises(ConfigError, match="needs a sound font"):
        load_sounds([])
    with pytest.raises(ConfigError, match=r"none can be left out\. Received: vsco2"):
        load_sounds([default_sound_font()], None, ("vsco2",))


def test_each_clip_has_a_chain_of_its_own(font):
    piece, _ = solo()
    chains = {repr(perform(piece, Sounds(font), 7, index).chain) for index in range(3)}
    assert len(chains) == 3


def test_recordings_follow_the_tuning_of_the_piece(tmp_path):
    piece, _ = solo()
    (part,) = piece.composition.parts
    source = RecordingSource(load_recordings(flutes(tmp_path)).groups("flute")[0])
    held = Expression((Note(0.0, 1.4, 72, 90),))
    peaks = []
    for tuning_cents in (0.0, 100.0):
        stem = performance._stem(random.Random(0), source, part, held, tuning_cents)
        peaks.append(np.abs(np.fft.rfft(stem)).argmax())
    assert 1200 * np.log2(peaks[1] / peaks[0]) == pytest.approx(100, abs=5)
