from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis.recordings import Credit, draw_instrument, load_recordings, weights
from tests.helpers.recorded_notes import tone, write_table

SHORT = tone(60, seconds=0.05)


def guitar(pitch=60, recording="a", **cells):
    return {"class": "guitar", "midi_pitch": pitch, "recording": recording, **cells}, SHORT


def test_notes_are_grouped_by_class_recording_and_instrument(tmp_path):
    table = write_table(
        tmp_path,
        [
            guitar(62, instrument="steel", peak_before=0.5),
            guitar(62, instrument="steel", peak_before=0.2),
            guitar(60, instrument="steel"),
            guitar(64, instrument="nylon"),
            guitar(60.5, "b"),
            guitar("", "c"),
        ],
    )
    recordings = load_recordings(table)
    groups = recordings.groups("guitar")
    assert recordings.classes == ("guitar",)
    assert recordings.names == ("a", "b")
    assert [(g.recording, g.instrument, list(g.places)) for g in groups] == [
        ("a", "nylon", [64]),
        ("a", "steel", [60, 62]),
        ("b", "guitar", [60.5]),
    ]
    assert [note.peak for note in groups[1].places[62]] == [0.2, 0.5]
    assert recordings.groups("piano") == ()


def test_recordings_count_equally(tmp_path):
    rows = [guitar(60 + n % 9, "large", instrument=f"guitar{n % 2}") for n in range(20)]
    groups = load_recordings(write_table(tmp_path, [*rows, guitar(60, "small")])).groups(
        "guitar"
    )
    assert weights(groups) == (0.25, 0.25, 0.5)
    rng = random.Random(0)
    drawn = Counter(draw_instrument(rng, groups).recording for _ in range(2000))
    assert 900 < drawn["small"] < 1100
    with pytest.raises(ConfigError, match="no recorded instrument"):
        draw_instrument(rng, ())


@pytest.mark.parametrize(
    ("class_name", "cells", "kind"),
    [
        ("drums", {"articulation": "kick"}, "kick"),
        ("drums", {"instrument": "bass_drum"}, "kick"),
        ("drums", {"instrument": "drum", "path": "kit-KdrumL__1.wav"}, "kick"),
        ("drums", {"instrument": "snare", "articulation": "rimshot"}, "stick"),
        ("drums", {"path": "drum_tom_hi_soft.wav"}, "high_tom"),
        ("drums", {"path": "drum_tom_mid_soft.wav"}, "low_tom"),
        ("drums", {"path": "floor-tom-3.wav"}, "floor_tom"),
        ("drums", {"path": "drum_roll.wav"}, None),
        ("cymbals", {"instrument": "cymbal", "path": "HihatOpen__2.wav"}, "open_hat"),
        ("cymbals", {"instrument": "cymbal", "path": "HihatClosed__2.wav"}, "closed_hat"),
        ("cymbals", {"path": "drum_cymbal_pedal.wav"}, "pedal_hat"),
        ("cymbals", {"path": "RideLBell__2.wav"}, "bell"),
        ("cymbals", {"path": "cym1.wav"}, "crash"),
        ("cymbals", {"path": "bowed_cymbal_1.wav"}, None),
    ],
)
def test_kinds_of_hits(tmp_path, class_name, cells, kind):
    table = write_table(tmp_path, [({"class": class_name, **cells}, SHORT), guitar()])
    groups = load_recordings(table).groups(class_name)
    assert [list(group.places) for group in groups] == ([[kind]] if kind else [])


@pytest.mark.parametrize(
    ("class_name", "cells", "family"),
    [
        ("bass", {"instrument": "double_bass_arco"}, "sustained"),
        ("bass", {"instrument": "electric_bass"}, "plucked"),
        ("violin", {"instrument": "violin", "articulation": "pizzicato"}, "plucked"),
        ("violin", {}, "sustained"),
        ("organ", {"instrument": "pipe_organ_horn"}, "keys"),
        ("other", {"instrument": "harp"}, "plucked"),
        ("other", {"instrument": "harmonium"}, "keys"),
        ("other", {"instrument": "electric_piano"}, "struck"),
        ("other", {"instrument": "koto"}, "plucked"),
    ],
)
def test_families(tmp_path, class_name, cells, family):
    row = {"class": class_name, "midi_pitch": 60, **cells}
    (group,) = load_recordings(write_table(tmp_path, [(row, SHORT)])).groups(class_name)
    assert group.notes[0].family == family


def test_recordings_are_left_out(tmp_path):
    table = write_table(tmp_path, [guitar(60, "a"), guitar(60, "b"), guitar(60, "c")])
    assert load_recordings(table, leave_out=["b"]).names == ("a", "c")
    with pytest.raises(ConfigError, match=r"'bb'.* Did you mean 'b'\? Allowed: a, b, c\."):
        load_recordings(table, leave_out=["bb"])
    with pytest.raises(DatasetError, match="no note that can be played.* left out: a, b, c"):
        load_recordings(table, leave_out=["c", "b", "a"])


def test_credits(tmp_path):
    by = {"licence": "CC-BY-4.0", "source": "Trio", "repository": "trio/notes"}
    free = {"licence": "CC0-1.0"}
    rows = [guitar(60, "a", **by), guitar(62, "a", **by), guitar(60, "b", **free)]
    rows.append(({"class": "piano", "midi_pitch": 60, "recording": "b", **free}, SHORT))
    recordings = load_recordings(write_table(tmp_path, rows))
    assert recordings.credits() == (
        Credit("a", "Trio", "CC-BY-4.0", "trio/notes", ("guitar",), 2),
        Credit("b", "", "CC0-1.0", "", ("guitar", "piano"), 2),
    )
    assert [credit.recording for credit in recordings.credits({"piano"})] == ["b"]
    left = load_recordings(recordings.table, leave_out={"a"})
    assert [credit.licence for credit in left.credits()] == ["CC0-1.0"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\n", "needs the columns path, class, recording. Missing: recording"),
        ("path,class,recording\n,guitar,a\n", "row 2, column path: a value is required"),
        ("path,class,recording\nx.wav,guitar\n", "row 2, column recording: a value"),
        (
            "path,class,recording\n0.wav,guitar,a\n0.wav,gitar,a\n",
            r"row 3, column class: Unknown class 'gitar'\. Did you mean 'guitar'\? All",
        ),
        (
            "path,class,recording,midi_pitch\nx.wav,guitar,a,128\n",
            r"row 2, column midi_pitch: .*0 to 127.* Received: '128'",
        ),
        ("path,class,recording,midi_pitch\nx.wav,guitar,a,C4\n", "column midi_pitch.*'C4'"),
        ("path,class,recording,midi_pitch\nx.wav,guitar,a,nan\n", "column midi_pitch.*'nan'"),
        ("path,class,recording,peak_before\nx.wav,guitar,a,0\n", "column peak_before.*'0'"),
        (
            "path,class,recording\nx.wav,guitar,a\ny.wav,guitar,a\n",
            r"row 2, column path: .*x\.wav does not exist\. 2 files are missing.*relative",
        ),
        ('path,class,recording\n"x.wav,guitar,a\n', "row 2: unexpected end of data"),
        ("path,class,recording\n", "no note that can be played"),
    ],
)
def test_errors_name_the_cell(tmp_path, text, message):
    table = write_table(tmp_path, [])
    table.write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_recordings(table)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.csv, which does not exist"):
        load_recordings(tmp_path / "none.csv")


def test_an_unreadable_sound_is_named(tmp_path):
    table = write_table(tmp_path, [guitar(60), guitar(62)])
    (tmp_path / "001.wav").write_bytes(b"RIFF, but no audio")
    with pytest.raises(DatasetError, match=r"row 3, column path: .*001\.wav: .*delete the row"):
        load_recordings(table).check()


def test_pitches_are_estimated_where_an_instrument_has_none(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    chord = (tone(60) + tone(64) + tone(67)) / 3
    row = {"class": "ukulele", "recording": "a"}
    rows = [
        (row, tone(62.3, seconds=0.6)),
        (row, noise),
        (row, chord),
        (row, tone(40, seconds=0.6)),  # below the register
        ({**row, "recording": "b", "midi_pitch": 70}, tone(70)),
        ({**row, "recording": "b"}, tone(74)),  # a noise beside notes with pitches
        ({"class": "other", "recording": "c"}, tone(60)),
    ]
    table = write_table(tmp_path, rows)
    assert load_recordings(table).names == ("b",)
    found = load_recordings(table, estimate_pitches=True)
    assert found.names == ("a", "b")
    (pitch,) = found.groups("ukulele")[0].places
    assert pitch == pytest.approx(62.3, abs=0.03)
    assert list(found.groups("ukulele")[1].places) == [70]


def test_real_table(shared_folder):
    table = shared_folder / "recordings" / "notes.csv"
    if not table.is_file():
        pytest.skip(f"this test needs {table}")
    recordings = load_recordings(table)
    # The accordion and the synthesizers have no pitches in the table.
    assert len(recordings.classes) == 18
    assert len(recordings.groups("piano")) == 9
    kits = {kit.recording: set(kit.places) for kit in recordings.groups("drums")}
    assert {"kick", "snare", "high_tom", "low_tom", "floor_tom"} <= kits["muldjordkit"]
    assert sum(credit.notes for credit in recordings.credits()) > 2500
    assert all(credit.licence for credit in recordings.credits())
