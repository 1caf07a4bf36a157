"""Training that starts from weights: what is frozen, what moves, and what options agree."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest

import zoo
from rfkeras.config.recipes import (
    check_agrees,
    complete,
    file_of,
    full_name,
    options_of,
    recipes_for,
)
from rfkeras.config.train_config import TrainConfig, resolve, to_json
from rfkeras.errors import ConfigError
from rfkeras.frontend import create_frontend
from rfkeras.training.optimizer import Adam, AdamW, make_optimizer
from rfkeras.training.run import fit_calls
from rfkeras.training.run_dir import load_snapshot, save_snapshot, state_variables
from rfkeras.training.setup import dtype_policy, recompute_statistics
from tests.helpers.small_tagger import batch, fit, small_tagger, training_model

TRUNK, CLASSIFIER = ("conv", "bn"), ("classifier",)


def weights_of(model, layers):
    tagger = model.tagger
    return [v.numpy() for name in layers for v in tagger.get_layer(name).weights]


def moments_of(model, layers):
    """Adam's moments of these layers' weights."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    trained = model.tagger.trainable_variables
    paths = {v.path for name in layers for v in model.tagger.get_layer(name).weights}
    places = [i for i, v in enumerate(trained) if v.path in paths]
    both = (optimizer._momentums, optimizer._velocities)
    return [moments[i].numpy() for moments in both for i in places]


def same(before, after):
    return all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def frozen_model(optimizer=None, **options):
    model = training_model(
        small_tagger(), optimizer or AdamW(1e-2, weight_decay=0.1), may_freeze=True, **options
    )
    model.freeze(True)
    return model


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("float32", {"averaging": "ema"}),
        ("mixed_float16", {}),
        ("mixed_bfloat16", {"jit": True}),
    ],
)
def test_a_frozen_trunk_stays_bit_for_bit_and_moves_afterwards(policy, options):
    with dtype_policy(policy):
        model = frozen_model(**options)
        trunk, classifier = weights_of(model, TRUNK), weights_of(model, CLASSIFIER)
        fit(model, steps=3)
        assert same(trunk, weights_of(model, TRUNK))
        assert not any(np.any(moments) for moments in moments_of(model, TRUNK))
        assert not same(classifier, weights_of(model, CLASSIFIER))
        for variable, average in model.averages[:3]:  # the trunk's
            np.testing.assert_array_equal(average.numpy(), variable.numpy())
        model.freeze(False)
        fit(model, steps=1)
    for before, after in zip(trunk, weights_of(model, TRUNK), strict=True):
        assert not np.array_equal(before, after)
    assert all(np.any(moments) for moments in moments_of(model, TRUNK))


def test_a_frozen_trunk_computes_what_it_does_at_inference():
    model = frozen_model()
    model.tagger.get_layer("bn").moving_mean.assign([3.0, 0.0, -1.0, 0.5])
    waveform, labels, mask = batch()
    p = 1 / (1 + np.exp(-model.tagger(waveform, training=False).numpy().astype("float64")))
    terms = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)) * mask
    assert fit(model)[0] == pytest.approx(terms.mean(), rel=1e-5)


def test_recomputed_statistics_leave_those_of_a_frozen_trunk():
    model = frozen_model()
    before = weights_of(model, TRUNK)
    recompute_statistics(model, [batch()[0]])
    assert same(before, weights_of(model, TRUNK))
    model.freeze(False)
    recompute_statistics(model, [batch()[0]])
    assert not same(before, weights_of(model, TRUNK))


def test_resumed_on_either_side_of_the_boundary_it_ends_with_the_same_weights(tmp_path):
    def run(model, steps):
        for step in steps:
            model.freeze(step < 2)
            fit(model)
        return [*state_variables(model), *model.optimizer.variables]

    def fresh():
        optimizer = AdamW(1e-2, weight_decay=0.1)
        optimizer.hold_back((0, 1, 2), rate_scale=0.5, begins_at=2)
        return frozen_model(optimizer, averaging="ema")

    whole = [v.numpy() for v in run(fresh(), range(4))]
    broken = fresh()
    for steps, file in ((range(1), "1.npz"), (range(1, 3), "3.npz")):
        save_snapshot(tmp_path / file, run(broken, steps), {})
    for done in (1, 3):
        resumed = fresh()
        variables = [*state_variables(resumed), *resumed.optimizer.variables]
        load_snapshot(tmp_path / f"{done}.npz", variables)
        assert same(whole, [v.numpy() for v in run(resumed, range(done, 4))])


def test_variables_that_begin_later_take_the_steps_of_an_optimiser_that_begins():
    late, early, other = (keras.Variable(np.ones((2, 2), "float32")) for _ in range(3))
    optimizer, plain = (kind(1e-2, weight_decay=0.1) for kind in (AdamW, AdamW))
    optimizer.build([other, late])
    optimizer.hold_back([1], rate_scale=0.25, begins_at=5)
    plain.learning_rate = 0.25e-2
    plain.build([early])
    gradients = np.random.default_rng(0).normal(0, 1, (12, 2, 2)).astype("float32")
    for step, gradient in enumerate(gradients):
        if step < 5:
            optimizer.apply([gradient], [other])
            continue
        optimizer.apply([gradient, gradient], [other, late])
        plain.apply([gradient], [early])
        np.testing.assert_allclose(late.numpy(), early.numpy(), rtol=1e-6)


def test_a_late_beginning_survives_steps_that_were_not_counted():
    """A float16 step that overflows is skipped: fewer may be counted than were taken."""
    variables = [keras.Variable(np.ones(2, "float32"))]
    optimizer = Adam(0.1)
    optimizer.hold_back([0], 1.0, begins_at=10)
    optimizer.build(variables)
    optimizer.iterations.assign(7)
    optimizer.apply([np.full(2, 0.5, "float32")], variables)
    # The first step of Adam is as long as the learning rate.
    np.testing.assert_allclose(variables[0], 0.9, rtol=1e-5)


def test_the_configuration_tells_the_optimiser_what_is_held_back():
    config = TrainConfig(
        init_weights="w", freeze="trunk", unfreeze_after=2, trunk_lr_scale=0.1, epochs=4
    )
    model = training_model(small_tagger(), may_freeze=True)
    optimizer = make_optimizer(config, model.tagger.trainable_variables, 7, model.trunk_places)
    assert isinstance(optimizer, Adam)
    assert (optimizer._held_back, optimizer._rate_scale) == ({0, 1, 2}, 0.1)
    assert optimizer._begins_at == 14


@pytest.mark.parametrize(
    ("start", "frozen", "calls"),
    [
        (0, 20, [(0, 20), (20, 40)]),
        (13, 20, [(13, 20), (20, 40)]),
        (3, 20, [(3, 10), (10, 20), (20, 40)]),
        (23, 20, [(23, 30), (30, 40)]),
        (20, 20, [(20, 40)]),
        (0, float("inf"), [(0, 40)]),
        (40, 20, []),
    ],
)
def test_calls_of_fit_end_where_the_trunk_is_unfrozen(start, frozen, calls):
    assert fit_calls(start, 40, 10, frozen) == calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": "trunk"}, "never trained"),
        ({"freeze": "trunk", "unfreeze_after": 4}, "fewer than the 4 epochs"),
        ({"freeze": "trunk", "prune_share": 0.5}, "Pruning changes"),
        ({"freeze": "trunk", "trunk_lr_scale": 0.1}, "trunk that never trains"),
        (
            {
                "freeze": "trunk",
                "unfreeze_after": 2,
                "averaging": "swa",
                "swa_start_epoch": 2,
            },
            "two trainings",
        ),
    ],
)
def test_options_that_make_no_sense(options, message):
    weights = {} if message == "never trained" else {"init_weights": "w"}
    with pytest.raises(ConfigError, match=message):
        TrainConfig(epochs=4, **weights, **options)


def test_options_that_need_others():
    for flags in ({"freeze": "trunk"}, {"trunk_lr_scale": 0.5}):
        with pytest.raises(ConfigError, match="set init_weights"):
            resolve(TrainConfig, flags)
    with pytest.raises(ConfigError, match="set freeze to trunk"):
        resolve(TrainConfig, {"init_weights": "w", "unfreeze_after": 1})
    averaged = TrainConfig(
        epochs=4, init_weights="w", freeze="trunk", unfreeze_after=3, averaging="swa"
    )
    assert averaged.first_averaged_epoch == 4


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run of another width, with an absolute floor."""
    folder = tmp_path_factory.mktemp("run")
    config = TrainConfig(
        model="resnet_rf_tiny", width=4, rho=1, fixed_floor=True, dataset="folder"
    )
    (folder / "config.json").write_text(to_json(complete(config)))
    zoo.create_model(
        "resnet_rf_tiny",
        3,
        width=4,
        rho=1,
        frontend=create_frontend("perceptual_mel_22k", fixed_floor=True),
    ).save(folder / "model.keras")
    return folder


def options_with(flags):
    flags = {"dataset": "folder", **flags}
    config = resolve(TrainConfig, flags, recipes_for(flags, None))
    check_agrees(config)
    return complete(config)


def test_the_network_is_that_of_the_weights(run_folder):
    for named in (run_folder, run_folder / "model.keras"):
        config = options_with({"init_weights": str(named)})
        assert (config.model, config.width, config.rho) == ("resnet_rf_tiny", 4, 1)
        assert config.fixed_floor
        assert file_of(config.init_weights, config.model) == run_folder / "model.keras"
    assert options_with({"init_weights": str(run_folder), "width": "4"}).width == 4
    # The same network under another name.
    assert options_with({"init_weights": str(run_folder), "model": "resnet_rf"}).width == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"width": "8"}, r"have width=4.*width=8"),
        ({"rho": "7,3"}, "have rho=1"),
        ({"fixed_floor": False}, "have fixed_floor=True"),
        ({"frontend": "mel_32k"}, "have frontend='perceptual_mel_22k'"),
        ({"model": "crnn"}, "are of a resnet_rf_tiny"),
    ],
)
def test_options_that_contradict_the_weights(flags, message, run_folder):
    with pytest.raises(ConfigError, match=message):
        options_with({"init_weights": str(run_folder), **flags})


def test_a_file_by_itself_tells_its_model_and_frontend(run_folder, tmp_path):
    path = tmp_path / "w.keras"
    path.write_bytes((run_folder / "model.keras").read_bytes())
    assert options_of(str(path), "resnet_rf") == {
        "model": "resnet_rf_tiny",
        "frontend": "perceptual_mel_22k",
        "fixed_floor": True,
        "input_channels": 1,
    }
    with pytest.raises(ConfigError, match="no ready weights of that name"):
        options_of(str(tmp_path / "absent.keras"), "resnet_rf")


def test_a_configuration_whose_weights_are_gone_is_still_complete():
    config = TrainConfig(init_weights="/gone/model.keras", dataset="folder")
    assert complete(config).init_weights == "/gone/model.keras"
    assert full_name("nothing", "resnet_rf") == "nothing"
    assert json.loads(to_json(replace(config, freeze="trunk")))["freeze"] == "trunk"
