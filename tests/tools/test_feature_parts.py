"""Files of quantised spectrograms (tools/feature_parts.py)."""

import dataclasses

import numpy as np
import pytest

from rfkeras.errors import DatasetError
from tests.helpers.feature_files import SCALE, features, write
from tools.feature_parts import (
    BLOCK_CLIPS,
    Features,
    compress,
    decompress,
    read_part,
    read_parts,
)


def same(one, other):
    fields = (field.name for field in dataclasses.fields(Features))
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in fields)


def test_a_part_is_read_as_it_was_written(tmp_path):
    part = features(2 * BLOCK_CLIPS + 3)
    assert same(read_part(write(tmp_path / "p.npz", part)), part)


def test_compression_has_no_loss_and_helps():
    steps = np.cumsum(np.random.default_rng(0).integers(-2, 3, (4, 99, 64)), 1).astype("uint8")
    packed = compress(steps)
    assert np.array_equal(decompress(packed, steps.shape), steps)
    assert len(packed) < 0.4 * steps.size


def test_steps_are_the_nearest_and_have_the_units_of_the_layer():
    above_db = np.random.default_rng(0).uniform(0, 120, (5, 7, 3))
    steps = SCALE.quantise(SCALE.to_layer(above_db))
    has_weights = np.array([True, False, True])
    error = np.abs(steps * SCALE.step_db - above_db)[..., has_weights]
    assert error.max() <= SCALE.step_db / 2 + 1e-4
    assert (steps[..., 1] == 0).all()
    assert SCALE.quantise(SCALE.to_layer(np.full(3, -9.0))).tolist() == [0, 0, 0]
    assert SCALE.quantise(SCALE.to_layer(np.full(3, 300.0))).tolist() == [255, 0, 255]


def test_parts_are_joined(tmp_path):
    paths = [write(tmp_path / f"{n}.npz", features(5, 10 * n)) for n in range(2)]
    joined = read_parts(paths, lambda text: None)
    assert joined.keys.tolist() == [f"clip{n}" for n in (*range(5), *range(10, 15))]
    assert np.array_equal(joined.steps[5:], features(5, 10).steps)
    validation = joined.select("validation")
    assert validation.keys.tolist() == ["clip1", "clip4", "clip11", "clip14"]
    assert np.array_equal(validation.labels[3], features(5, 10).labels[4])


def test_parts_that_do_not_fit_are_rejected(tmp_path):
    first = write(tmp_path / "a.npz", features(3))
    coarse = dataclasses.replace(SCALE, step_db=1.0)
    other = write(tmp_path / "b.npz", features(3, 10, coarse))
    with pytest.raises(DatasetError, match="another front-end"):
        read_parts([first, other], lambda text: None)
    with pytest.raises(DatasetError, match="share clips"):
        read_parts([first, first], lambda text: None)
    with pytest.raises(DatasetError, match="No file"):
        read_parts([])
    np.savez(tmp_path / "c.npz", shape=np.array([1, 2, 3]))
    with pytest.raises(DatasetError, match="not a file of"):
        read_part(tmp_path / "c.npz")


def test_statistics_of_the_bands():
    part = features(4)
    part.steps[..., 2] = 7
    mean, deviation = part.band_statistics()
    values_db = 0.5 * part.steps.astype(float)
    np.testing.assert_allclose(mean, values_db.mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(deviation[:2], values_db.std(axis=(0, 1))[:2], rtol=1e-5)
    assert deviation[2] == 80 / 40  # the lowest deviation of the front-end
