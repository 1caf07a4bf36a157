"""Labelled excerpts of MIDI files."""

import io
import struct
from pathlib import Path

import numpy as np
import pretty_midi
import pytest

from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis.mapping import CLASSES
from rfkeras.synthesis.render import (
    CLIP_RMS,
    RENDER_RATE_HZ,
    default_sound_font,
    load_sound_font,
)
from rfkeras.synthesis.song import Note
from zoo.midi_bands import Song, Sound, find_songs, label_excerpt, render_excerpts, sound_of


def midi(*parts, seconds=24.0, every=0.5):
    """Return a MIDI file; a part is (program or "drums", pitch, velocity, first second)."""
    song = pretty_midi.PrettyMIDI()
    for program, pitch, velocity, start in parts:
        drums = program == "drums"
        track = pretty_midi.Instrument(0 if drums else program, is_drum=drums)
        for time in np.arange(start, seconds, every):
            track.notes.append(pretty_midi.Note(velocity, pitch, time, time + 0.9 * every))
        song.instruments.append(track)
    buffer = io.BytesIO()
    song.write(buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def font():
    return load_sound_font(default_sound_font())


def named(flags):
    return {name for name, flag in zip(CLASSES, flags, strict=True) if flag}


def unknown(mask):
    return {name for name, known in zip(CLASSES, mask, strict=True) if not known}


def test_labels_follow_programs_notes_and_levels(font):
    song = Song(
        "band",
        midi(
            (0, 60, 100, 0.0),  # piano throughout
            (73, 72, 100, 12.0),  # a flute in the second half only
            (40, 67, 3, 0.0),  # a violin far below the piano
            (41, 55, 90, 12.0),  # a viola, which has no class but resembles violin and cello
            ("drums", 38, 100, 12.0),
            ("drums", 54, 100, 0.0),  # a tambourine could count as drums or cymbals
        ),
    )
    first, second = render_excerpts(song, font)
    assert (first.start, second.start) == (
        pytest.approx(1.0, abs=0.1),
        pytest.approx(13, abs=0.1),
    )
    assert named(first.labels) == {"piano"}
    assert unknown(first.mask) == {"violin", "drums", "cymbals"}
    assert named(second.labels) == {"piano", "flute", "drums"}
    assert unknown(second.mask) == {"violin", "cello", "cymbals"}
    for excerpt in (first, second):
        assert excerpt.samples.shape == (441000,)
        assert np.sqrt(np.mean(excerpt.samples**2)) == pytest.approx(CLIP_RMS, rel=0.01)


def test_an_excerpt_contains_what_its_label_says(font):
    # The flute at 1,760 Hz only sounds in the second excerpt.
    song = Song("two", midi((32, 36, 100, 0.0), (73, 93, 100, 12.0)))
    powers = []
    for excerpt in render_excerpts(song, font):
        spectrum = np.abs(np.fft.rfft(excerpt.samples)) ** 2
        powers.append(spectrum[17400:17800].sum() / spectrum.sum())  # 1740 to 1780 Hz
    assert powers[0] < 1e-4
    assert powers[1] > 0.01


def test_a_song_without_sound_gives_no_excerpts(font):
    assert list(render_excerpts(Song("empty", midi()), font)) == []
    short = Song("short", midi((0, 60, 100, 0.0), seconds=8.0))
    assert list(render_excerpts(short, font)) == []


def test_a_drowned_part_is_unknown():
    time = np.arange(10 * RENDER_RATE_HZ) / RENDER_RATE_HZ
    notes = [Note(t, t + 0.5, 60, 0) for t in np.arange(0, 10, 0.5)]
    tone = np.sin(2 * np.pi * 997 * time)
    for level, known in ((-11.0, True), (-14.0, False)):
        waves = {Sound("piano"): tone, Sound("flute"): tone * 10 ** (level / 20)}
        mixed = np.sqrt(tone**2 * (1 + 10 ** (level / 10)))  # as if they were not correlated
        played = dict.fromkeys(waves, notes)
        labels, mask = label_excerpt(played, waves, np.sign(tone) * mixed)
        assert named(labels) == ({"piano", "flute"} if known else {"piano"})
        assert unknown(mask) == (set() if known else {"flute"})


def test_a_part_with_few_notes_is_unknown():
    time = np.arange(10 * RENDER_RATE_HZ) / RENDER_RATE_HZ
    tone = np.sin(2 * np.pi * 997 * time)
    many = [Note(t, t + 0.5, 60, 0) for t in np.arange(0, 10, 0.5)]
    for notes, is_known in ((many, True), (many[:2], False), ([], True)):
        waves = {Sound("piano"): tone, Sound("flute"): tone}
        played = {Sound("piano"): many, Sound("flute"): notes}
        labels, mask = label_excerpt(played, waves, 2 * tone)
        assert ("flute" in named(labels)) == (len(notes) > 2)
        assert unknown(mask) == (set() if is_known else {"flute"})


@pytest.mark.parametrize(
    ("program", "sound"),
    [
        (0, Sound("piano")),
        (24, Sound("guitar", ("ukulele",))),
        (25, Sound("guitar", ("mandolin",))),
        (30, Sound("guitar")),
        (41, Sound("program 41", ("violin", "cello"))),
        (48, Sound("program 48", ("violin", "cello", "synthesizer"))),
        (125, Sound("program 125")),
    ],
)
def test_programs(program, sound):
    assert sound_of(program) == sound


def test_every_program_has_a_sound():
    for program in range(128):
        sound = sound_of(program)
        assert set(sound.doubtful) <= set(CLASSES)


def test_songs_are_found_once(tmp_path):
    one, other = midi((0, 60, 100, 0.0)), midi((0, 61, 100, 0.0))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.mid").write_bytes(one)
    (tmp_path / "again.MIDI").write_bytes(one)
    lumps = [(b"NOISE", b"1234"), (b"D_E1M1", other), (b"D_E1M2", one)]
    body, directory, place = b"", b"", 12
    for name, content in lumps:
        directory += struct.pack("<ii8s", place, len(content), name)
        body, place = body + content, place + len(content)
    (tmp_path / "game.wad").write_bytes(
        struct.pack("<4sii", b"IWAD", 3, place) + body + directory
    )
    songs = find_songs([tmp_path])
    assert [song.name for song in songs] == ["again", "game-D_E1M1"]
    assert [song.content for song in songs] == [one, other]


def test_what_is_not_midi_is_named(tmp_path, font):
    with pytest.raises(ConfigError, match="no file or folder"):
        find_songs([tmp_path / "missing"])
    with pytest.raises(ConfigError, match="no MIDI files"):
        find_songs([tmp_path])
    with pytest.raises(DatasetError, match="song is not a MIDI file"):
        list(render_excerpts(Song("song", b"text"), font))
    broken = Path(tmp_path / "x.wad")
    broken.write_bytes(b"IWAD" + struct.pack("<ii", 5, 4000))
    with pytest.raises(DatasetError, match="x.wad is not a WAD archive"):
        find_songs([broken])
