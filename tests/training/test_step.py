"""The training step, compared with Keras and NumPy, and recomputed statistics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rfkeras.errors import ConfigError
from rfkeras.layers import RandomGain, RandomTimeRoll, ReplicaDropout, ShakeShake
from rfkeras.training.losses import MaskedBinaryCrossentropy
from rfkeras.training.optimizer import Adam
from rfkeras.training.run_dir import state_variables
from rfkeras.training.step import dtype_policy, recompute_statistics
from tests.helpers.small_tagger import batch, everything, fit, small_tagger, training_model


def sgd(rate=0.1):
    return keras.optimizers.SGD(rate)


def test_without_additions_the_step_equals_that_of_keras():
    plain = small_tagger()
    plain.compile(Adam(1e-2), MaskedBinaryCrossentropy(), jit_compile=False)
    waveform, labels, mask = batch()
    expected = [plain.train_on_batch(waveform, labels, mask) for _ in range(3)]
    wrapped = small_tagger()
    losses = fit(training_model(wrapped), steps=3)
    assert losses[0] == pytest.approx(float(expected[0]), rel=1e-6)
    for variable, other in zip(state_variables(plain), state_variables(wrapped), strict=True):
        np.testing.assert_allclose(other.numpy(), variable.numpy(), rtol=1e-5, atol=1e-6)


def test_the_tagger_does_not_contain_the_training_parts(tmp_path):
    model = everything()
    fit(model, steps=2)
    tagger = model.tagger
    assert [v.path for v in tagger.variables] == [v.path for v in small_tagger().variables]
    tagger.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    x = batch()[0]
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), tagger.predict(x, verbose=0))
    np.testing.assert_allclose(model(x), tagger(x), rtol=1e-5)


def test_state_variables_contain_everything_once():
    model = everything()
    variables = state_variables(model)
    assert len({id(v) for v in variables}) == len(variables)
    owned = {id(v) for v in variables}
    wanted = [*model.tagger.variables, *(mask for _, mask in model.masks)]
    wanted += [average for _, average in model.averages]
    for layer in (*model.augmentation, *model.waveform_augmentation, model.mixup):
        wanted += layer.variables
    assert {id(v) for v in wanted} <= owned
    before = [v.numpy().copy() for v in variables]
    fit(model)
    assert [id(v) for v in state_variables(model)] == [id(v) for v in variables]
    seeds = [v.path for v, old in zip(variables, before, strict=True) if "seed" in v.path]
    assert len(seeds) == 4


def test_augmentation_changes_spectrograms_and_mixup_changes_labels():
    model = everything()
    waveform, labels, mask = batch()
    plain = model.frontend(waveform).numpy()
    spectrogram, mixed, weights = model.prepare(waveform, labels, mask)
    assert spectrogram.shape == plain.shape
    assert np.abs(spectrogram - plain).max() > 0.1
    assert set(np.unique(labels)) < set(np.unique(mixed))
    again, *_ = model.prepare(waveform, labels, mask)
    assert np.abs(again - spectrogram).max() > 0.1


@pytest.mark.parametrize("task", ["multi_label", "single_label"])
def test_the_step_is_the_same_with_xla(task):
    losses, weights = [], []
    for jit in (False, True):
        tagger = small_tagger(task)
        losses.append(fit(training_model(tagger, sgd(), jit=jit), steps=3))
        weights.append([v.numpy() for v in state_variables(tagger)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_every_precision_learns_and_keeps_front_end_and_logits_in_float32(policy, jit):
    with dtype_policy(policy):
        model = everything(jit=jit)
        losses = fit(model, steps=30)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert model.tagger.get_layer("conv").compute_dtype == policy.removeprefix("mixed_")
    assert model.frontend.compute_dtype == model.tagger.layers[-1].compute_dtype == "float32"
    assert all(v.dtype == "float32" for v in model.tagger.trainable_variables)
    assert keras.config.dtype_policy().name == "float32"
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")


def test_float16_skips_a_step_that_overflows_and_halves_the_scale():
    with dtype_policy("mixed_float16"):
        model = training_model(small_tagger())
        model.optimizer.dynamic_scale.assign(1e30)
        before = [v.numpy() for v in model.tagger.trainable_variables]
        fit(model)
    assert float(model.optimizer.dynamic_scale.numpy()) == pytest.approx(5e29)
    for variable, old in zip(model.tagger.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)
    assert "scale" in " ".join(v.path for v in model.optimizer.variables)  # in the snapshot


def test_moving_average_equals_numpy():
    tagger = small_tagger(norm=False)
    model = training_model(tagger, sgd(), averaging="ema", ema_decay=0.5)
    expected = None
    for step in range(1, 13):
        fit(model)
        weights = [v.numpy() for v in tagger.trainable_variables]
        decay = min(0.5, (step - 1) / (step + 8))
        if expected is None:
            expected = weights
        pairs = zip(expected, weights, strict=True)
        expected = [decay * old + (1 - decay) * new for old, new in pairs]
    model.load_average()
    for variable, value in zip(tagger.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-5, atol=1e-7)


def test_mean_over_epochs_equals_numpy():
    tagger = small_tagger(norm=False)
    model = training_model(tagger, sgd(), averaging="swa")
    taken = []
    for epoch in range(6):
        fit(model)
        if epoch % 2:
            model.average_epoch()
            taken.append([v.numpy() for v in tagger.trainable_variables])
    model.load_average()
    for i, variable in enumerate(tagger.trainable_variables):
        mean = np.mean([values[i] for values in taken], axis=0)
        np.testing.assert_allclose(variable.numpy(), mean, rtol=1e-5, atol=1e-7)


def test_masked_weights_stay_zero_despite_momentum():
    model = training_model(small_tagger(), prune=True, averaging="ema")
    fit(model, steps=3)  # the momentum is not zero any more
    kernel, mask = model.masks[0]
    chosen = np.random.default_rng(0).integers(0, 2, kernel.shape).astype("float32")
    mask.assign(chosen)
    model.apply_masks()
    fit(model, steps=3)
    np.testing.assert_array_equal(kernel.numpy() == 0, chosen == 0)
    model.load_average()
    np.testing.assert_array_equal(kernel.numpy() == 0, chosen == 0)


def test_class_weights_equal_numpy():
    waveform, labels, mask = batch()
    weights = np.array([1.0, 3.0, 0.5], "float32")
    model = training_model(small_tagger(norm=False), class_weights=weights)
    p = 1 / (1 + np.exp(-model(waveform).numpy().astype("float64")))
    terms = -(weights * labels * np.log(p) + (1 - labels) * np.log(1 - p)) * mask
    assert fit(model)[0] == pytest.approx(terms.mean(), rel=1e-5)

    waveform, labels, _ = batch(task="single_label")
    model = training_model(small_tagger("single_label", norm=False), class_weights=weights)
    logits = model(waveform).numpy().astype("float64")
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    terms = -(weights * labels * np.log(p)).sum(axis=1)
    assert fit(model)[0] == pytest.approx(terms.mean(), rel=1e-5)


def test_a_model_of_spectrograms_trains_but_has_no_waveform_to_augment():
    tagger = small_tagger()
    inputs = keras.Input((None, 16, 1))
    network = keras.Model(
        inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(inputs))
    )
    model = training_model(network, augmentation=[RandomTimeRoll()])
    waveform, labels, mask = batch()
    spectrogram = tagger.get_layer("frontend")(waveform).numpy()
    losses = fit(model, steps=10, data=(spectrogram, labels, mask))
    assert losses[-1] < losses[0]
    with pytest.raises(ConfigError, match="no waveform to augment"):
        training_model(network, waveform_augmentation=[RandomGain()])


ON_THE_HOST = ("PyFunc", "EagerPyFunc", "PyFuncStateless", "Print", "PrintV2")


@pytest.mark.parametrize("jit", [False, True])
def test_a_step_is_traced_once_and_stays_in_the_graph(jit):
    model = everything(jit=jit)
    traced = []
    prepare = model.prepare
    model.prepare = lambda *data: traced.append(1) or prepare(*data)
    batches = tf.data.Dataset.from_tensors(batch()).repeat()
    # As in a resumed run: the rest of an epoch and the other epochs are separate calls.
    model.fit(batches, steps_per_epoch=2, epochs=1, shuffle=False, verbose=0)
    model.average_epoch()
    model.fit(batches, steps_per_epoch=3, initial_epoch=1, epochs=3, shuffle=False, verbose=0)
    steps = int(model.optimizer.iterations.numpy())
    assert steps == 8
    assert len(traced) == 1

    waveform, labels, mask = batch()
    step = tf.function(lambda: model.train_step((waveform, labels, mask)))
    graph = step.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    assert any(node.op == "Conv2DBackpropFilter" for node in nodes)
    assert not [node.name for node in nodes if node.op in ON_THE_HOST]


def test_recomputed_statistics_are_the_mean_over_the_batches():
    tagger = small_tagger()
    model = training_model(tagger, augmentation=[RandomTimeRoll()])
    fit(model, steps=3)
    norm, conv = tagger.get_layer("bn"), tagger.get_layer("conv")
    before = {v.path: v.numpy() for v in state_variables(model)}
    waveforms = [batch(seed=seed)[0] for seed in range(5)]
    recompute_statistics(model, waveforms)
    maps = [np.asarray(conv(tagger.get_layer("frontend")(w)), "float64") for w in waveforms]
    means = np.mean([m.mean((0, 1, 2)) for m in maps], axis=0)
    variances = np.mean([m.var((0, 1, 2)) for m in maps], axis=0)
    np.testing.assert_allclose(norm.moving_mean.numpy(), means, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance.numpy(), variances, rtol=1e-4)
    assert norm.momentum == 0.9
    for variable in state_variables(model):  # weights and seeds do not change
        if "moving" not in variable.path:
            np.testing.assert_array_equal(variable.numpy(), before[variable.path])


def test_statistics_are_recomputed_with_inputs_normalised_by_the_batch():
    """Check a second layer, whose statistics depend on the first using those of the batch."""
    inputs = keras.Input((8, 4, 2))
    first, second = keras.layers.BatchNormalization(), keras.layers.BatchNormalization()
    outputs = keras.layers.GlobalAveragePooling2D()(second(first(inputs) * 3.0 + 1.0))
    model = training_model(keras.Model(inputs, outputs))
    rng = np.random.default_rng(0)
    first.moving_mean.assign([50.0, -50.0])
    batches = [rng.normal(s, 1 + s, (6, 8, 4, 2)).astype("float32") for s in range(3)]
    recompute_statistics(model, batches)
    np.testing.assert_allclose(second.moving_mean.numpy(), 1.0, atol=1e-4)
    np.testing.assert_allclose(second.moving_variance.numpy(), 9.0, rtol=2e-3)


def test_every_batch_has_separate_random_draws():
    """Check that x and -x become (2a - 1) x with a in [0, 1): a third of the power."""
    inputs = keras.Input((8, 4, 2))
    norm = keras.layers.BatchNormalization()
    x = ShakeShake(per="batch", seed=1)([inputs, inputs * -1.0])
    outputs = keras.layers.GlobalAveragePooling2D()(norm(ReplicaDropout(0.5, seed=2)(x)))
    model = training_model(keras.Model(inputs, outputs))
    before = [v.numpy() for v in state_variables(model)]
    batches = np.random.default_rng(0).normal(size=(400, 6, 8, 4, 2)).astype("float32")
    recompute_statistics(model, batches)
    # (2a - 1)^2 has the deviation 0.3, its mean over 400 draws 0.015. Dropout doubles both.
    np.testing.assert_allclose(norm.moving_variance.numpy(), 2 / 3, atol=4 * 0.03)
    first = norm.moving_variance.numpy()
    recompute_statistics(model, batches)
    np.testing.assert_array_equal(norm.moving_variance.numpy(), first)  # seeds restored
    for variable, value in zip(state_variables(model), before, strict=True):
        if "moving" not in variable.path:
            np.testing.assert_array_equal(variable.numpy(), value)


def test_recomputing_needs_a_batch_but_no_batch_normalisation():
    with pytest.raises(ConfigError, match="at least one batch"):
        recompute_statistics(training_model(small_tagger()), [])
    recompute_statistics(training_model(small_tagger(norm=False)), [])


def test_float16_keeps_the_statistics_if_the_forward_pass_overflows():
    def step():
        model.reset_metrics()
        return float(model.train_step(batch())["loss"])

    with dtype_policy("mixed_float16"):
        model = training_model(small_tagger())
        assert np.isfinite(step())
        kernel, norm = model.tagger.get_layer("conv").kernel, model.tagger.get_layer("bn")
        statistics = norm.moving_mean.numpy(), norm.moving_variance.numpy()
        good = kernel.numpy()
        kernel.assign(good * 1e8)  # beyond 65504
        assert np.isnan(step())  # no step counts
        np.testing.assert_array_equal(norm.moving_mean.numpy(), statistics[0])
        np.testing.assert_array_equal(norm.moving_variance.numpy(), statistics[1])
        np.testing.assert_array_equal(kernel.numpy(), (good * 1e8).astype("float32"))
        kernel.assign(good)
        assert np.isfinite(step())
        assert not np.array_equal(norm.moving_mean.numpy(), statistics[0])
    assert all(np.isfinite(v.numpy()).all() for v in state_variables(model))


@pytest.mark.parametrize(
    ("activation", "task"), [("sigmoid", "multi_label"), ("softmax", "single_label")]
)
def test_a_model_that_ends_in_probabilities_trains_like_its_logits(activation, task):
    losses = []
    for ending in (None, activation):
        tagger = small_tagger(task)
        outputs = tagger.outputs[0]
        if ending:
            outputs = keras.layers.Activation(ending, dtype="float32")(outputs)
        model = training_model(keras.Model(tagger.inputs[0], outputs), sgd())
        model.run_eagerly = True
        assert model.task == task
        losses.append(fit(model, steps=3, data=batch(task=task)))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
