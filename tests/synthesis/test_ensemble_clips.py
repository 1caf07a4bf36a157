from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rfkeras.datasets.load import load_dataset
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis import ensemble_clips
from rfkeras.synthesis.clip_files import audio_path
from rfkeras.synthesis.ensemble_clips import (
    Settings,
    clip_labels,
    clip_recorder,
    compose_clips,
    ensemble_maker,
    find_negatives,
    parse_parts,
)
from rfkeras.synthesis.mapping import CLASSES
from rfkeras.synthesis.render import default_sound_font

SETTINGS = Settings(fonts=(str(default_sound_font()),), parts=(1, 2), negative_rate=0.3, seed=4)


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("composed") / "set"
    return compose_clips(folder, 6, SETTINGS, test_share=0.34, workers=2, progress=False)


def test_folder_loads_as_openmic(composed):
    dataset = load_dataset("openmic", data_dir=composed, validation_share=0.25)
    assert dataset.name == "composed"
    assert dataset.label_names == CLASSES
    assert [len(dataset.splits[name]) for name in ("train", "validation", "test")] == [3, 1, 2]
    keys = (composed / "partitions/split01_train.csv").read_text().split()
    assert keys == ["000000_4", "000001_4", "000002_4", "000003_4"]
    with np.load(composed / "openmic-2018.npz") as archive:
        for number, key in enumerate(keys):
            labels, mask = clip_labels(SETTINGS, number)
            assert archive["sample_key"][number] == key
            np.testing.assert_array_equal(archive["Y_mask"][number], mask)
            known = np.asarray(mask)
            np.testing.assert_array_equal(
                archive["Y_true"][number][known], np.asarray(labels)[known]
            )


def test_clips_without_instruments_have_no_label(composed):
    labels = [clip_labels(SETTINGS, index) for index in range(200)]
    empty = [index for index, (row, mask) in enumerate(labels) if not any(row) and all(mask)]
    assert 35 <= len(empty) <= 85
    none = replace(SETTINGS, negative_rate=0.0)
    assert any(any(clip_labels(none, index)[0]) for index in empty)


def test_clips_are_a_function_of_settings_and_number(composed):
    make = ensemble_maker(json.loads(json.dumps(SETTINGS.__dict__)))
    for index in (0, 3):
        assert make(index) == (composed / audio_path(f"{index:06d}_4")).read_bytes()
    assert ensemble_maker({**SETTINGS.__dict__, "chain": False})(0) != make(0)


def test_a_set_grows_and_mends(composed, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(composed, folder)
    broken = folder / audio_path("000001_4")
    before = {path.name: path.read_bytes() for path in folder.rglob("*.ogg")}
    broken.write_bytes(b"damaged")
    kept = folder / audio_path("000002_4")
    changed = kept.stat().st_mtime_ns
    compose_clips(folder, 8, SETTINGS, test_share=0.25, workers=1, progress=False)
    after = {path.name: path.read_bytes() for path in folder.rglob("*.ogg")}
    assert len(after) == 8
    assert {name: after[name] for name in before} == before
    assert kept.stat().st_mtime_ns == changed
    assert len((folder / "partitions/split01_train.csv").read_text().split()) == 6


def test_other_settings_need_another_folder(composed, tmp_path):
    with pytest.raises(ConfigError, match="made with other settings: parts, seed"):
        compose_clips(composed, 6, replace(SETTINGS, seed=5, parts=(1, 3)), progress=False)
    (tmp_path / "openmic-2018.npz").touch()
    with pytest.raises(ConfigError, match="contains another data set"):
        compose_clips(tmp_path, 6, SETTINGS, progress=False)


def test_a_failed_first_call_can_be_mended(tmp_path):
    bad, good = tmp_path / "bad.wav", tmp_path / "good.wav"
    bad.write_text("no sound")
    soundfile.write(good, np.full(44100, 0.1), 44100)
    # So many paths are too long for an argument of a process.
    settings = replace(SETTINGS, negatives=(str(bad),) * 3000, negative_rate=1.0)
    folder = tmp_path / "set"
    with pytest.raises(DatasetError, match=r"[a-z]\. Finished clips are kept"):
        compose_clips(folder, 40, settings, workers=1, progress=False)
    (folder / "clips.sha256").unlink(missing_ok=True)
    compose_clips(folder, 2, SETTINGS, workers=1, progress=False)
    assert json.loads((folder / "composed.json").read_text())["negatives"] == []


def test_a_changed_sound_font_is_another_setting(composed, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(composed, folder)
    content = json.loads((folder / "composed.json").read_text())
    content["fonts"][0]["sha256"] = "0" * 64
    (folder / "composed.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="made with other settings: fonts"):
        compose_clips(folder, 6, SETTINGS, progress=False)


def test_clips_without_instruments_go_through_the_chain():
    settings = replace(SETTINGS, negative_rate=1.0)
    recorded, dry = clip_recorder(settings), clip_recorder(replace(settings, chain=False))
    assert any(not np.array_equal(recorded(index), dry(index)) for index in range(3))


def test_a_damaged_record_of_settings_is_an_error(composed, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(composed, folder)
    (folder / "composed.json").write_text("[]")
    with pytest.raises(ConfigError, match="made with other settings"):
        compose_clips(folder, 6, SETTINGS, progress=False)


def test_settings_name_sources_and_credits(composed, tmp_path):
    content = json.loads((composed / "composed.json").read_text())
    assert content["fonts"][0]["file"] == "TimGM6mb.sf2"
    assert len(content["fonts"][0]["sha256"]) == 64
    assert content["parts"] == [1, 2]
    assert str(default_sound_font().parent) not in json.dumps(content)


def test_files_without_instruments_take_part(tmp_path):
    soundfile.write(tmp_path / "speech.wav", np.full(44100, 0.1), 44100)
    files = find_negatives(tmp_path)
    assert files == (str(tmp_path / "speech.wav"),)
    settings = replace(SETTINGS, negatives=files, negative_rate=1.0, chain=False)
    make = ensemble_maker(settings.__dict__)
    without = ensemble_maker({**settings.__dict__, "negatives": ()})
    assert any(make(index) != without(index) for index in range(6))
    with pytest.raises(ConfigError, match="does not exist: .*missing"):
        find_negatives(tmp_path / "missing")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"parts": (0, 4)}, "range within 1 and 8"),
        ({"parts": (5, 4)}, "range within 1 and 8"),
        ({"featured": ("oboe",)}, "Unknown class 'oboe'"),
        ({"featured": ()}, "At least one class"),
        ({"negative_rate": 1.5}, "negative_rate must be within 0 and 1"),
        ({"recording_share": -0.1}, "recording_share must be within 0 and 1"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"leave_out": ("vsco2",)}, r"none can be left out\. Received: vsco2"),
    ],
)
def test_wrong_settings(options, match):
    with pytest.raises(ConfigError, match=match):
        replace(SETTINGS, **options)


def test_wrong_calls(tmp_path):
    for options in ({"clips": 1}, {"clips": 4, "test_share": 1.0}, {"clips": 4, "workers": 0}):
        with pytest.raises(ConfigError, match="2 to 500000 clips"):
            compose_clips(tmp_path, settings=SETTINGS, **options)
    with pytest.raises(ConfigError, match="needs a sound font"):
        compose_clips(tmp_path, 4, Settings())


def test_ranges_of_parts():
    assert parse_parts("1-8") == (1, 8)
    assert parse_parts("3") == (3, 3)
    with pytest.raises(ConfigError, match=r'range such as 1-8.*Received: "many"'):
        parse_parts("many")


def test_the_recorder_uses_the_sounds_of_the_settings(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(ensemble_clips, "load_sounds", lambda *call: calls.append(call))
    table = tmp_path / "notes.csv"
    clip_recorder(
        Settings(("a.sf2",), str(table), leave_out=("own",), recording_share=0.7, seed=1)
    )
    assert calls == [([Path("a.sf2")], table, ("own",), 0.7)]
