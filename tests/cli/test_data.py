"""`rfkeras data check`: its counts, its findings and its exit status."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import soundfile

from rfkeras.audio.io import AudioFormat
from rfkeras.cli import main
from rfkeras.datasets.checks import check_dataset
from rfkeras.datasets.load import load_dataset
from rfkeras.datasets.pack import pack
from rfkeras.synthesis import ensemble_clips
from rfkeras.synthesis.render import default_sound_font
from tests.helpers.layouts import (
    TRACKS,
    write_dcase,
    write_gtzan,
    write_jamendo,
    write_jamendo_audio,
    write_magnatagatune,
)
from tests.helpers.processes import run


def check(dataset, folder, *flags):
    """Run the command; return status, output with single blanks, and errors."""
    status, out, err = run(
        *("-m", "rfkeras.cli", "data", "check", "--dataset", dataset, "--data-dir", folder),
        *flags,
    )
    return status, re.sub(r" +", " ", out), err


def test_a_data_set_without_problems_has_status_0(tone_folder, tmp_path):
    status, out, err = check(
        "folder", tone_folder, "--json", tmp_path / "c.json", "--bad-files", tmp_path / "b.csv"
    )
    assert status == 0, err
    assert "No problems found.\n" in out
    assert re.search(r"^train 52 0 0 0\.01 1\.0 s 1\.0 s 1\.0 s 22050 1\b", out, re.M)
    assert (tmp_path / "b.csv").read_text() == "path,reason,stage\n"
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["ok"]
    assert content["differences"] == []
    assert content["overlaps"] == {"key": {}}
    train = content["splits"]["train"]
    assert train["clips"] == 52
    assert train["audio"]["seconds"] == [1.0, 1.0, 1.0]
    assert train["audio"]["sample_rates_hz"] == {"22050": 52}
    assert train["audio"]["hours"] == pytest.approx(52 / 3600)
    dataset = load_dataset("folder", data_dir=tone_folder)
    for column, tag in enumerate(dataset.label_names):
        positive = int(dataset.splits["train"].labels[:, column].sum())
        expected = {"positive": positive, "known": 52, "share": positive / 52}
        assert train["labels"][tag] == pytest.approx(expected)
        assert f"{tag} {positive}/52 {positive / 52:.2%}" in out


def test_custom_data_is_checked_with_the_options_of_a_run(tone_folder, tmp_path, capsys):
    rows = [f"{path},low" for path in sorted((tone_folder / "low").glob("*.wav"))]
    (tmp_path / "clips.csv").write_text("\n".join(["path,labels", *rows]))
    flags = ["data", "check", "--dataset", "folder", "--no-audio"]
    flags += ["--data-dir", str(tmp_path / "clips.csv")]
    assert main.run(flags) == 1
    assert "add --allow-absolute" in capsys.readouterr().err
    shares = ["--test-share", "0.25", "--validation-share", "0.5"]
    report = tmp_path / "check.json"
    assert main.run([*flags, "--allow-absolute", *shares, "--json", str(report)]) == 0
    splits = json.loads(report.read_text())["splits"]
    clips = {name: split["clips"] for name, split in splits.items()}
    assert clips == {"train": 9, "validation": 9, "test": 6}


def test_broken_missing_and_duplicated_clips_are_all_reported(tmp_path):
    tracks = {**TRACKS, "validation": {403: (1, 0.4, "mood/theme---dark")}}
    write_jamendo(tmp_path, tracks=tracks)
    write_jamendo_audio(tmp_path / "disk", tracks)
    (tmp_path / "disk/00/100.mp3").unlink()
    (tmp_path / "disk/02/302.mp3").write_bytes(b"noise" * 99)
    report = tmp_path / "out" / "bad.csv"
    status, out, err = check(
        *("mtg_jamendo", tmp_path, "--audio-dir", tmp_path / "disk", "--bad-files", report),
        *("--json", tmp_path / "c.json", "--subset", "moodtheme", "--fold", "0"),
    )
    assert status == 1
    assert "Traceback" not in err
    assert f"train: {tmp_path}/disk/00/100.mp3: missing file or broken link" in out
    assert "Unusable files: 2 (1 missing file or broken link, 1 undecodable)" in out
    assert "Get them from: https://github.com/MTG/mtg-jamendo-dataset" in out
    assert "3 training clips; the published data set has 9,949" in out
    assert "1 artist is in both train and validation: artist_000001" in out
    assert "No problems found" not in out
    with report.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"][-10:] for row in rows] == ["00/100.mp3", "02/302.mp3"]
    assert {row["stage"] for row in rows} == {"train"}
    content = json.loads((tmp_path / "c.json").read_text())
    assert not content["ok"]
    assert content["overlaps"]["artist"] == {"train, validation": ["artist_000001"]}
    assert content["published"]["test"] == {"found": 2, "published": 4231}
    assert content["splits"]["train"]["audio"]["files"] == 1
    assert content["splits"]["test"]["labels"]["dark"]["share"] == 0.5


def test_ten_of_many_missing_files_are_shown(tmp_path):
    write_dcase(tmp_path, "2020-1b", locations=5)
    status, out, _ = check("dcase", tmp_path, "--bad-files", tmp_path / "bad.csv")
    assert status == 1
    assert len(re.findall(r": missing file or broken link$", out, re.M)) == 10
    assert "... and 35 more files" in out
    assert len((tmp_path / "bad.csv").read_text().splitlines()) == 46


def test_only_metadata_is_checked_with_no_audio(tmp_path, shared_folder):
    for dataset, folder in (
        ("gtzan", write_gtzan(tmp_path / "genres").parent),
        ("mtg_jamendo", shared_folder / "datasets" / "mtg_jamendo"),
    ):
        status, out, err = check(dataset, folder, "--no-audio")
        assert status == 0, err
        assert "No problems found, audio not checked." in out
        assert "test: 290 clips, as published" in out or "test: 4,231 clips, as pub" in out
    assert "action 296/9,949 2.98% 55/3,802 1.45% 56/4,231 1.32%" in out


def test_other_sources_and_their_options(tmp_path):
    write_magnatagatune(tmp_path / "mtat")
    status, out, _ = check("magnatagatune", tmp_path / "mtat", "--no-audio", "--subset", "all")
    assert status == 1  # seven clips are not what was published
    assert "other 7 1/3 33.33% 0/1 0.00% 0/2 0.00%" in out
    status, out, err = check("gtzan", tmp_path, "--subset", "x")
    assert (status, out) == (1, "")
    assert (
        "'gtzan' does not accept --subset. Data sets that do: dcase, magnatagatune, mtg_jamendo"
        in err
    )
    status, _, err = check("gtzan", tmp_path)
    assert status == 1
    assert "has no folders blues" in err


def test_a_damaged_shard_of_a_packed_data_set(tone_folder, tmp_path):
    dataset = load_dataset("folder", data_dir=tone_folder)
    pack(dataset, AudioFormat(22050), tmp_path / "shards", progress=False)
    packed = load_dataset("packed", data_dir=tmp_path / "shards")
    found = check_dataset(packed, progress=False)
    assert found.ok
    assert found.splits["test"].audio.seconds == (1.0, 1.0, 1.0)
    shard = next((tmp_path / "shards").glob("test-*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.write_bytes(data)
    found = check_dataset(packed, progress=False)
    assert [file.path for file in found.bad] == [str(shard)]
    assert not found.ok


def test_rates_channels_and_unknown_labels_are_counted(tone_folder, tmp_path):
    shutil.copytree(tone_folder / "low", tmp_path / "low")
    stereo = np.zeros((4000, 2), np.float32)
    soundfile.write(tmp_path / "low" / "00.wav", stereo, 8000)
    rows = [
        f"low/{n:02d}.wav,{'deep' if n % 2 else ''},train,{'' if n else 'deep'}"
        for n in range(6)
    ]
    path = tmp_path / "clips.csv"
    path.write_text(
        "path,labels,split,unknown\n" + "\n".join(rows) + "\nlow/07.wav,deep,test,\n"
    )
    dataset = load_dataset("folder", data_dir=path, validation_share=0.2)
    split = {**check_dataset(dataset, progress=False).splits}
    assert sorted(split) == ["test", "train", "validation"]
    both = [split["train"], split["validation"]]
    assert sum(part.labels["deep"].known for part in both) == 5
    assert sum(part.labels["deep"].positive for part in both) == 3
    assert sum(part.without_tag for part in both) == 3
    channels, rates = {}, {}
    for part in both:
        for total, counts in (
            (channels, part.audio.channels),
            (rates, part.audio.sample_rates_hz),
        ):
            for value, count in counts.items():
                total[value] = total.get(value, 0) + count
    assert (channels, rates) == ({1: 5, 2: 1}, {22050: 5, 8000: 1})
    assert min(part.audio.seconds[0] for part in both) == 0.5


def test_what_is_left_out_or_looks_wrong_is_noted_and_copies_fail_the_check(
    tone_folder, tmp_path
):
    folder = tmp_path / "tones"
    for split, numbers in (("train", range(8)), ("test", range(8, 12))):
        for name in ("low", "Low"):
            (folder / split / name).mkdir(parents=True)
            source = tone_folder / ("low" if name == "low" else "high")
            for number in numbers:
                shutil.copy(source / f"{number:02d}.wav", folder / split / name)
    (folder / "train" / "low" / ".ipynb_checkpoints").mkdir()
    (folder / "docs").mkdir()
    (folder / "docs" / "song.mid").touch()
    status, out, err = check("folder", folder, "--json", tmp_path / "c.json")
    assert status == 0, out + err
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["ok"]
    kinds = [
        "left out 1 file in an audio format that cannot be decoded: ",
        "left out 1 hidden file or folder: ",
        "left out 1 folder without audio: docs",
        "tags that differ only in case or spaces: 'Low' and 'low'",
    ]
    for note, kind in zip(content["notes"], kinds, strict=True):
        assert note.startswith(kind)
        assert out.count(f"Note: {kind}") == 1
    assert "No problems found." in out
    shutil.copy(folder / "train" / "low" / "00.wav", folder / "test" / "low" / "copy.wav")
    status, out, _ = check("folder", folder)
    assert status == 1
    assert re.search(r"Mismatch: 1 file of \w+ and test has the same content as another", out)


def test_flags_of_compose_are_settings(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(
        ensemble_clips,
        "compose_clips",
        lambda out, clips, settings, **options: calls.append((clips, settings, options)) or out,
    )
    soundfile.write(tmp_path / "speech.wav", np.zeros(100), 16000)
    table = tmp_path / "notes.csv"
    flags = (
        f"--sound-font TimGM6mb --recordings {table} --leave-out a --leave-out b --parts 2-3"
    )
    flags += f" --negatives {tmp_path} --negative-rate 0.5 --recording-share 1 --feature piano"
    flags += " --no-chain --seed 7 --test-share 0.3 --workers 2"
    assert (
        main.run(["data", "compose", str(tmp_path / "out"), "--clips", "9", *flags.split()])
        == 0
    )
    assert main.run(["data", "compose", str(tmp_path / "out"), "--clips", "5"]) == 0
    font = str(default_sound_font())
    assert calls == [
        (
            9,
            ensemble_clips.Settings(
                fonts=(font,),
                recordings=str(table),
                leave_out=("a", "b"),
                recording_share=1.0,
                negatives=(str(tmp_path / "speech.wav"),),
                negative_rate=0.5,
                parts=(2, 3),
                featured=("piano",),
                chain=False,
                seed=7,
            ),
            {"test_share": 0.3, "workers": 2},
        ),
        (5, ensemble_clips.Settings(fonts=(font,)), {"test_share": 0.1, "workers": None}),
    ]
    assert str(tmp_path / "out") in capsys.readouterr().out
    assert main.run(["data", "compose", "x", "--clips", "5", "--negative-rate", "2"]) == 1
    assert "--negative-rate must be a number from 0 to 1" in capsys.readouterr().err
