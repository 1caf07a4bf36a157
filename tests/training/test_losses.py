"""Losses and class weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from rfkeras.errors import ConfigError
from rfkeras.evaluation import metrics
from rfkeras.training.losses import (
    MaskedBinaryCrossentropy,
    SoftmaxCrossentropy,
    UsersLoss,
    class_weights,
    loss_for,
)


def some_labels(seed=0, shape=(6, 5)):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, shape).astype("float32")
    mask = rng.integers(0, 2, shape).astype("float32")
    return labels, mask, rng.normal(0, 3, shape).astype("float32")


def test_masked_loss_is_the_sum_over_known_labels_divided_by_all_entries():
    labels, mask, logits = some_labels()
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    terms = -(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    loss = MaskedBinaryCrossentropy()(labels, logits, sample_weight=mask)
    assert float(loss) == pytest.approx((terms * mask).sum() / terms.size, rel=1e-6)
    validation_loss = metrics.log_loss(p, labels, mask, "multi_label")
    assert validation_loss == pytest.approx(float(loss), rel=1e-6)


def test_unknown_labels_have_no_gradient():
    labels, mask, logits = some_labels()
    x = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = MaskedBinaryCrossentropy()(labels, x, sample_weight=mask)
    gradient = tape.gradient(loss, x).numpy()
    p = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(gradient, (p - labels) * mask / labels.size, atol=1e-7)
    assert not gradient[mask == 0].any()


def test_loss_is_finite_for_any_logit():
    logits = np.array([[-1e4, 1e4, 0.0]], "float32")
    for value in (0.0, 1.0):
        loss = MaskedBinaryCrossentropy()(np.full((1, 3), value, "float32"), logits)
        assert np.isfinite(loss)


def test_softmax_loss_equals_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (50, 4)).astype("float32")
    classes = rng.integers(0, 4, 50)
    p = np.exp(logits.astype("float64"))
    p /= p.sum(axis=1, keepdims=True)
    loss = SoftmaxCrossentropy()(np.eye(4, dtype="float32")[classes], logits)
    assert float(loss) == pytest.approx(log_loss(classes, p, labels=range(4)), rel=1e-6)
    soft = rng.dirichlet(np.ones(4), 50).astype("float32")
    expected = -(soft * np.log(p)).sum(axis=1).mean()
    assert float(SoftmaxCrossentropy()(soft, logits)) == pytest.approx(expected, rel=1e-6)


def test_softmax_loss_is_finite_and_float32_for_any_logit():
    logits = tf.constant([[-6e4, 6e4, 0.0]], tf.float16)
    loss = SoftmaxCrossentropy()([[1.0, 0.0, 0.0]], logits)
    assert loss.dtype == "float32"
    assert float(loss) == pytest.approx(2 * 6e4, rel=1e-3)


def test_balanced_class_weights_equal_those_of_scikit_learn():
    classes = np.random.default_rng(0).choice(4, 200, p=[0.6, 0.3, 0.08, 0.02])
    labels = np.eye(5)[classes]  # the last class has no clip
    names = list("abcde")
    weights = class_weights("balanced", labels, np.ones_like(labels), names, "single_label")
    expected = compute_class_weight("balanced", classes=np.arange(4), y=classes)
    np.testing.assert_allclose(weights[:4], expected * 4 / 5, rtol=1e-6)
    assert weights[4] == 1.0


def test_balanced_tag_weights_balance_positives_and_negatives():
    labels = np.zeros((100, 4))
    labels[:20, 0] = labels[:90, 1] = labels[:1, 2] = 1
    mask = np.ones_like(labels)
    mask[50:, 0] = 0
    weights = class_weights("balanced", labels, mask, list("abcd"), "multi_label")
    np.testing.assert_allclose(weights, [30 / 20, 10 / 90, 20.0, 20.0], rtol=1e-6)


def test_weights_from_a_table():
    labels = np.zeros((4, 3))
    weights = class_weights({"b": 2.5}, labels, labels, ["a", "b", "c"], "multi_label")
    np.testing.assert_array_equal(weights, np.float32([1, 2.5, 1]))
    assert class_weights("none", labels, labels, list("abc"), "multi_label") is None
    with pytest.raises(ConfigError, match="Did you mean 'drums'"):
        class_weights({"drum": 2.0}, labels, labels, ["a", "drums"], "multi_label")


@pytest.mark.parametrize("task", ["multi_label", "single_label"])
def test_loss_survives_a_config_round_trip(task):
    loss = keras.losses.deserialize(keras.losses.serialize(loss_for(task)))
    labels, mask, logits = some_labels()
    expected = loss_for(task)(labels, logits, sample_weight=mask)
    assert float(loss(labels, logits, sample_weight=mask)) == float(expected)


@pytest.mark.parametrize("task", ["multi_label", "single_label"])
@pytest.mark.parametrize(
    "labels",
    [np.zeros(3, "int64"), np.zeros((3, 1), "float32"), np.zeros((3, 2), "float32")],
    ids=["class numbers", "one column", "other classes"],
)
def test_labels_of_another_shape_are_refused(task, labels):
    logits = np.zeros((3, 3), "float32")
    with pytest.raises(ConfigError, match=r"one_hot.*Received: labels \(3.*logits \(3, 3\)"):
        loss_for(task).call(labels, keras.ops.convert_to_tensor(logits))


def test_labels_may_be_whole_numbers_or_logical():
    labels = np.eye(3)
    logits = np.random.default_rng(0).normal(size=(3, 3)).astype("float32")
    for task in ("multi_label", "single_label"):
        expected = loss_for(task)(labels.astype("float32"), logits)
        for kind in ("int64", "uint8", "bool"):
            np.testing.assert_allclose(loss_for(task)(labels.astype(kind), logits), expected)


def test_users_losses_are_masked_like_ours():
    labels, mask, logits = some_labels()
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    focal = np.where(labels == 1, (1 - p) ** 2 * -np.log(p), p**2 * -np.log(1 - p))
    expected = (focal * mask).sum() / focal.size

    def own(labels, logits):
        q = keras.ops.sigmoid(logits)
        missed = labels * (1 - q) + (1 - labels) * q
        return missed**2 * keras.ops.binary_crossentropy(labels, logits, from_logits=True)

    for loss in (own, keras.losses.BinaryFocalCrossentropy(from_logits=True, gamma=2.0)):
        users = UsersLoss(loss, "multi_label")
        assert float(users(labels, logits, sample_weight=mask)) == pytest.approx(
            expected, rel=1e-5
        )
    ours = UsersLoss(MaskedBinaryCrossentropy(), "multi_label")
    assert float(ours(labels, logits, sample_weight=mask)) == float(
        MaskedBinaryCrossentropy()(labels, logits, sample_weight=mask)
    )


def test_single_label_losses_may_have_one_value_per_clip():
    logits = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    labels = np.eye(4, dtype="float32")[[0, 1, 2, 3, 0, 1]]
    weights = np.array([1.0, 2.0, 3.0, 4.0], "float32") * np.ones_like(labels)
    loss = UsersLoss(keras.losses.CategoricalCrossentropy(from_logits=True), "single_label")
    ours = loss_for("single_label")
    for given in (np.ones_like(labels), weights):
        assert float(loss(labels, logits, sample_weight=given)) == pytest.approx(
            float(ours(labels, logits, sample_weight=given)), rel=1e-6
        )


def test_losses_that_do_not_fit_say_what_does():
    labels, _, logits = some_labels()
    with pytest.raises(ConfigError, match="from_logits=True"):
        UsersLoss(keras.losses.BinaryCrossentropy(), "multi_label")
    ranking = UsersLoss(
        lambda labels, logits: keras.ops.sum(labels * logits, axis=-1), "multi_label"
    )
    with pytest.raises(ConfigError, match=r"\(batch, classes\), one value per tag.*\(6,\)"):
        ranking.call(labels, logits)
