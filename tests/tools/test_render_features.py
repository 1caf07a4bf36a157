"""Clips rendered straight to features (tools/render_features.py)."""

import json

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from rfkeras.frontend import create_frontend
from rfkeras.synthesis.ensemble_clips import Settings, clip_labels, clip_recorder
from rfkeras.synthesis.render import default_sound_font
from tools.feature_parts import compress, read_parts, read_scale
from tools.render_features import main, mel_db, pack


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    path = tmp_path_factory.mktemp("front") / "front.npz"
    main(["front", str(path)])
    return path


def test_numpy_computes_what_the_front_end_does(front):
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(30000)).astype(np.float32)
    samples[12000:] *= 1e-4  # below the floor
    layer = create_frontend("perceptual_mel_22k", fixed_floor=True)
    expected = np.asarray(layer.mel_db(samples[None]))[0, :, :, 0]
    with np.load(front) as arrays:
        np.testing.assert_allclose(mel_db(samples, arrays), expected, atol=1e-3)


def test_rows_are_the_clips_of_the_settings(front, tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # restored afterwards
    settings = Settings((str(default_sound_font()),), parts=(1, 1), seed=3)
    (tmp_path / "settings.json").write_text(json.dumps(settings.__dict__))
    call = [str(tmp_path / "out"), "--settings", str(tmp_path / "settings.json")]
    call += ["--front", str(front), "--clips", "3", "--workers", "1"]
    assert main(["render", *call]) == 0
    rows = {name: np.load(tmp_path / "out" / f"{name}.npy") for name in ("steps", "done")}
    assert rows["done"].tolist() == [1, 1, 1]
    assert rows["steps"].shape == (3, 431, 256)
    labels = np.load(tmp_path / "out" / "labels.npy")
    for index in range(3):
        np.testing.assert_array_equal(labels[index], clip_labels(settings, index)[0])
    # The sound of row 2 at full rate has its peak in the frame of the features' peak.
    samples = clip_recorder(settings)(2)
    scale = read_scale((tmp_path / "out" / "scale.json").read_text())
    above_floor_db = rows["steps"][2].astype(float) * scale.step_db
    loudest = np.abs(samples).reshape(-1, 441).mean(axis=1).argmax() / 100
    frame_s = above_floor_db.mean(axis=1).argmax() * 512 / 22050
    assert abs(frame_s - loudest) < 1.5


def test_ready_rows_are_packed_into_files_of_limited_size(front, tmp_path):
    folder, rng = tmp_path / "clips", np.random.default_rng(1)
    folder.mkdir()
    rows = {
        "steps": rng.integers(0, 9, (50, 431, 256)).astype(np.uint8),
        "labels": rng.integers(0, 2, (50, 20)).astype(np.float16),
        "mask": rng.integers(0, 2, (50, 20)).astype(bool),
        "done": np.ones(50, np.uint8),
    }
    rows["done"][[3, 17]] = 0
    for name, values in rows.items():
        np.save(folder / f"{name}.npy", values)
    with np.load(front) as arrays:
        (folder / "scale.json").write_text(str(arrays["scale"]))
    (tmp_path / "mine-007.npz").write_bytes(b"of an earlier call")
    block_mb = len(compress(rows["steps"][:16])) / 1e6
    paths = pack(folder, tmp_path / "mine.npz", part_mb=2.5 * block_mb)
    assert paths == sorted(tmp_path.glob("mine-*.npz"))
    assert [path.name for path in paths] == ["mine-000.npz", "mine-001.npz"]
    packed, ready = read_parts(paths, lambda text: None), np.flatnonzero(rows["done"])
    for name in ("steps", "labels", "mask"):
        np.testing.assert_array_equal(getattr(packed, name), rows[name][ready])
    assert packed.keys.tolist() == [f"mine/{row}" for row in ready]
    assert len(packed.select("train")) == 48
