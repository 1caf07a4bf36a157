"""Opening each data set for a run: options, published numbers, missing and broken files."""

import numpy as np
import pytest

from rfkeras.audio.io import AudioFormat
from rfkeras.config.resolve import merge_options
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.training.data import open_dataset, open_inputs
from tests.helpers.layouts import (
    RATE_HZ,
    TRACKS,
    write_dcase,
    write_gtzan,
    write_jamendo,
    write_jamendo_audio,
    write_magnatagatune,
)


def configure(dataset, folder, **options):
    flags = {"dataset": dataset, "data_dir": str(folder), "batch_size": 2}
    short = {"excerpt_seconds": 0.2, "window_seconds": 0.2}
    return merge_options({**flags, **short, **options})


def test_options_of_the_configuration_reach_the_data_set(tmp_path):
    write_jamendo(tmp_path / "j", "data/splits/split-3/autotagging_genre")
    options = {"subset": "genre", "fold": 3, "audio_dir": str(tmp_path / "disk")}
    dataset = open_dataset(configure("mtg_jamendo", tmp_path / "j", **options))
    assert dataset.info == options
    write_dcase(tmp_path / "d", "2018-1a", locations=11)
    share = {"validation_share": 0.5}
    dataset = open_dataset(configure("dcase", tmp_path / "d", subset="2018-1a", **share))
    assert len(dataset.splits["validation"]) == len(dataset.splits["train"])
    write_magnatagatune(tmp_path / "m")
    assert len(open_dataset(configure("magnatagatune", tmp_path / "m")).label_names) == 50
    write_gtzan(tmp_path / "g")
    config = configure("gtzan", tmp_path, audio_dir=str(tmp_path / "g"))
    assert open_dataset(config).task == "single_label"
    with pytest.raises(ConfigError, match="'folder' does not accept --fold"):
        open_dataset(configure("folder", tmp_path, fold=1))


@pytest.mark.parametrize(("share", "clips"), [(0.25, 18), (0.5, 36)])
def test_the_shares_of_a_folder_data_set_are_those_of_the_configuration(
    tone_folder, share, clips
):
    dataset = open_dataset(configure("folder", tone_folder, test_share=share))
    assert len(dataset.splits["test"]) == clips
    validation = configure("folder", tone_folder, test_share=0.5, validation_share=share)
    assert len(open_dataset(validation).splits["validation"]) == clips // 2


def test_tracks_are_trained_in_excerpts_and_evaluated_in_windows(tmp_path, capsys):
    write_jamendo(tmp_path)
    write_jamendo_audio(tmp_path / "audio", suffix=".low.mp3")
    inputs = open_inputs(configure("mtg_jamendo", tmp_path), AudioFormat(RATE_HZ), None)
    notes = capsys.readouterr().err
    assert "Note on mtg_jamendo: 3 training clips; the published data set has 9,949\n" in notes
    assert inputs.bad_files.files == []
    batches = list(inputs.training_batches(0, 3))
    assert [tuple(batch[0].shape) for batch in batches] == [(2, RATE_HZ // 5)] * 3
    test = inputs.dataset.splits["test"]
    windows, plan = inputs.evaluation_batches("test")
    assert list(plan.rows) == [0, 0, 0, 1, 1]  # 0.6 s and 0.3 s in windows of 0.2 s
    scores = np.concatenate([np.abs(batch).max(axis=1) for batch in windows])[:, None]
    loudness = plan.average(scores)
    assert loudness.shape == (len(test), 1)
    np.testing.assert_allclose(loudness, 0.3, atol=0.05)


def test_missing_tracks_end_a_run_before_anything_is_read(tmp_path):
    write_jamendo(tmp_path)
    tracks = {**TRACKS, "test": {}}
    write_jamendo_audio(tmp_path / "audio", tracks)
    for path in (tmp_path / "audio").rglob("*.mp3"):
        path.write_bytes(b"")  # looked up, not opened
    with pytest.raises(
        DatasetError, match=r"2 of the 6 audio files .* are missing.*github\.com"
    ):
        open_inputs(configure("mtg_jamendo", tmp_path), AudioFormat(RATE_HZ), None)
    write_jamendo_audio(tmp_path / "audio", tracks)
    config = configure("mtg_jamendo", tmp_path, max_bad_share=0.34)
    with pytest.raises(DatasetError, match=r"Split 'test' of 'mtg_jamendo' has no usable clip"):
        open_inputs(config, AudioFormat(RATE_HZ), None)
    inputs = open_inputs(config, AudioFormat(RATE_HZ), None, ("train", "validation"))
    assert inputs.bad_files.files == []


def test_a_truncated_scene_is_left_out(tmp_path):
    folder = write_dcase(tmp_path, locations=3, takes=1, audio=True)
    broken = folder / "audio" / "indoor-vienna-6-0-a.wav"
    broken.write_bytes(broken.read_bytes()[:5000])
    config = configure("dcase", tmp_path, max_bad_share=0.2)
    inputs = open_inputs(config, AudioFormat(1000), None)
    assert [file.path for file in inputs.bad_files.files] == [str(broken)]
    assert len(inputs.dataset.splits["test"]) == 2
    assert inputs.dataset.task == "single_label"


def test_a_folder_is_read_with_the_tags_of_a_model(tmp_path):
    for name in ("low", "high", "mine"):
        (tmp_path / name).mkdir()
        for number in range(4):
            (tmp_path / name / f"{number}.wav").touch()
    config = configure("folder", tmp_path)
    tags = ("noise", "high", "low")
    dataset = open_dataset(config, "multi_label", tags)
    assert dataset.label_names == tags
    for split in dataset.splits.values():
        assert split.mask.tolist() == [[0, 1, 1]] * len(split)
    whole = open_dataset(config)
    for name, split in whole.splits.items():
        assert dataset.split(name).keys == split.keys
    single = open_dataset(config, "single_label", tags)
    assert all((split.mask == 1).all() for split in single.splits.values())
    assert sum(map(len, single.splits.values())) == 8
    assert "left out 4 clips of other classes" in single.notes
