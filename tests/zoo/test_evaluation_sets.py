"""Sets of clips to evaluate weights on."""

import dataclasses
import io
import json
import struct
import zlib

import numpy as np
import pretty_midi
import pytest

from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis.mapping import CLASSES
from rfkeras.synthesis.render import default_sound_font
from tests.helpers.layouts import INSTRUMENTS, write_openmic
from zoo import evaluation_sets
from zoo.evaluation_sets import folder_set, gcompris_set, joined_sets, midi_set, read_resources


def resources(files, version=3):
    """Return a compiled Qt resource file with one folder "sounds".

    Args:
        files: Content by name; a tuple (content, flags) gives the flags.
        version: Version of the format; 1 has no times.
    """
    names, places, data, nodes = b"", {}, b"", []
    for name in ("sounds", *files):
        places[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    time = b"" if version == 1 else bytes(8)
    nodes.append(struct.pack(">IHII", 0, 2, 1, 1) + time)
    nodes.append(struct.pack(">IHII", places["sounds"], 2, len(files), 2) + time)
    for name, content in files.items():
        content, flags = content if isinstance(content, tuple) else (content, 0)
        nodes.append(struct.pack(">IHHHI", places[name], flags, 0, 0, len(data)) + time)
        data += struct.pack(">I", len(content)) + content
    tree = b"".join(nodes)
    header = struct.pack(">4s4I", b"qres", version, 24, 24 + len(tree), 24 + len(tree + data))
    return header + bytes(4) + tree + data + names


@pytest.mark.parametrize("version", [1, 3])
def test_resources_are_read(version):
    packed = struct.pack(">I", 5) + zlib.compress(b"hello")
    content = resources({"a.ogg": b"plain", "b.txt": (packed, 1)}, version)
    assert read_resources(content) == {"/sounds/a.ogg": b"plain", "/sounds/b.txt": b"hello"}


def test_other_resources_are_rejected(tmp_path):
    file = tmp_path / "x.rcc"
    for content, reason in (
        (b"RIFF", "does not begin with 'qres'"),
        (resources({"a": (b"", 4)}), "/sounds/a is compressed with zstd"),
        (resources({"a": b"long enough to be cut"})[:60], "x.rcc is not a Qt resource file"),
        (resources({"readme.ogg": b"", "piano.svg": b""}), "no recordings of instruments"),
    ):
        file.write_bytes(content)
        with pytest.raises(DatasetError, match=reason):
            gcompris_set(file, tmp_path)
    with pytest.raises(DatasetError, match="gcompris-qt-data"):
        gcompris_set(tmp_path / "missing.rcc", tmp_path)


def test_sounds_of_gcompris(tmp_path):
    file = tmp_path / "instruments.rcc"
    names = ("flute_traversiere", "harmonica", "drum_kit", "piano")
    file.write_bytes(resources({f"{name}.ogg": name.encode() for name in names}))
    found = gcompris_set(file, tmp_path)
    assert found.single
    assert found.clips.keys == ("drum_kit", "flute_traversiere", "harmonica", "piano")
    assert [path.read_bytes() for path in found.clips.paths] == [
        key.encode() for key in found.clips.keys
    ]
    tags = [[CLASSES[i] for i in np.flatnonzero(row)] for row in found.clips.labels]
    assert tags == [["drums"], ["flute"], [], ["piano"]]
    unknown = [[CLASSES[i] for i in np.flatnonzero(row == 0)] for row in found.clips.mask]
    assert unknown == [["cymbals"], [], ["accordion"], []]


def test_folders_and_their_splits(tmp_path):
    folder = write_openmic(tmp_path, train=6, test=3)
    found = folder_set(f"composed={folder}")
    assert (found.name, len(found.clips)) == ("composed", 3)
    assert found.label_names == tuple(INSTRUMENTS)
    assert found.clips.keys[0] == "000006_180"
    everything = folder_set(f"a={folder}:all")
    assert sorted(everything.clips.keys) == sorted(path.stem for path in folder.rglob("*.ogg"))
    assert everything.clips.labels.shape == (9, 20)
    rows = dict(zip(everything.clips.keys, everything.clips.labels, strict=True))
    np.testing.assert_array_equal(rows[found.clips.keys[0]], found.clips.labels[0])
    assert len(folder_set(f"a={folder}:train").clips) + 1 == 6  # one is held out
    limited = everything.limited(4)
    assert len(limited.clips) == 4
    assert limited.clips.keys[0] == everything.clips.keys[0]
    assert limited.clips.keys[-1] == everything.clips.keys[-1]
    assert everything.limited(20) is everything


def test_the_description_says_how_music_was_composed(tmp_path):
    folder = write_openmic(tmp_path, train=6, test=3)
    assert folder_set(f"a={folder}").description == f"{folder.name}, test split."
    content = {
        "parts": [1, 8],
        "seed": 3,
        "fonts": [{"file": "A.sf2"}, {"file": "B.sf2"}],
        "recordings": {"file": "notes.csv"},
        "leave_out": ["flute-a", "kit-b"],
    }
    (folder / "composed.json").write_text(json.dumps(content))
    assert folder_set(f"a={folder}:all").description == (
        f"{folder.name}, all clips: music of 1 to 8 parts, seed 3, played with A.sf2 and B.sf2 "
        "and notes.csv without flute-a, kit-b."
    )
    content |= {"parts": [1, 1], "leave_out": [str(n) for n in range(9)]}
    (folder / "composed.json").write_text(json.dumps(content))
    assert folder_set(f"a={folder}:all").description.endswith(
        "music of 1 part, seed 3, played with A.sf2 and B.sf2 and notes.csv without 9 of its "
        "recordings."
    )


def test_sets_are_joined(tmp_path):
    folder = write_openmic(tmp_path, train=6, test=3)
    one, other = folder_set(f"a={folder}:test"), folder_set(f"b={folder}:train")
    both = joined_sets([one, other])
    assert both.name == "a and b"
    assert both.clips.keys == one.clips.keys + other.clips.keys
    np.testing.assert_array_equal(both.clips.labels[3:], other.clips.labels)
    np.testing.assert_array_equal(both.clips.mask[:3], one.clips.mask)
    renamed = dataclasses.replace(other, label_names=other.label_names[::-1])
    with pytest.raises(ConfigError, match="a and b have different classes: accordion, banjo"):
        joined_sets([one, renamed])


@pytest.mark.parametrize("text", ["folder", "=folder", "name="])
def test_a_set_has_a_name_and_a_folder(text):
    with pytest.raises(ConfigError, match="NAME=DIR"):
        folder_set(text)


def test_an_unknown_split_is_named(tmp_path):
    with pytest.raises(ConfigError, match="tset"):
        folder_set(f"a={tmp_path}:tset")


def test_midi_is_rendered_once(tmp_path, monkeypatch):
    song = pretty_midi.PrettyMIDI()
    piano = pretty_midi.Instrument(0)
    piano.notes = [pretty_midi.Note(100, 60, t, t + 0.4) for t in np.arange(0, 21, 0.5)]
    song.instruments.append(piano)
    buffer = io.BytesIO()
    song.write(buffer)
    (tmp_path / "song.mid").write_bytes(buffer.getvalue())
    cache = tmp_path / "cache"

    def opened(excerpts=2):
        font = default_sound_font()
        return midi_set([tmp_path], font, cache, excerpts=excerpts, quiet=True)

    found = opened()
    assert found.clips.keys == ("song-0s", "song-11s")
    assert found.clips.labels.sum() == 2
    assert found.clips.labels[:, CLASSES.index("piano")].tolist() == [1.0, 1.0]
    assert all(path.is_file() for path in found.clips.paths)

    def fails(*_):
        raise AssertionError("rendered again")

    with monkeypatch.context() as patch:
        patch.setattr(evaluation_sets, "render_excerpts", fails)
        np.testing.assert_array_equal(opened().clips.labels, found.clips.labels)
        with pytest.raises(AssertionError, match="rendered again"):
            opened(excerpts=1)  # another set
