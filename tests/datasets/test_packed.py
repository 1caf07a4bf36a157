"""Packing data sets, and training and evaluation from shards."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from rfkeras.audio.io import AudioFormat, read_audio
from rfkeras.datasets import packed_pipeline
from rfkeras.datasets.base import AudioDataset, BadFileLog, Split
from rfkeras.datasets.checks import check_dataset
from rfkeras.datasets.pack import from_tf_data, pack, to_wav
from rfkeras.datasets.packed import (
    PackedSplit,
    damaged_shards,
    load_packed,
    sha256,
    verify_packed,
)
from rfkeras.datasets.pipeline import evaluation_batches, training_batches
from rfkeras.errors import ConfigError, DatasetError
from tests.datasets.conftest import music

AUDIO = AudioFormat(8000)
HALF_STEP = 0.5 / 32768


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> AudioDataset:
    """Return a data set of 21 training and 4 test clips of 0.5 to 1 s in four formats."""
    folder = tmp_path_factory.mktemp("source")
    formats = [("wav", "PCM_24"), ("flac", "PCM_16"), ("ogg", "VORBIS"), ("mp3", None)]
    paths = []
    for row in range(25):
        suffix, subtype = formats[row % 4]
        path = folder / f"{row:02d}.{suffix}"
        signal = music(0.5 + row / 50, 16000, 1 + row % 2, seed=row)
        soundfile.write(path, signal, 16000, subtype=subtype)
        paths.append(path)
    labels = np.zeros((25, 3), np.float32)
    labels[:, 0] = np.arange(25) / 32
    mask = np.tile(np.array([1, 0, 1], np.float32), (25, 1))
    keys = tuple(path.name for path in paths)
    every = Split(keys, tuple(paths), labels, mask)
    splits = {"train": every.select(range(21)), "test": every.select(range(21, 25))}
    return AudioDataset("tones", ("a", "b", "c"), splits, info={"seed": 7})


@pytest.fixture(scope="module")
def packed_folder(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    pack(source, AUDIO, folder, shard_mb=0.05, workers=2, progress=False)
    return folder


@pytest.fixture(scope="module")
def packed(packed_folder) -> AudioDataset:
    return load_packed(str(packed_folder))


@pytest.fixture(scope="module", params=["soundfile", "tfio"])
def decoder(request):
    if request.param == "tfio":
        pytest.importorskip("tensorflow_io")
    return request.param


def train(split, decoder="soundfile", **options):
    arguments = {
        "excerpt_seconds": 0.2,
        "batch_size": 4,
        "seed": 3,
        "steps_per_epoch": 5,
        "total_steps": 15,
        "bad_files": BadFileLog(None, total_files=1),
        "decoder": decoder,
        **options,
    }
    return training_batches(split, arguments.pop("audio", AUDIO), **arguments)


def rows_of(batches) -> list[int]:
    return [round(value * 32) for _, labels, _ in batches for value in labels[:, 0]]


def test_the_index_describes_the_packed_clips_and_shards_have_their_size(
    packed_folder, packed, source
):
    index = json.loads((packed_folder / "index.json").read_text())
    assert (index["format"], index["version"]) == ("rfkeras-shards", 1)
    assert packed.name == "tones"
    assert packed.label_names == ("a", "b", "c")
    assert packed.info["seed"] == 7
    assert len(index["splits"]["train"]["shards"]) > 3
    assert sorted(packed.splits["train"].keys) == sorted(source.splits["train"].keys)
    assert packed.splits["test"].keys == source.splits["test"].keys
    assert packed.splits["train"].keys != source.splits["train"].keys  # mixed
    for name, split in packed.splits.items():
        by_key = dict(zip(source.splits[name].keys, source.splits[name].labels, strict=True))
        for key, labels in zip(split.keys, split.labels, strict=True):
            np.testing.assert_array_equal(labels, by_key[key])
    verify_packed(packed)
    assert not list(packed_folder.glob("*.part*"))


@pytest.mark.parametrize("window", [0.3, 2.0])
def test_evaluation_from_shards_equals_that_from_files_to_16_bits(
    source, packed, decoder, window
):
    bad = BadFileLog(None, total_files=1)
    arguments = {"window_seconds": window, "batch_size": 3, "bad_files": bad}
    files, file_plan = evaluation_batches(source.splits["test"], AUDIO, **arguments)
    shards, plan = evaluation_batches(
        packed.splits["test"], AUDIO, decoder=decoder, **arguments
    )
    np.testing.assert_array_equal(plan.rows, file_plan.rows)
    assert int(shards.cardinality()) == plan.batches
    expected = np.concatenate(list(files.as_numpy_iterator()))
    received = np.concatenate(list(shards.as_numpy_iterator()))
    assert received.shape == (plan.batches * 3, round(window * 8000))
    np.testing.assert_allclose(received, expected, atol=HALF_STEP * 1.01)


def test_training_excerpts_from_shards_are_samples_of_the_files(source, packed, decoder):
    split = source.splits["train"]
    whole = {row: read_audio(path, AUDIO) for row, path in enumerate(split.paths)}
    seen = set()
    for waveforms, labels, mask in train(packed.splits["train"], decoder).as_numpy_iterator():
        for waveform, label, known in zip(waveforms, labels, mask, strict=True):
            row = round(label[0] * 32)
            seen.add(row)
            np.testing.assert_array_equal(known, [1, 0, 1])
            windows = np.lib.stride_tricks.sliding_window_view(whole[row], len(waveform))
            assert np.abs(windows - waveform).max(axis=1).min() <= HALF_STEP * 1.01
    assert seen == set(range(21))


def test_both_decoders_give_the_same_batches(packed):
    pytest.importorskip("tensorflow_io")
    for one, other in zip(
        train(packed.splits["train"]).as_numpy_iterator(),
        train(packed.splits["train"], "tfio").as_numpy_iterator(),
        strict=True,
    ):
        np.testing.assert_array_equal(one[0], other[0])


def test_order_depends_on_seed_and_epoch_and_can_be_resumed(packed):
    split = packed.splits["train"]
    whole = list(train(split).as_numpy_iterator())
    rows = rows_of(whole)
    for epoch in (0, 1, 2):
        assert len(set(rows[epoch * 20 : epoch * 20 + 20])) == 20
    assert rows[:20] != rows[20:40]
    assert rows == rows_of(train(split).as_numpy_iterator())
    assert rows != rows_of(train(split, seed=4).as_numpy_iterator())
    for start in (1, 5, 7, 14, 15):
        dataset = train(split, start_step=start)
        assert int(dataset.cardinality()) == 15 - start
        resumed = list(dataset.as_numpy_iterator())
        assert len(resumed) == 15 - start
        for one, other in zip(whole[start:], resumed, strict=True):
            for expected, received in zip(one, other, strict=True):
                np.testing.assert_array_equal(expected, received)


def test_a_single_shard_is_shuffled_anew_in_every_epoch(source, tmp_path):
    """Check the shuffle buffer alone: there is no order of shards."""
    pack(source, AUDIO, tmp_path, shard_mb=10, workers=1, progress=False)
    split = load_packed(str(tmp_path)).splits["train"]
    assert len(split.shards) == 1
    options = {"batch_size": 3, "steps_per_epoch": 7, "total_steps": 28}
    rows = rows_of(train(split, **options).as_numpy_iterator())
    epochs = [tuple(rows[start : start + 21]) for start in range(0, 84, 21)]
    assert all(sorted(epoch) == list(range(21)) for epoch in epochs)
    assert len(set(epochs)) == 4
    assert rows_of(train(split, **options).as_numpy_iterator()) == rows


def test_the_order_depends_on_no_other_seed_of_the_process(packed):
    orders = []
    for process_seed in (0, 1, 87654321):
        tf.random.set_seed(process_seed)
        orders.append([batch[0] for batch in train(packed.splits["train"]).as_numpy_iterator()])
    for other in orders[1:]:
        np.testing.assert_array_equal(other, orders[0])


def test_fewer_records_than_a_batch_repeat(packed):
    options = {"batch_size": 10, "steps_per_epoch": 1, "total_steps": 3}
    batches = list(train(packed.splits["test"], **options).as_numpy_iterator())
    assert len(batches) == 3
    for batch in batches:
        rows = rows_of([batch])
        assert sorted(rows[:4]) == sorted(rows[4:8]) == [21, 22, 23, 24]
    later = train(packed.splits["test"], start_step=1, **options).as_numpy_iterator()
    for one, other in zip(batches[1:], later, strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_a_clip_shorter_than_the_excerpt_is_repeated(packed, decoder):
    options = {"batch_size": 1, "steps_per_epoch": 1, "total_steps": 1, "excerpt_seconds": 3.0}
    waveform = next(iter(train(packed.splits["test"], decoder, **options)))[0][0].numpy()
    row = rows_of(train(packed.splits["test"], decoder, **options).as_numpy_iterator())[0]
    length = packed.splits["test"].lengths[row - 21]
    np.testing.assert_array_equal(waveform, np.resize(waveform[:length], 24000))


def test_stereo_shards(source, tmp_path, decoder):
    audio = AudioFormat(8000, 2)
    tests = AudioDataset("t", source.label_names, {"test": source.splits["test"]})
    pack(tests, audio, tmp_path / "stereo", progress=False)
    split = load_packed(str(tmp_path / "stereo")).splits["test"]
    dataset, _ = evaluation_batches(
        split,
        audio,
        window_seconds=0.5,
        batch_size=1,
        bad_files=BadFileLog(None, total_files=1),
        decoder=decoder,
    )
    first = next(dataset.as_numpy_iterator())[0]
    expected = read_audio(tests.splits["test"].paths[0], audio, 0.0, 0.5)
    np.testing.assert_allclose(first, expected, atol=HALF_STEP * 1.01)


def test_plain_tensorflow_decodes_the_stored_wav():
    waveform = music(0.1, 8000, 1)[:, 0]
    wav, clipped = to_wav(waveform, AUDIO)
    decoded, rate = tf.audio.decode_wav(wav)
    assert int(rate) == 8000
    assert not clipped
    np.testing.assert_allclose(decoded[:, 0], waveform, atol=HALF_STEP)


def test_peaks_above_full_scale_are_clipped_and_counted(tmp_path):
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.linspace(-2, 2, 8000, dtype=np.float32), 8000, subtype="FLOAT")
    one = np.ones((1, 1), np.float32)
    dataset = AudioDataset("loud", ("a",), {"test": Split(("k",), (path,), one, one)})
    index = pack(dataset, AUDIO, tmp_path / "out", progress=False)
    assert json.loads(index.read_text())["splits"]["test"]["clipped_clips"] == 1
    split = load_packed(str(tmp_path / "out")).splits["test"]
    bad = BadFileLog(None, total_files=1)
    batches, _ = evaluation_batches(
        split, AUDIO, window_seconds=1.0, batch_size=1, bad_files=bad
    )
    expected = np.clip(np.linspace(-2, 2, 8000), -1, 1)
    np.testing.assert_allclose(next(batches.as_numpy_iterator())[0], expected, atol=2**-15)


def test_the_task_is_kept_and_old_indexes_are_multi_label(source, packed, tmp_path):
    assert packed.task == "multi_label"
    split = source.splits["test"]
    labels = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    scenes = Split(split.keys, split.paths, labels, np.ones_like(labels))
    dataset = AudioDataset("s", source.label_names, {"test": scenes}, task="single_label")
    index = pack(dataset, AUDIO, tmp_path, progress=False)
    assert load_packed(str(tmp_path)).task == "single_label"
    content = json.loads(index.read_text())
    del content["task"]
    index.write_text(json.dumps(content))
    assert load_packed(str(tmp_path)).task == "multi_label"
    content["task"] = "single_label"
    content["splits"]["test"]["labels"][2] = [1, 0, 1]
    index.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=f"{split.keys[2]!r} has 2 classes"):
        load_packed(str(tmp_path))


def test_missing_audio_is_an_error_before_packing_starts(source, tmp_path):
    split = source.splits["test"]
    gone = Split(split.keys, tuple(tmp_path / k for k in split.keys), split.labels, split.mask)
    dataset = AudioDataset("t", source.label_names, {"test": gone})
    with pytest.raises(DatasetError, match="4 of the 4 audio files of t are missing"):
        pack(dataset, AUDIO, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_bad_files_are_left_out_up_to_the_limit(source, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no audio")
    split = source.splits["test"]
    paths = (broken, *split.paths[1:])
    dataset = AudioDataset(
        "t", source.label_names, {"test": Split(split.keys, paths, split.labels, split.mask)}
    )
    with pytest.raises(DatasetError, match="1 of 4 audio files"):
        pack(dataset, AUDIO, tmp_path / "out", progress=False)
    with pytest.raises(DatasetError, match="packing did not finish"):
        load_packed(str(tmp_path / "out"))
    pack(dataset, AUDIO, tmp_path / "out", progress=False, max_bad_share=0.25)
    packed = load_packed(str(tmp_path / "out")).splits["test"]
    assert packed.keys == split.keys[1:]
    np.testing.assert_array_equal(packed.labels, split.labels[1:])
    assert "broken.wav" in (tmp_path / "out" / "bad_files.csv").read_text()


def test_a_note_names_damaged_clips(tmp_path, capsys):
    path = tmp_path / "cut.wav"
    soundfile.write(path, music(1.0, 8000, 1, seed=0), 8000, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:9000])
    labels = np.ones((1, 1), np.float32)
    split = Split(("cut.wav",), (path,), labels, labels)
    index = pack(
        AudioDataset("mine", ("a",), {"train": split}), AUDIO, tmp_path / "out", progress=False
    )
    assert json.loads(index.read_text())["splits"]["train"]["lengths"] == [4478]
    note = f"Note on mine: 1 file damaged and used only in part: {path}: truncated: "
    assert capsys.readouterr().err.startswith(note)


def test_truncated_clips_are_not_packed(source, tmp_path):
    dataset = AudioDataset("t", source.label_names, source.splits, clip_seconds=10.0)
    with pytest.raises(DatasetError, match="expected 10 s"):
        pack(dataset, AUDIO, tmp_path / "out", progress=False)


def test_another_audio_format_than_that_of_the_shards_is_rejected(packed):
    with pytest.raises(
        ConfigError, match="have 8000 Hz mono, but the model needs 22050 Hz mono"
    ):
        train(packed.splits["train"], audio=AudioFormat(22050))


def test_packing_into_a_complete_folder_or_from_shards_is_rejected(
    source, packed, packed_folder
):
    with pytest.raises(ConfigError, match="already has a packed"):
        pack(source, AUDIO, packed_folder)
    with pytest.raises(ConfigError, match="is already packed"):
        pack(packed, AUDIO, packed_folder / "again")


@pytest.mark.parametrize("shard_mb", [0, -1])
def test_shards_have_a_positive_size(source, tmp_path, shard_mb):
    with pytest.raises(ConfigError, match=f"shard_mb must be positive. Received: {shard_mb}."):
        pack(source, AUDIO, tmp_path / "out", shard_mb=shard_mb, progress=False)
    assert not (tmp_path / "out").exists()


def test_only_the_decoder_of_tensorflow_io_needs_that_package(packed, monkeypatch):
    pytest.importorskip("tensorflow_io")
    loaded = []
    monkeypatch.setattr(
        packed_pipeline, "load_tensorflow_io", lambda **options: loaded.append(options)
    )
    train(packed.splits["train"], "soundfile")
    assert loaded == []
    with suppress(AttributeError):  # the operations may be missing
        train(packed.splits["train"], "tfio")
    assert loaded == [{"s3": False}]


def test_a_packed_split_cannot_be_divided(packed):
    with pytest.raises(ConfigError, match="cannot be selected"):
        packed.splits["train"].select([0])


def copied(packed_folder, tmp_path):
    for path in packed_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_missing_truncated_and_damaged_shards_are_reported(packed_folder, tmp_path):
    folder = copied(packed_folder, tmp_path)
    shard = folder / "train-00001.tfrecord"
    data = shard.read_bytes()
    shard.write_bytes(data[:-10])
    with pytest.raises(DatasetError, match=r"train-00001\.tfrecord has \d+ bytes"):
        load_packed(str(folder))
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    shard.write_bytes(damaged)
    dataset = load_packed(str(folder))
    with pytest.raises(DatasetError, match=r"train-00001\.tfrecord is damaged"):
        verify_packed(dataset)
    found = list(damaged_shards(dataset.splits["train"]))
    assert [(each.path, digest) for each, digest in found] == [(str(shard), sha256(str(shard)))]
    with pytest.raises(tf.errors.DataLossError):
        list(train(dataset.splits["train"]))
    shard.unlink()
    with pytest.raises(DatasetError, match=r"train-00001\.tfrecord cannot be read"):
        verify_packed(dataset)
    with pytest.raises(DatasetError, match=r"train-00001\.tfrecord is missing"):
        load_packed(str(folder))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not an index"),
        ('{"format": "rfkeras-shards", "version": 99}', "format version 99"),
        ('{"format": "rfkeras-shards", "version": 1}', "malformed"),
    ],
)
def test_a_malformed_index_is_rejected_with_a_reason(tmp_path, text, message):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_packed(str(tmp_path))


def test_packed_splits_are_splits(packed):
    assert isinstance(packed.split("train"), PackedSplit)
    assert len(packed.split("train")) == 21


def test_names_of_tags_are_checked_before_packing_but_old_ones_are_read(
    source, packed_folder, tmp_path
):
    odd = AudioDataset("tones", ("a", "b\u200b", "c"), source.splits)
    with pytest.raises(ConfigError, match=r"U\+200B"):
        pack(odd, AUDIO, tmp_path / "new", progress=False)
    shutil.copytree(packed_folder, tmp_path / "old")
    index = json.loads((tmp_path / "old" / "index.json").read_text())
    index["label_names"] = ["a", "b\u200b", "u\u0308 "]
    (tmp_path / "old" / "index.json").write_text(json.dumps(index))
    assert load_packed(str(tmp_path / "old")).label_names == ("a", "b\u200b", "u\u0308 ")


def test_evaluating_shards_of_another_audio_format_is_rejected(packed):
    with pytest.raises(
        ConfigError, match="have 8000 Hz mono, but the model needs 22050 Hz mono"
    ):
        evaluation_batches(
            packed.splits["test"],
            AudioFormat(22050),
            window_seconds=1.0,
            batch_size=2,
            bad_files=BadFileLog(None, total_files=1),
        )


def test_checking_shards_gives_the_lengths_of_their_clips(source, packed):
    result = check_dataset(packed, progress=False).splits["train"].audio
    seconds = sorted(length / 8000 for length in packed.splits["train"].lengths)
    assert result.files == len(source.splits["train"])
    assert result.sample_rates_hz == {8000: result.files}
    assert result.channels == {1: result.files}
    assert result.hours == pytest.approx(sum(seconds) / 3600)
    assert result.seconds == pytest.approx((seconds[0], np.median(seconds), seconds[-1]))


def test_packing_shows_its_progress_and_needs_no_known_number_of_cores(
    source, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr("rfkeras.utils.progress.PLAIN_SECONDS", 0.0)
    for shown in (False, True):
        pack(source, AUDIO, tmp_path / str(shown), progress=shown)
        assert ("Packing train: " in capsys.readouterr().err) is shown


def test_an_unusable_record_is_named(source, tmp_path, monkeypatch):
    module = sys.modules[pack.__module__]
    encode = module.encode_clip
    monkeypatch.setattr(
        module, "encode_clip", lambda *args: replace(encode(*args), wav=b"RIFF")
    )
    pack(source, AUDIO, tmp_path, progress=False)
    splits = load_packed(str(tmp_path)).splits
    message = r"The record '\d+\.\w+' of a packed shard cannot be used: .*rfkeras data check"
    bad_files = BadFileLog(None, total_files=1)
    with pytest.raises(tf.errors.OpError):
        list(train(splits["test"], bad_files=bad_files))
    with pytest.raises(DatasetError, match=message):
        bad_files.raise_if_stopped()


# tf.data sets


def elements(clips=5, channels=None, seed=0):
    """Return waveforms of different lengths, labels and masks, (clips, 2) each."""
    rng = np.random.default_rng(seed)
    shape = () if channels is None else (channels,)
    waves = [rng.uniform(-0.9, 0.9, (800 + 10 * row, *shape)) for row in range(clips)]
    labels = rng.integers(0, 2, (clips, 2))
    mask = rng.integers(0, 2, (clips, 2))
    return [wave.astype(np.float32) for wave in waves], labels, mask


def tf_data(waves, *columns):
    """Return a tf.data set of unknown length, like that of a generator."""
    shape = (None, *waves[0].shape[1:])
    parts = [tf.TensorSpec(column.shape[1:], column.dtype) for column in columns]
    return tf.data.Dataset.from_generator(
        lambda: zip(waves, *columns, strict=True),
        output_signature=(tf.TensorSpec(shape, tf.float32), *parts),
    )


@pytest.mark.parametrize("channels", [None, 2])
def test_tf_data_sets_become_a_packed_data_set(channels, tmp_path):
    waves, labels, mask = elements(7, channels)
    dataset = from_tf_data(
        {"train": tf_data(waves, labels, mask), "test": tf_data(waves[:2], labels[:2])},
        ("a", "b"),
        tmp_path / "packed",
        sample_rate_hz=8000,
        shard_mb=0.004,
        progress=False,
    )
    assert dataset.label_names == ("a", "b")
    assert sorted(dataset.splits) == ["test", "train"]
    train_split = dataset.split("train")
    assert len(train_split.shards) == (3 if channels is None else 4)
    rows = [int(key.removeprefix("train/")) for key in train_split.keys]
    assert sorted(rows) == list(range(7))
    np.testing.assert_array_equal(train_split.mask, mask[rows])
    np.testing.assert_array_equal(train_split.labels, (labels * mask)[rows])
    np.testing.assert_array_equal(dataset.split("test").mask, np.ones((2, 2)))
    np.testing.assert_array_equal(dataset.split("test").labels, labels[:2])
    assert dataset.split("test").keys == ("test/0000000", "test/0000001")
    verify_packed(dataset)
    audio = AudioFormat(8000, channels or 1)
    batches, plan = evaluation_batches(
        train_split,
        audio,
        window_seconds=0.1,
        batch_size=1,
        bad_files=BadFileLog(None, total_files=1),
    )
    found = {}
    for window, waveforms in enumerate(batches):
        found.setdefault(int(plan.rows[window]), waveforms.numpy()[0])
    assert len(found) == 7
    for position, row in enumerate(rows):
        np.testing.assert_allclose(found[position], waves[row][:800], atol=HALF_STEP + 1e-7)


def test_tf_data_sets_of_one_class_per_clip(tmp_path):
    waves, _, _ = elements(4)
    dataset = from_tf_data(
        {"test": tf_data(waves, np.array([2, 0, 1, 1]))},
        ("a", "b", "c"),
        tmp_path / "packed",
        sample_rate_hz=8000,
        task="single_label",
        progress=False,
    )
    assert dataset.task == "single_label"
    assert dataset.split("test").labels.argmax(axis=1).tolist() == [2, 0, 1, 1]


def test_tf_data_sets_that_cannot_be_packed(tmp_path):
    waves, labels, mask = elements(2)

    def packing(split, names=("a", "b"), **options):
        return from_tf_data(
            *({"train": split}, names, tmp_path / "packed"),
            **{"sample_rate_hz": 8000, "progress": False, **options},
        )

    good = tf_data(waves, labels, mask)
    bad = [waves[0], np.full(10, np.nan, np.float32)]
    for split, error, text in (
        (good.repeat(), ConfigError, "repeat"),
        (good.padded_batch(2), ConfigError, "unbatch"),
        (waves, ConfigError, "tf.data.Dataset"),
        (tf_data(bad, labels), DatasetError, "Element 1 of split 'train' has no samples, or"),
        (tf_data([waves[0][:0]], labels[:1]), DatasetError, "Element 0"),
        (tf_data(waves, labels[:, :1]), DatasetError, "2 label names"),
        (tf_data(waves, labels + 1), DatasetError, "labels other than 0 and 1"),
        (good.take(0), DatasetError, "no clips"),
    ):
        with pytest.raises(error, match=text):
            packing(split)
    with pytest.raises(DatasetError, match="labels of shape"):
        packing(tf_data(waves, np.array([0, 2])), task="single_label")
    packing(good)
    with pytest.raises(ConfigError, match="already has a packed data set"):
        packing(good)
