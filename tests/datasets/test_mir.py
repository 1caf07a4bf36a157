"""Data sets of mirdata and soundata opened by short mappings."""

import importlib
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from rfkeras.cli import main
from rfkeras.datasets import mir
from rfkeras.datasets.checks import check_dataset
from rfkeras.datasets.download import download
from rfkeras.datasets.load import load_dataset
from rfkeras.datasets.mir import MAPPINGS, READERS, TagMapping
from rfkeras.errors import ConfigError, DatasetError
from tests.helpers.mir_layouts import (
    MEDLEY,
    md5,
    publish,
    publish_esc50,
    publish_irmas,
    publish_medley,
    publish_urbansound8k,
    tone,
    zipped,
)
from tests.helpers.processes import run

pytestmark = pytest.mark.usefixtures("mir_packages")


def fetch(name, folder):
    download(name, folder, confirm=lambda plan: True)
    return folder


def tags_of(dataset, split):
    """Return the tags of each clip by key."""
    names = np.array(dataset.label_names)
    clips = dataset.splits[split]
    return {k: set(names[row == 1]) for k, row in zip(clips.keys, clips.labels, strict=True)}


def test_medley_solos_db_has_its_own_splits(monkeypatch, http, tmp_path):
    rows = publish_medley(monkeypatch, http)
    dataset = load_dataset(MEDLEY, data_dir=fetch(MEDLEY, tmp_path))
    assert (dataset.task, dataset.label_names) == ("single_label", ("clarinet", "violin"))
    for split, subset in (
        ("train", "training"),
        ("validation", "validation"),
        ("test", "test"),
    ):
        expected = {key: {tag} for key, its, tag, _ in rows if its == subset}
        assert tags_of(dataset, split) == expected
        songs = [f"recording {song}" for _, its, _, song in rows if its == subset]
        assert list(dataset.splits[split].groups) == songs
        assert all(path.is_file() for path in dataset.splits[split].paths)
    assert check_dataset(dataset).ok


def test_irmas_has_several_instruments_and_holds_out_recordings(monkeypatch, http, tmp_path):
    publish_irmas(monkeypatch, http)
    dataset = load_dataset(
        "mirdata:irmas", data_dir=fetch("mirdata:irmas", tmp_path), validation_share=0.3
    )
    assert dataset.task == "multi_label"
    assert dataset.label_names == ("acoustic guitar", "cello", "voice")
    both = {"cello", "voice"}
    expected = {str(n): both if n % 2 else {"acoustic guitar"} for n in range(6)}
    assert tags_of(dataset, "test") == expected
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    assert (len(train), len(validation)) == (8, 4)
    recordings = [{key.partition("__")[0] for key in s.keys} for s in (train, validation)]
    assert not recordings[0] & recordings[1]
    tags = ["cello", "acoustic guitar", "voice"]
    expected = {f"{n // 2:04d}__{n % 2 + 1}": {tags[n // 4]} for n in range(12)}
    assert tags_of(dataset, "train") | tags_of(dataset, "validation") == expected
    again = load_dataset("mirdata:irmas", data_dir=tmp_path, validation_share=0.3)
    assert again.splits["validation"].keys == validation.keys
    assert check_dataset(dataset).ok


@pytest.mark.parametrize(
    ("fold", "validation", "test"), [(None, "2", "1"), (4, "5", "4"), (5, "1", "5")]
)
def test_esc50_is_split_by_fold(monkeypatch, http, tmp_path, fold, validation, test):
    publish_esc50(monkeypatch, http)
    options = {} if fold is None else {"fold": fold}
    folder = fetch("soundata:esc50", tmp_path)
    dataset = load_dataset("soundata:esc50", data_dir=folder, **options)
    folds = {name: {k[0] for k in split.keys} for name, split in dataset.splits.items()}
    rest = set("12345") - {validation, test}
    assert folds == {"train": rest, "validation": {validation}, "test": {test}}
    names = ("dog", "rain", "clock_tick")
    for split in dataset.splits:
        assert all(
            tags == {names[int(key[-1])]} for key, tags in tags_of(dataset, split).items()
        )
    assert dataset.info["fold"] == int(test)
    assert check_dataset(dataset).ok


def test_a_fold_that_does_not_exist(monkeypatch, http, tmp_path):
    publish_urbansound8k(monkeypatch, http)
    folder = fetch("soundata:urbansound8k", tmp_path)
    dataset = load_dataset("soundata:urbansound8k", data_dir=folder, fold=10)
    assert {path.parent.name for path in dataset.splits["test"].paths} == {"fold10"}
    assert {path.parent.name for path in dataset.splits["validation"].paths} == {"fold1"}
    with pytest.raises(ConfigError, match="has the folds 1, 2, .*, 10. Received: fold=0"):
        load_dataset("soundata:urbansound8k", data_dir=folder, fold=0)
    with pytest.raises(ConfigError, match="'mirdata:irmas' does not accept --fold"):
        load_dataset("mirdata:irmas", data_dir=folder, fold=1)


def publish_strokes(monkeypatch, http):
    """Serve 40 strokes of 2 kinds, without splits; one has no audio."""
    files, tracks = {}, {}
    for number in range(40):
        kind = ("ta", "thom")[number % 2]
        path = f"mridangam_stroke_1.5/C/{number}__x__{kind}-1.wav"
        files[path] = tone(number)
        tracks[str(number)] = {"audio": [path, md5(files[path])]}
    name, index = "mirdata:mridangam_stroke", {"version": "1.5", "tracks": tracks}
    publish(monkeypatch, http, name, {"remote_data": zipped(files)}, index)
    return name


def test_without_official_splits_clips_of_every_class_are_held_out(monkeypatch, http, tmp_path):
    name = publish_strokes(monkeypatch, http)
    dataset = load_dataset(name, data_dir=fetch(name, tmp_path), validation_share=0.25)
    counts = {key: split.labels.sum(axis=0).tolist() for key, split in dataset.splits.items()}
    assert counts == {"train": [12, 12], "validation": [4, 4], "test": [4, 4]}
    assert dataset.info["test"] == "0.2 of train, by seed 2018"
    assert dataset.label_names == ("ta", "thom")


def test_your_own_mapping(monkeypatch, http, tmp_path):
    name = publish_strokes(monkeypatch, http)
    mapping = TagMapping("tonic", "multi_label", names={"C": "tonic C"})
    dataset = mir.load(name, fetch(name, tmp_path), mapping)
    assert (dataset.task, dataset.label_names) == ("multi_label", ("tonic C",))
    assert sum(map(len, dataset.splits.values())) == 40


def test_clips_without_audio_or_tag_are_left_out_with_a_note(monkeypatch, http, tmp_path):
    name = publish_strokes(monkeypatch, http)
    folder = fetch(name, tmp_path)
    module = sys.modules["mirdata.datasets.mridangam_stroke"]
    made = module.Track.__init__

    def incomplete(self, track_id, *arguments):
        made(self, track_id, *arguments)
        self.audio_path = None if track_id == "3" else self.audio_path
        self.stroke_name = None if track_id in ("4", "6") else self.stroke_name

    monkeypatch.setattr(module.Track, "__init__", incomplete)
    dataset = load_dataset(name, data_dir=folder)
    assert sum(map(len, dataset.splits.values())) == 37
    assert dataset.notes == (
        "left out 1 clip without audio",
        "left out 2 clips without tag",
    )


def test_a_download_of_the_package_itself_opens_too(monkeypatch, http, tmp_path):
    """mirdata keeps the index where it is installed."""
    publish_medley(monkeypatch, http)
    fetch(MEDLEY, tmp_path)
    installed = tmp_path / "installed"
    (tmp_path / ".mirdata").rename(installed)
    module = sys.modules["mirdata.datasets.medley_solos_db"]
    with pytest.raises(
        DatasetError, match="rfkeras data download mirdata:medley_solos_db --data"
    ):
        load_dataset(MEDLEY, data_dir=tmp_path)
    monkeypatch.setattr(module.INDEXES["1.2"], "indexes_dir", str(installed))
    assert len(load_dataset(MEDLEY, data_dir=tmp_path).splits["train"]) == 12


def test_missing_annotations_name_the_command(monkeypatch, http, tmp_path):
    publish_medley(monkeypatch, http)
    shutil.rmtree(fetch(MEDLEY, tmp_path) / "annotation")
    with pytest.raises(
        DatasetError, match=f"rfkeras data download {MEDLEY} --data-dir {tmp_path}"
    ):
        load_dataset(MEDLEY, data_dir=tmp_path)


def test_missing_audio_is_found_by_the_check(monkeypatch, http, tmp_path, capsys):
    publish_esc50(monkeypatch, http)
    next((fetch("soundata:esc50", tmp_path) / "audio").glob("1-*")).unlink()
    flags = ["data", "check", "--dataset", "soundata:esc50", "--data-dir", str(tmp_path)]
    assert main.run(flags) == 1
    out = capsys.readouterr().out
    assert "Unusable files: 1 (1 missing" in out
    assert "Get them from: https://soundata.readthedocs.io" in out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mirdata:openmic2018",
            "reader of its own for mirdata:openmic2018: use --dataset openmic",
        ),
        (
            "mirdata:beatles",
            "No mapping of 'mirdata:beatles' to tags. Mapped: mirdata:ballroom, ",
        ),
        (
            "mirdata:beatles",
            r"@rfkeras.register_dataset\('mine'\) .*mir.load\('mirdata:beatles'",
        ),
        ("hub:x", "No mapping of 'hub:x'"),
        ("soundata:esc5", r"No mapping .* to tags\. Did you mean 'esc50'\? Mapped"),
        (
            "mirdata:irmas",
            "needs --data-dir, the folder of `rfkeras data download mirdata:irmas`",
        ),
    ],
)
def test_wrong_names(name, message):
    with pytest.raises(ConfigError, match=message):
        load_dataset(name)


def test_urls_are_refused():
    with pytest.raises(ConfigError, match="need a local folder. Received: s3://bucket/irmas"):
        load_dataset("mirdata:irmas", data_dir="s3://bucket/irmas")


@pytest.mark.parametrize("name", [*MAPPINGS, *READERS])
def test_the_packages_have_what_the_tables_name(name, tmp_path):
    dataset = mir.initialize(name, tmp_path)
    assert dataset.remotes
    if name in READERS:
        return
    kind = dataset._track_class if name.startswith("mirdata") else dataset._clip_class
    mapping = MAPPINGS[name]
    source = Path(importlib.import_module(kind.__module__).__file__).read_text()
    for attribute in (mapping.tags, mapping.split, mapping.fold, mapping.group):
        if attribute is not None:
            first = attribute.partition(".")[0]
            assert hasattr(kind, first) or f"self.{first} = " in source, attribute


def test_the_log_of_the_program_stays_as_it_was():
    """In a new process, because only the first import sets it up."""
    code = (
        "import logging, pathlib; from rfkeras.datasets import mir; "
        "mir.initialize('mirdata:irmas', pathlib.Path('irmas')); "
        "print(logging.getLogger().handlers, logging.getLogger().level)"
    )
    status, out, err = run("-c", code, fork=False)
    assert (status, out, err) == (0, f"[] {logging.WARNING}\n", "")
