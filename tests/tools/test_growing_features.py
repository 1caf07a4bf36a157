"""Features that are still being rendered, and their training on JAX; needs JAX."""

import json
from dataclasses import asdict

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from rfkeras.errors import DatasetError  # noqa: E402
from tools import growing_features  # noqa: E402
from tools.feature_parts import Scale  # noqa: E402
from tools.growing_features import GrowingFeatures  # noqa: E402

CLIPS, LABELS = 300, ("a", "b")
SCALE = Scale("perceptual_mel_22k", 80.0, 0.5, -26.0, (0.1,) * 3, (2.0,) * 3, LABELS)


class Writer:
    """Stands in for tools.render_features: row n has the value n modulo 251."""

    def __init__(self, folder):
        (folder / "scale.json").write_text(json.dumps(asdict(SCALE)))
        shapes = {"steps": (CLIPS, 4, 3), "labels": (CLIPS, 2), "mask": (CLIPS, 2)}
        kinds = {"steps": np.uint8, "labels": np.float16, "mask": np.bool_, "done": np.uint8}
        self.rows = {
            name: np.lib.format.open_memmap(
                folder / f"{name}.npy", mode="w+", dtype=kind, shape=shapes.get(name, (CLIPS,))
            )
            for name, kind in kinds.items()
        }

    def add(self, rows):
        for row in rows:
            self.rows["steps"][row] = row % 251
            self.rows["labels"][row] = row % 2
            self.rows["mask"][row] = True
            self.rows["done"][row] = 1


def test_ready_clips_join_once_in_any_order(tmp_path):
    order = np.random.default_rng(0).permutation(CLIPS)
    writer = Writer(tmp_path)
    writer.add(order[:20])
    growing = GrowingFeatures(tmp_path)
    first = growing.first(10, lambda text: None)
    assert len(first) == 20
    data = {
        name: jax.numpy.zeros((CLIPS, *array.shape[1:]), kind).at[:20].set(array)
        for name, array, kind in (
            ("steps", first.steps, np.uint8),
            ("labels", first.labels, np.float32),
            ("mask", first.mask, np.float32),
        )
    }
    data["clips"] = np.int32(20)
    writer.add(order[20:60])
    assert growing.refresh(data) == 20  # too few for a block
    writer.add(order[60:])
    expected = 20 + (CLIPS - 20) // growing_features._BLOCK * growing_features._BLOCK
    assert growing.refresh(data) == expected == int(data["clips"])
    steps = np.asarray(data["steps"])
    rows = {
        (int(clip[0, 0]), int(label[0]))
        for clip, label in zip(steps[:expected], np.asarray(data["labels"]), strict=False)
    }
    assert len(rows) == expected
    assert (steps == steps[:, :1, :1]).all()
    assert np.asarray(data["mask"])[:expected].all()
    assert not np.asarray(data["mask"])[expected:].any()


def test_waiting_for_clips_ends(tmp_path, monkeypatch):
    Writer(tmp_path).add(range(3))
    monkeypatch.setattr(growing_features, "_FIRST_SECONDS", 0.0)
    with pytest.raises(DatasetError, match="only 3 of 5 clips are ready"):
        GrowingFeatures(tmp_path).first(5)
