"""Augmentation layers and dropout: distributions of the draws, labels of mixup, replicas."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from rfkeras.errors import ConfigError
from rfkeras.layers import Mixup, RandomGain, RandomTimeRoll, ReplicaDropout, SpecAugment
from tests.helpers.processes import run

MAP_LAYERS = [RandomTimeRoll, SpecAugment]


def maps(batch=6, time=30, frequency=20, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, time, frequency, channels)).astype("float32")


def mixup_inputs(batch=64, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    x = np.repeat(np.arange(batch, dtype="float32")[:, None], 3, axis=1)
    labels = rng.integers(0, 2, (batch, classes)).astype("float32")
    mask = rng.integers(0, 2, (batch, classes)).astype("float32")
    return x, labels, mask


@pytest.mark.parametrize("layer", [*MAP_LAYERS, RandomGain])
def test_nothing_changes_outside_training(layer):
    x = maps()
    for training in (False, None):
        np.testing.assert_array_equal(layer()(x, training=training), x)


def test_mixup_changes_nothing_outside_training():
    for given, got in zip(mixup_inputs(), Mixup()(list(mixup_inputs())), strict=True):
        np.testing.assert_array_equal(got, given)


def test_roll_is_circular_with_a_separate_shift_per_sample():
    x = maps(batch=300, time=10, frequency=3)
    rolled = RandomTimeRoll(seed=1)(x, training=True).numpy()
    shifts = []
    for before, after in zip(x, rolled, strict=True):
        fits = [s for s in range(10) if np.array_equal(np.roll(before, s, axis=0), after)]
        assert len(fits) == 1
        shifts += fits
    counts = np.bincount(shifts, minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-4  # all shifts equally often, including 0


def stripes(kept, axis):
    """Return the lengths of the runs of masked positions of each sample along an axis."""
    blank = ~kept.any(axis=tuple(a for a in (1, 2, 3) if a != axis))
    edges = np.diff(np.pad(blank.astype(int), ((0, 0), (1, 1))))
    return [np.flatnonzero(row == -1) - np.flatnonzero(row == 1) for row in edges]


def test_spec_augment_masks_stripes_of_every_allowed_width():
    ones = np.ones((4000, 30, 20, 2), "float32")
    layer = SpecAugment(1, 5, 1, 3, seed=2)
    kept = layer(ones, training=True).numpy()
    assert set(np.unique(kept)) == {0.0, 1.0}
    for axis, largest in ((1, 5), (2, 3)):
        widths = [int(runs.sum()) for runs in stripes(kept == 1, axis)]
        assert all(len(runs) <= 1 for runs in stripes(kept == 1, axis))
        counts = np.bincount(widths, minlength=largest + 1)
        assert len(counts) == largest + 1
        assert stats.chisquare(counts).pvalue > 1e-4
    # Both kinds together are an outer product, and nothing else is masked.
    time, frequency = kept.any(axis=(2, 3)), kept.any(axis=(1, 3))
    np.testing.assert_array_equal(
        kept[..., 0], (time[:, :, None] & frequency[:, None, :]).astype("float32")
    )
    # A stripe can be anywhere, including both ends.
    assert not time[:, 0].all()
    assert not time[:, -1].all()


def test_spec_augment_on_a_map_smaller_than_its_stripes():
    small = np.ones((500, 4, 3, 1), "float32")
    kept = SpecAugment(2, 100, 2, 100, seed=0)(small, training=True).numpy()
    widths = {int(run) for runs in stripes(kept == 1, 1) for run in runs}
    assert widths == {1, 2, 3, 4}


def test_spec_augment_has_documented_defaults():
    config = SpecAugment().get_config()
    assert (config["time_masks"], config["time_mask_frames"]) == (2, 40)
    assert (config["frequency_masks"], config["frequency_mask_bands"]) == (2, 24)


def test_spec_augment_without_masks_changes_nothing():
    x = maps()
    np.testing.assert_array_equal(SpecAugment(0, 5, 0, 5)(x, training=True), x)


@pytest.mark.parametrize("shape", [(2000, 8), (2000, 8, 2)])
def test_gain_is_one_factor_per_sample_uniform_in_decibels(shape):
    x = np.random.default_rng(0).uniform(0.1, 1.0, shape).astype("float32")
    ratio = RandomGain(6.0, seed=3)(x, training=True).numpy() / x
    ratio = ratio.reshape(len(x), -1)
    np.testing.assert_allclose(ratio, np.repeat(ratio[:, :1], ratio.shape[1], 1), rtol=1e-5)
    gain_db = 20 * np.log10(ratio[:, 0])
    assert stats.kstest(gain_db, stats.uniform(-6, 12).cdf).pvalue > 1e-4


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha):
    shares = Mixup(alpha, seed=4)._shares(50_000).numpy()
    below_one = shares[shares < 0.9999]  # closer to 1, float32 rounds to 1
    distribution = stats.beta(alpha, alpha)

    def cumulative(x):
        whole = 2 * distribution.cdf(0.9999) - 1
        return (2 * distribution.cdf(x) - 1) / whole

    assert stats.kstest(below_one, cumulative).pvalue > 1e-4
    assert len(below_one) / len(shares) == pytest.approx(
        2 * distribution.cdf(0.9999) - 1, abs=0.01
    )
    assert shares.min() >= 0.5
    assert shares.max() <= 1.0


def test_tiny_alpha_gives_no_nan():
    shares = Mixup(0.001, seed=0)._shares(10_000).numpy()
    assert np.isfinite(shares).all()


def shares_and_partners(x, mixed):
    """Return the shares and partners that mixup drew, from samples (number, number²)."""
    own = x[:, 0]
    first, second = mixed[:, 0] - own, mixed[:, 1] - own**2
    # mixed = s * own + (1 - s) * p, and the same of the squares: second / first = own + p.
    moved = np.abs(first) > 1e-9
    partner = np.where(moved, second / np.where(moved, first, 1) - own, own)
    partner = np.rint(partner).astype(int)
    apart = np.where(partner == own, 1, partner - own)
    return 1 - np.where(partner == own, 0, first / apart), partner


def test_mixup_gives_each_known_label_its_share_of_the_loss():
    """Check that each known label has the defined share of the loss."""
    _, labels, mask = mixup_inputs()
    own = np.arange(64.0)
    x = tf.stack([own, own**2], axis=1)  # float64, so that the draws can be recovered
    outputs = Mixup(1.0, seed=5)([x, labels, mask], training=True)
    mixed, label, weight = (np.asarray(t) for t in outputs)
    share, partner = shares_and_partners(x.numpy(), mixed)
    np.testing.assert_array_equal(np.sort(partner), np.arange(64))
    share, other = share[:, None], 1 - share[:, None]
    np.testing.assert_allclose(weight, share * mask + other * mask[partner], atol=1e-6)
    probability = np.random.default_rng(1).uniform(0.1, 0.9, labels.shape)

    def cross_entropy(y):
        return -y * np.log(probability) - (1 - y) * np.log(1 - probability)

    np.testing.assert_allclose(
        weight * cross_entropy(label),
        share * mask * cross_entropy(labels)
        + other * mask[partner] * cross_entropy(labels[partner]),
        atol=1e-5,
    )
    both, neither = mask * mask[partner] == 1, mask + mask[partner] == 0
    one = ~both & ~neither
    usual = share * labels + other * labels[partner]
    np.testing.assert_allclose(label[both], usual[both], atol=1e-6)
    np.testing.assert_allclose(weight[both], 1.0, atol=1e-6)
    known = np.where(mask == 1, labels, labels[partner])
    np.testing.assert_allclose(label[one], known[one], atol=1e-6)
    assert not weight[neither].any()
    assert not label[neither].any()
    assert one.any()
    assert neither.any()


def test_values_of_unknown_labels_have_no_effect():
    x, labels, mask = mixup_inputs()
    changed = np.where(mask == 0, 1 - labels, labels)
    for once, again in zip(
        Mixup(seed=6)([x, labels, mask], training=True),
        Mixup(seed=6)([x, changed, mask], training=True),
        strict=True,
    ):
        np.testing.assert_array_equal(once, again)


def test_partners_of_mixup_are_a_new_uniform_permutation_at_every_call():
    own = np.arange(6.0)
    x = tf.stack([own, own**2], axis=1)
    none = np.zeros((6, 1), "float32")
    layer = Mixup(1.0, seed=3)
    drawn = np.stack(
        [
            shares_and_partners(x.numpy(), layer([x, none, none], training=True)[0].numpy())[1]
            for _ in range(400)
        ]
    )
    assert (np.sort(drawn, axis=1) == np.arange(6)).all()
    counts = np.array([np.bincount(column, minlength=6) for column in drawn.T])
    assert stats.chisquare(counts.ravel()).pvalue > 1e-4
    assert len({tuple(partners) for partners in drawn}) > 250  # of 720; one in 400 repeats


def test_class_weights_follow_their_labels():
    """Check weights above 1 in the mask: the loss is the weighted loss of both clips."""
    own = np.arange(16.0)
    x = tf.stack([own, own**2], axis=1)
    labels = np.eye(4, dtype="float32")[np.arange(16) % 4]
    weights = (1 + 9 * labels).astype("float32")
    outputs = Mixup(1.0, seed=7)([x, labels, weights], training=True)
    mixed, label, weight = (np.asarray(t) for t in outputs)
    share, partner = shares_and_partners(x.numpy(), mixed)
    share = share[:, None]
    np.testing.assert_allclose(
        weight * label,
        share * 10 * labels + (1 - share) * 10 * labels[partner],
        atol=1e-4,
    )


@pytest.mark.parametrize(
    "layer",
    [RandomTimeRoll(seed=1), SpecAugment(1, 2, 3, 4, seed=1), RandomGain(3.0, seed=1)],
)
def test_config_round_trip_draws_the_same(layer):
    same = keras.layers.deserialize(keras.layers.serialize(layer))
    assert same.get_config() == layer.get_config()
    np.testing.assert_array_equal(layer(maps(), training=True), same(maps(), training=True))


def test_layers_in_a_saved_model(tmp_path):
    inputs = [keras.Input((None, 20, 2)), keras.Input((4,)), keras.Input((4,))]
    changed = SpecAugment()(RandomTimeRoll()(RandomGain(3.0)(inputs[0])))
    model = keras.Model(inputs, Mixup(0.5)([changed, *inputs[1:]]))
    assert model.output_shape == [(None, None, 20, 2), (None, 4), (None, 4)]
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    data = [maps(), np.ones((6, 4), "float32"), np.ones((6, 4), "float32")]
    np.testing.assert_array_equal(loaded.predict(data, verbose=0)[0], data[0])
    assert loaded.layers[-1].alpha == 0.5


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_dtype_in_a_compiled_function(dtype, jit):
    roll, blank, gain, mix = RandomTimeRoll(), SpecAugment(), RandomGain(), Mixup()

    @tf.function(jit_compile=jit)
    def augment(x, labels, mask):
        x = blank(roll(gain(x, training=True), training=True), training=True)
        return mix([x, labels, mask], training=True)

    labels = np.eye(4, dtype="float32")
    x, label, weight = augment(tf.cast(maps(batch=4), dtype), labels, np.ones_like(labels))
    assert (x.dtype.name, label.dtype.name, weight.dtype.name) == (dtype, *["float32"] * 2)
    assert np.isfinite(tf.cast(x, "float32")).all()
    np.testing.assert_allclose(label.numpy().sum(axis=1), 1.0, atol=1e-6)


def test_labels_keep_their_precision_under_a_mixed_policy():
    layer = Mixup(dtype="mixed_bfloat16", seed=8)
    labels = np.eye(6, dtype="float32")
    _, label, _ = layer([maps(), labels, np.ones_like(labels)], training=True)
    assert label.dtype == "float32"
    rounded = tf.cast(tf.cast(label, "bfloat16"), "float32")
    assert np.abs(np.asarray(label) - np.asarray(rounded)).max() > 0


def test_draws_continue_from_a_restored_seed():
    layer = RandomTimeRoll(seed=9)
    layer(maps(), training=True)
    state = [v.numpy() for v in layer.variables]
    once = layer(maps(), training=True).numpy()
    for variable, value in zip(layer.variables, state, strict=True):
        variable.assign(value)
    np.testing.assert_array_equal(layer(maps(), training=True), once)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixup(0.0), "alpha must be a number above 0"),
        (lambda: Mixup(float("nan")), "alpha must be a number above 0"),
        (lambda: RandomGain(-1.0), "gain_db must be a number of at least 0"),
        (lambda: SpecAugment(time_masks=-1), "time_masks must be a whole number"),
        (lambda: SpecAugment(frequency_mask_bands=2.5), "frequency_mask_bands must be"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


TWO_REPLICAS = """
import json
import numpy as np
import tensorflow as tf
from rfkeras.layers import ReplicaDropout
from rfkeras.training.distributed import make_strategy

strategy = make_strategy("cpu:2")
with strategy.scope():
    layer = ReplicaDropout(0.5, seed=3)

@tf.function
def draw():
    return strategy.run(lambda: layer(tf.ones((1000,)), training=True))

steps = [strategy.experimental_local_results(draw()) for _ in range(2)]
print(json.dumps([[value.numpy().tolist() for value in step] for step in steps]))
"""


def test_dropout_on_one_device_equals_keras_dropout():
    x = np.random.default_rng(0).normal(size=(4, 50, 3)).astype("float32")
    ours, theirs = ReplicaDropout(0.3, seed=7), keras.layers.Dropout(0.3, seed=7)
    for _ in range(3):  # the following draws are equal too
        np.testing.assert_array_equal(ours(x, training=True), theirs(x, training=True))


def test_dropout_scales_the_values_it_keeps():
    y = np.asarray(ReplicaDropout(0.2, seed=1)(np.ones((200, 500), "float32"), training=True))
    assert set(np.unique(y)) == {np.float32(0.0), np.float32(1.25)}
    # The standard error of the share is 0.4 / sqrt(100,000) = 0.0013.
    assert (y == 0).mean() == pytest.approx(0.2, abs=0.006)


def test_dropout_at_inference_or_with_rate_0_changes_nothing():
    x = np.ones((10, 10), "float32")
    np.testing.assert_array_equal(ReplicaDropout(0.9)(x), x)
    np.testing.assert_array_equal(ReplicaDropout(0.0)(x, training=True), x)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_dropout_under_mixed_precision(policy):
    layer = ReplicaDropout(0.5, dtype=policy)
    y = layer(np.ones((8, 8), "float32"), training=True)
    assert y.dtype == layer.compute_dtype
    assert set(np.unique(np.asarray(y, "float32"))) <= {0.0, 2.0}


def test_dropout_config_round_trip():
    layer = ReplicaDropout(0.25, seed=4, name="drop")
    assert ReplicaDropout.from_config(layer.get_config()).get_config() == layer.get_config()
    assert layer.compute_output_shape((None, 3)) == (None, 3)


@pytest.mark.parametrize("rate", [-0.1, 1.0, True, "0.5", None, float("nan")])
def test_wrong_dropout_rate(rate):
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        ReplicaDropout(rate)


def test_replicas_drop_different_values():
    status, out, err = run("-c", TWO_REPLICAS)
    assert status == 0, err
    (first, second), (third, _) = np.array(json.loads(out.splitlines()[-1]))
    for one, other in ((first, second), (first, third)):  # replicas, steps
        # Independent draws agree in half of 1,000 places, with a deviation of 0.016.
        assert np.mean(one == other) == pytest.approx(0.5, abs=0.08)
