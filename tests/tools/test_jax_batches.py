"""Excerpts that are drawn and changed on JAX (tools/jax_batches.py); needs JAX."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from tools import jax_batches as batches  # noqa: E402

PLAIN = batches.Augmentation(gain_db=(0.0, 0.0), equaliser_db=0.0, mix=0.0)
KEY = jax.random.key(0)


def levels(clips=6, frames=9, bands=8):
    values = np.random.default_rng(0).integers(0, 60, (clips, frames, bands))
    return np.where(values < 20, 0, values).astype("float32")


def tags(clips=6):
    labels = np.eye(clips, 3, dtype="float32")
    return labels, np.ones_like(labels)


def augment(levels_db, labels=None, mask=None, **options):
    own, known = tags(len(levels_db))
    changed = batches.augment(
        KEY,
        levels_db,
        own if labels is None else labels,
        known if mask is None else mask,
        batches.Augmentation(**{**vars(PLAIN), **options}),
    )
    return [np.asarray(each) for each in changed]


def test_without_changes_levels_stay():
    x, labels, mask = augment(levels())
    np.testing.assert_allclose(x, levels(), atol=1e-4)
    assert np.array_equal(labels, tags()[0])
    assert np.array_equal(mask, tags()[1])


@pytest.mark.parametrize("gain_db", [-30.0, 10.0])
def test_a_gain_is_added_above_the_floor(gain_db):
    x, *_ = augment(levels(), gain_db=(gain_db, gain_db))
    expected = np.where(levels() > 0, np.maximum(levels() + gain_db, 0), 0)
    np.testing.assert_allclose(x, expected, atol=1e-3)


def test_the_equaliser_is_a_smooth_curve_that_is_equal_for_all_frames():
    loud = np.full((400, 2, 64), 50.0, "float32")
    change = augment(loud, equaliser_db=3.0)[0] - 50
    np.testing.assert_allclose(change[:, 0], change[:, 1], atol=1e-4)
    assert np.sqrt((change**2).mean()) == pytest.approx(3.0, rel=0.1)
    assert np.abs(np.diff(change, axis=2)).max() < 2.0
    assert np.abs(change.mean(axis=2)).max() < 1e-3


def test_a_mixture_adds_power_and_joins_tags():
    labels = np.array([[1, 0, 0], [0, 1, 0]], "float32")
    mask = np.array([[1, 1, 0], [1, 1, 1]], "float32")
    x, both, known = augment(levels(2), labels, mask, mix=1.0, mix_level_db=0.0)
    linear = np.where(levels(2) > 0, 10 ** (levels(2) / 10), 0)
    mean = linear.mean(axis=(1, 2))
    for row, other in ((0, 1), (1, 0)):
        # The second sound has the mean power of the first.
        total = linear[row] + linear[other] * mean[row] / mean[other]
        np.testing.assert_allclose(x[row], 10 * np.log10(np.maximum(total, 1)), atol=1e-3)
    assert both.tolist() == [[1, 1, 0]] * 2
    assert known.tolist() == [[1, 1, 0]] * 2


def test_silence_is_not_mixed():
    pair = levels(2)
    pair[1] = 0.0
    x, labels, _ = augment(pair, np.eye(2, 3, dtype="float32"), mix=1.0, mix_level_db=0.0)
    np.testing.assert_allclose(x, pair, atol=1e-4)
    np.testing.assert_array_equal(labels, np.eye(2, 3))


def test_a_positive_label_of_one_sound_is_known_in_the_mixture():
    own = np.array([[0.0, 1.0, 0.0]], "float32"), np.array([[0.0, 1.0, 0.0]], "float32")
    other = np.array([[1.0, 0.0, 0.0]], "float32"), np.array([[1.0, 0.0, 1.0]], "float32")
    labels, mask = batches.union(*own, *other)
    assert np.asarray(labels).tolist() == [[1, 1, 0]]
    assert np.asarray(mask).tolist() == [[1, 1, 0]]


def test_some_excerpts_are_mixed_at_a_random_level():
    x, labels, _ = augment(np.full((900, 1, 2), 40.0, "float32"), mix=0.3, mix_level_db=10.0)
    change = x[:, 0, 0] - 40
    mixed = change > 1e-3
    assert mixed.mean() == pytest.approx(0.3, abs=0.05)
    assert change[mixed].min() == pytest.approx(10 * np.log10(1.1), abs=0.05)
    assert change[mixed].max() == pytest.approx(10 * np.log10(11), abs=0.3)


def data(clips=5, frames=12, bands=8, room=3):
    steps = np.zeros((clips + room, frames, bands), "uint8")
    # The value names clip and frame.
    steps[:clips] = (20 * np.arange(clips)[:, None] + np.arange(frames) + 100)[..., None]
    labels, mask = tags(clips + room)
    return {
        "steps": steps,
        "labels": labels,
        "mask": mask,
        "clips": np.int32(clips),
        "step_db": np.float32(0.5),
        "mean": np.full(bands, 10, "float32"),
        "deviation": np.full(bands, 4, "float32"),
    }


def test_excerpts_are_pieces_of_clips_with_their_labels():
    x, labels, _ = batches.draw_batch(KEY, data(), 300, 5, PLAIN)
    steps = np.asarray(x)[..., 0] * 4 + 10
    numbers = np.rint(steps[:, 0, 0] / 0.5).astype(int) - 100
    clip, start = numbers // 20, numbers % 20
    assert set(clip) == set(range(5))
    assert set(start) == set(range(12 - 5 + 1))
    expected = 0.5 * (100 + numbers[:, None] + np.arange(5))
    np.testing.assert_allclose(
        steps, np.broadcast_to(expected[..., None], steps.shape), rtol=1e-5
    )
    assert np.array_equal(np.asarray(labels), tags(8)[0][clip])


def test_the_second_half_has_the_excerpts_of_the_first_at_other_gains():
    augmentation = batches.Augmentation(**{**vars(PLAIN), "gain_db": (0.0, 20.0)})
    x, labels, mask = batches.draw_batch(KEY, data(), 40, 5, augmentation, twice=True)
    assert x.shape[0] == 40
    for each in (labels, mask):
        np.testing.assert_array_equal(each[:20], each[20:])
    gains_db = 4 * np.asarray(x[20:] - x[:20])[..., 0]  # the deviation is 4
    spread = gains_db.max(axis=(1, 2)) - gains_db.min(axis=(1, 2))
    np.testing.assert_allclose(spread, 0, atol=1e-3)
    assert np.abs(gains_db[:, 0, 0]).max() > 5


@pytest.mark.parametrize(("name", "axis"), [("time_mask", 1), ("mel_mask", 2)])
def test_masks_are_pieces_of_one_axis(name, axis):
    augmentation = batches.Augmentation(**{**vars(PLAIN), name: 4})
    x = np.asarray(batches.draw_batch(KEY, data(), 200, 12, augmentation)[0])[..., 0]
    inside = (x == 0).all(axis=3 - axis)
    assert np.array_equal(inside.any(axis=1), (x == 0).any(axis=(1, 2)))
    assert set(inside.sum(axis=1)) == set(range(5))
    assert (np.abs(np.diff(inside.astype(int), axis=1)).sum(axis=1) <= 2).all()
