"""Features of a data set (tools/pack_features.py)."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from rfkeras.audio.io import AudioFormat, read_audio
from rfkeras.datasets import openmic
from rfkeras.errors import DatasetError
from rfkeras.frontend import create_frontend
from tests.helpers.layouts import write_openmic, write_tone
from tools.feature_parts import SPLITS, read_parts
from tools.pack_features import clips_of, existing_parts, main, pack, scale_of, split_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_openmic(tmp_path_factory.mktemp("data"), train=17, test=3)


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "f.npz"
    assert main([str(folder), str(out), "--validation-share", "0.4", "--part-mb", "0.001"]) == 0
    return existing_parts(out)


def test_steps_are_the_spectrograms_of_the_front_end(folder, packed):
    features = read_parts(packed, lambda text: None)
    frontend = create_frontend("perceptual_mel_22k", fixed_floor=True)
    row = 3
    (path,) = folder.rglob(f"{features.keys[row].rpartition('/')[2]}.ogg")
    waveform = read_audio(path, AudioFormat(22050))[: 10 * 22050]
    expected = frontend.mel_db(waveform[None])[0, :, :, 0].numpy()
    restored = features.scale.to_layer(features.steps[row] * features.scale.step_db)
    error = np.abs(restored - expected) / np.asarray(features.scale.band_weight)
    assert error.max() < features.scale.step_db / 2 + 1e-3
    assert np.ptp(features.steps[row]) > 60


def test_labels_masks_and_splits_are_those_of_the_folder(folder, packed):
    features = read_parts(packed, lambda text: None)
    assert len(packed) == 2  # a block each
    dataset = openmic.load(folder)
    assert features.scale.label_names == dataset.label_names
    assert len(features) == 20
    rows = {key: row for row, key in enumerate(features.keys)}
    for name, split in dataset.splits.items():
        for number, key in enumerate(split.keys):
            assert np.array_equal(
                features.labels[rows[f"openmic-2018/{key}"]], split.labels[number]
            )
            assert np.array_equal(
                features.mask[rows[f"openmic-2018/{key}"]], split.mask[number]
            )
            own = "test" if name == "test" else split_of(key, 0.4)
            assert SPLITS[features.splits[rows[f"openmic-2018/{key}"]]] == own
    assert {len(features.select(split)) > 0 for split in SPLITS} == {True}


def test_a_folder_that_grows_is_packed_further(tmp_path):
    folder = write_openmic(tmp_path, train=3, test=1)
    late = folder / "audio" / "000" / "000002_60.ogg"
    late.unlink()
    out = tmp_path / "out" / "f.npz"
    assert [path.name for path in pack(folder, out)] == ["f-000.npz"]
    write_tone(late, 10.0, 500.0)
    assert [path.name for path in pack(folder, out, split="validation")] == ["f-001.npz"]
    assert pack(folder, out) == []
    features = read_parts(existing_parts(out), lambda text: None)
    assert sorted(features.keys)[2] == features.keys[3] == "openmic-2018/000002_60"
    assert features.select("validation").keys.tolist()[-1] == "openmic-2018/000002_60"
    with pytest.raises(DatasetError, match="another front-end, step"):
        pack(folder, out, step_db=1.0)


def test_another_folder_may_have_the_same_keys(tmp_path):
    folders = [write_openmic(tmp_path, train=2, test=1).rename(tmp_path / n) for n in "ab"]
    for folder in folders:
        pack(folder, tmp_path / "f.npz")
    features = read_parts(existing_parts(tmp_path / "f.npz"), lambda text: None)
    keys = ("000000_0", "000001_30", "000002_60")
    assert features.keys.tolist() == [f"{name}/{key}" for name in "ab" for key in keys]


def test_a_broken_file_is_left_out(tmp_path, capsys):
    folder = write_openmic(tmp_path, train=3, test=1)
    (folder / "audio" / "000" / "000001_30.ogg").write_bytes(b"no audio")
    (path,) = pack(folder, tmp_path / "f.npz")
    assert "000001_30" in capsys.readouterr().err
    assert read_parts([path]).keys.tolist() == [
        f"openmic-2018/{key}" for key in ("000000_0", "000002_60", "000003_90")
    ]


def test_the_floor_is_step_0():
    frontend = create_frontend("perceptual_mel_22k", fixed_floor=True)
    scale = scale_of(frontend, "perceptual_mel_22k", 0.5, ("a",))
    silence = frontend.mel_db(np.zeros((1, 4096), "float32"))[..., 0].numpy()
    assert (scale.quantise(silence) == 0).all()
    np.testing.assert_allclose(scale.to_layer(np.zeros(256)), silence[0, 0], atol=1e-4)


def test_a_front_end_without_fixed_floor_is_rejected():
    with pytest.raises(Exception, match="fixed_floor"):
        scale_of(create_frontend("mel_32k"), "mel_32k", 0.5, ("a",))


def test_a_clip_keeps_its_split(folder):
    shares = [split_of(f"{n:06d}_1", 0.25) for n in range(2000)]
    assert shares.count("validation") == pytest.approx(500, abs=60)
    assert {clip.split for clip in clips_of(folder, 0.4, "test")[0]} == {SPLITS.index("test")}
