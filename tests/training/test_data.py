"""The data of a run: its batches, damaged files, and options of the data set."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile

import zoo
from rfkeras.audio.io import AudioFormat
from rfkeras.config.resolve import merge_options
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.training.clip_scores import ClipScorer
from rfkeras.training.data import open_dataset, open_inputs
from tests.helpers.layouts import write_dcase

AUDIO = AudioFormat(22050)


def configure(folder, **options):
    flags = {"dataset": "folder", "data_dir": str(folder), "batch_size": 4}
    return merge_options({**flags, "excerpt_seconds": 0.5, **options})


def damaged_copy(tone_folder, target, bad):
    """Copy the tones; damage the first `bad` files of each class in different ways."""
    for source in sorted(tone_folder.glob("*/*.wav")):
        copy = target / source.relative_to(tone_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        content = source.read_bytes()
        if int(source.stem) < bad:
            content = {"low": b"", "mid": content[:5000], "high": b"noise"}[copy.parent.name]
        copy.write_bytes(content)
    return target


def test_an_epoch_has_the_chosen_number_of_excerpts_per_clip(tone_folder):
    once = open_inputs(configure(tone_folder), AUDIO, None)
    clips = len(once.dataset.split("train"))
    twice = open_inputs(configure(tone_folder, excerpts_per_clip=2), AUDIO, None)
    assert once.steps_per_epoch == clips // 4
    assert twice.steps_per_epoch == 2 * clips // 4
    first, second = np.split(
        np.concatenate([batch[0] for batch in twice.training_batches(0, 2 * (clips // 4))]), 2
    )
    assert np.abs(first - second).max() > 0.01  # different excerpts


def test_fingerprints_change_with_clips_labels_and_masks(tone_folder):
    inputs = open_inputs(configure(tone_folder), AUDIO, None)
    splits = inputs.dataset.splits
    before = inputs.fingerprints
    assert inputs.fingerprints == before
    for change in (
        lambda split: {"keys": ("other", *split.keys[1:])},
        lambda split: {"labels": 1 - split.labels},
        lambda split: {"mask": 0 * split.mask},
    ):
        changed = {**splits, "train": replace(splits["train"], **change(splits["train"]))}
        after = replace(inputs, dataset=replace(inputs.dataset, splits=changed)).fingerprints
        assert after["train"] != before["train"]
        assert after["test"] == before["test"]


@pytest.mark.parametrize(("window", "windows"), [(0.2, 5), (0.4, 3), (1.0, 1)])
def test_an_evaluation_reads_windows_of_the_chosen_length(tone_folder, window, windows):
    inputs = open_inputs(configure(tone_folder, window_seconds=window), AUDIO, None)
    batches, plan = inputs.evaluation_batches("test")
    assert batches.element_spec.shape[1] == round(window * 22050)
    assert plan.windows == windows * len(inputs.dataset.split("test"))


def test_unusable_files_are_skipped_and_damaged_ones_noted(tone_folder, tmp_path, capsys):
    folder = damaged_copy(tone_folder, tmp_path / "data", bad=1)
    inputs = open_inputs(configure(folder, max_bad_share=0.1), AUDIO, tmp_path / "bad.csv")
    used = sum(len(split) for split in inputs.dataset.splits.values())
    assert used == 72 - 2
    (note,) = (line for line in capsys.readouterr().err.splitlines() if "mid/00.wav" in line)
    assert note.startswith("Note on folder: 1 ")
    assert "file damaged and used only in part: " in note
    listed = (tmp_path / "bad.csv").read_text()
    assert "mid/00" not in listed
    for name, reason in (("low/00", "empty"), ("high/00", "")):
        assert f"{name}.wav" in listed
        assert reason in listed
    for waveforms, _, _ in inputs.training_batches(0, inputs.steps_per_epoch):
        assert np.abs(waveforms).max(axis=1).min() > 0.05  # no silent clips in their place


def test_too_many_damaged_files_are_an_error_at_the_start(tone_folder, tmp_path):
    folder = damaged_copy(tone_folder, tmp_path / "data", bad=1)
    with pytest.raises(DatasetError, match=r"of 72 audio files .*--max-bad-share"):
        open_inputs(configure(folder), AUDIO, tmp_path / "bad.csv")


def test_resampling_is_recorded(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(5):
            soundfile.write(tmp_path / name / f"{i}.wav", np.full(8000, 0.1), 8000)
    inputs = open_inputs(configure(tmp_path), AUDIO, None)
    assert inputs.resampling["test"] == ["2 files 8000 Hz -> 22050 Hz"]


def test_a_split_without_clips_is_an_error(tone_folder):
    config = configure(tone_folder)
    with pytest.raises(DatasetError, match="no clips for: holdout"):
        open_inputs(config, AUDIO, None, ("train", "holdout"))
    with pytest.raises(ConfigError, match="--dataset-size needs --dataset gm_instruments"):
        open_inputs(configure(tone_folder, dataset_size=100), AUDIO, None)


def test_shares_of_the_training_clips_are_nested_and_the_same_for_every_seed(tone_folder):
    def keys(share, seed=0):
        dataset = open_dataset(configure(tone_folder, train_share=share, seed=seed))
        return {name: split.keys for name, split in dataset.splits.items()}

    whole, half, quarter = keys(1.0), keys(0.5), keys(0.25)
    assert len(half["train"]) == round(len(whole["train"]) / 2)
    assert set(quarter["train"]) < set(half["train"]) < set(whole["train"])
    assert half == keys(0.5, seed=1)
    for name in ("validation", "test"):
        assert half[name] == whole[name]


def test_only_folder_data_sets_take_the_task_of_a_model(tone_folder, tmp_path):
    config = configure(tone_folder)
    assert open_dataset(config).task == "multi_label"
    assert open_dataset(config, "single_label").task == "single_label"
    explicit = configure(tone_folder, task="multi_label")
    assert open_dataset(explicit, "single_label").task == "multi_label"
    scenes = write_dcase(tmp_path, locations=3, takes=1)
    other = configure(scenes, dataset="dcase", validation_share=0.5)
    assert open_dataset(other, "multi_label").task == "single_label"


def test_a_file_damaged_during_scoring_gives_a_clear_error(tone_folder, tmp_path):
    folder = damaged_copy(tone_folder, tmp_path / "data", bad=0)
    inputs = open_inputs(configure(folder, cache_gb=0), AUDIO, None, ("test",))
    model = zoo.create_model("resnet_rf", 3, width=2)
    scorer = ClipScorer(model, inputs, "test")
    for path in inputs.dataset.split("test").paths:
        path.write_bytes(path.read_bytes()[:44])  # after the headers were read for the plan
    with pytest.raises(DatasetError, match="audio files cannot be used"):
        scorer.scores()
