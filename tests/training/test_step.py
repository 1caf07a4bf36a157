"""The training step: the usual one when nothing is added, and each addition by numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rfkeras.errors import ConfigError
from rfkeras.layers import RandomGain, RandomTimeRoll
from rfkeras.training.losses import MaskedBinaryCrossentropy
from rfkeras.training.optimizer import Adam
from rfkeras.training.run_dir import state_variables
from rfkeras.training.setup import dtype_policy
from tests.helpers.small_tagger import batch, everything, fit, small_tagger, training_model


def sgd(rate=0.1):
    return keras.optimizers.SGD(rate)


def test_without_additions_it_is_the_step_of_keras():
    plain = small_tagger()
    plain.compile(Adam(1e-2), MaskedBinaryCrossentropy(), jit_compile=False)
    waveform, labels, mask = batch()
    expected = [plain.train_on_batch(waveform, labels, mask) for _ in range(3)]
    wrapped = small_tagger()
    losses = fit(training_model(wrapped), steps=3)
    assert losses[0] == pytest.approx(float(expected[0]), rel=1e-6)
    for variable, other in zip(state_variables(plain), state_variables(wrapped), strict=True):
        np.testing.assert_allclose(other.numpy(), variable.numpy(), rtol=1e-5, atol=1e-6)


def test_the_tagger_knows_nothing_of_what_surrounds_it(tmp_path):
    model = everything()
    fit(model, steps=2)
    tagger = model.tagger
    assert [v.path for v in tagger.variables] == [v.path for v in small_tagger().variables]
    tagger.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    x = batch()[0]
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), tagger.predict(x, verbose=0))
    np.testing.assert_allclose(model(x), tagger(x), rtol=1e-5)


def test_state_holds_everything_once():
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


def test_augmentation_reaches_the_trunk_and_mixes_labels():
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
def test_xla_takes_the_same_step(task):
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
def test_every_precision_learns_and_keeps_the_ends_in_float32(policy, jit):
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


def test_moving_average_by_numbers():
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


def test_mean_over_epochs_by_numbers():
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


def test_masked_weights_stay_zero_whatever_the_optimiser_remembers():
    model = training_model(small_tagger(), prune=True, averaging="ema")
    fit(model, steps=3)  # momentum points somewhere by now
    kernel, mask = model.masks[0]
    chosen = np.random.default_rng(0).integers(0, 2, kernel.shape).astype("float32")
    mask.assign(chosen)
    model.apply_masks()
    fit(model, steps=3)
    np.testing.assert_array_equal(kernel.numpy() == 0, chosen == 0)
    model.load_average()
    np.testing.assert_array_equal(kernel.numpy() == 0, chosen == 0)


def test_class_weights_by_numbers():
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


def test_a_model_of_spectrograms_trains_too_but_has_no_waveform():
    tagger = small_tagger()
    inputs = keras.Input((None, 16, 1))
    trunk = keras.Model(
        inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(inputs))
    )
    model = training_model(trunk, augmentation=[RandomTimeRoll()])
    waveform, labels, mask = batch()
    spectrogram = tagger.get_layer("frontend")(waveform).numpy()
    losses = fit(model, steps=10, data=(spectrogram, labels, mask))
    assert losses[-1] < losses[0]
    with pytest.raises(ConfigError, match="no waveform to augment"):
        training_model(trunk, waveform_augmentation=[RandomGain()])


ON_THE_HOST = ("PyFunc", "EagerPyFunc", "PyFuncStateless", "Print", "PrintV2")


@pytest.mark.parametrize("jit", [False, True])
def test_a_step_is_traced_once_and_stays_in_the_graph(jit):
    model = everything(jit=jit)
    traced = []
    prepare = model.prepare
    model.prepare = lambda *data: traced.append(1) or prepare(*data)
    batches = tf.data.Dataset.from_tensors(batch()).repeat()
    # As training does it: an epoch's rest, then the others, in calls of their own.
    model.fit(batches, steps_per_epoch=2, epochs=1, verbose=0)
    model.average_epoch()
    model.fit(batches, steps_per_epoch=3, initial_epoch=1, epochs=3, verbose=0)
    steps = int(model.optimizer.iterations.numpy())
    assert steps == 8
    assert len(traced) == 1

    waveform, labels, mask = batch()
    step = tf.function(lambda: model.train_step((waveform, labels, mask)))
    graph = step.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    assert any(node.op == "Conv2DBackpropFilter" for node in nodes)
    assert not [node.name for node in nodes if node.op in ON_THE_HOST]
