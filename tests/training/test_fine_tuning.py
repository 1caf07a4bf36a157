"""Training from initial weights: freezing, later unfreezing, and options of the weights."""

import json
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from rfkeras.cli.main import build_parser
from rfkeras.cli.sweep import plan
from rfkeras.config.resolve import complete, implied_options, merge_options, resolve
from rfkeras.config.train_config import TrainConfig, to_json
from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.experiments.search import check_space
from rfkeras.experiments.search_space import parse_space
from rfkeras.frontend import create_frontend
from rfkeras.training.optimizer import Adam, AdamW, make_optimizer
from rfkeras.training.run_dir import load_snapshot, save_snapshot, state_variables
from rfkeras.training.step import build_training_model, dtype_policy, recompute_statistics
from tests.helpers.small_tagger import batch, fit, small_tagger, training_model
from zoo.transfer import full_name, weights_file

BACKBONE, CLASSIFIER = ("conv", "bn"), ("classifier",)


def weights_of(model, layers):
    tagger = model.tagger
    return [v.numpy() for name in layers for v in tagger.get_layer(name).weights]


def moments_of(model, layers):
    """Return Adam's moments of the weights of layers."""
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
def test_a_frozen_backbone_does_not_change_and_trains_afterwards(policy, options):
    with dtype_policy(policy):
        model = frozen_model(**options)
        backbone, classifier = weights_of(model, BACKBONE), weights_of(model, CLASSIFIER)
        fit(model, steps=3)
        assert same(backbone, weights_of(model, BACKBONE))
        assert not any(np.any(moments) for moments in moments_of(model, BACKBONE))
        assert not same(classifier, weights_of(model, CLASSIFIER))
        for variable, average in model.averages[:3]:  # of the backbone
            np.testing.assert_array_equal(average.numpy(), variable.numpy())
        model.freeze(False)
        fit(model, steps=1)
    for before, after in zip(backbone, weights_of(model, BACKBONE), strict=True):
        assert not np.array_equal(before, after)
    assert all(np.any(moments) for moments in moments_of(model, BACKBONE))


@pytest.mark.parametrize(
    ("options", "prepared"),
    [({}, False), ({"freeze": "trunk"}, True), ({"trunk_lr_scale": 0.5}, True)],
)
def test_a_run_prepares_for_freezing_if_an_option_needs_it(options, prepared, monkeypatch):
    monkeypatch.setattr("rfkeras.training.step.build_tagger", lambda inputs: small_tagger())
    weights = "w" if options else None
    inputs = SimpleNamespace(
        config=TrainConfig(epochs=4, init_weights=weights, **options),
        dataset=SimpleNamespace(
            split=lambda name: SimpleNamespace(labels=None, mask=None),
            label_names=None,
            task="multi_label",
        ),
        steps_per_epoch=1,
    )
    model = build_training_model(inputs, tf.distribute.get_strategy())
    assert model.may_freeze is prepared
    assert len(model.backbone_indices) == (3 if prepared else 0)
    assert model.optimizer.built


def test_a_frozen_backbone_runs_as_in_inference():
    model = frozen_model()
    model.tagger.get_layer("bn").moving_mean.assign([3.0, 0.0, -1.0, 0.5])
    waveform, labels, mask = batch()
    p = 1 / (1 + np.exp(-model.tagger(waveform, training=False).numpy().astype("float64")))
    terms = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)) * mask
    assert fit(model)[0] == pytest.approx(terms.mean(), rel=1e-5)


def test_recomputing_statistics_keeps_those_of_a_frozen_backbone():
    model = frozen_model()
    before = weights_of(model, BACKBONE)
    recompute_statistics(model, [batch()[0]])
    assert same(before, weights_of(model, BACKBONE))
    model.freeze(False)
    recompute_statistics(model, [batch()[0]])
    assert not same(before, weights_of(model, BACKBONE))


def test_resuming_before_or_after_unfreezing_gives_the_same_weights(tmp_path):
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


def test_variables_that_start_later_are_updated_as_by_a_new_optimizer():
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


def test_a_later_start_works_with_steps_that_were_not_counted():
    """Check that a float16 step that overflows is skipped and not counted."""
    variables = [keras.Variable(np.ones(2, "float32"))]
    optimizer = Adam(0.1)
    optimizer.hold_back([0], 1.0, begins_at=10)
    optimizer.build(variables)
    optimizer.iterations.assign(7)
    optimizer.apply([np.full(2, 0.5, "float32")], variables)
    # The first update of Adam is as large as the learning rate.
    np.testing.assert_allclose(variables[0], 0.9, rtol=1e-5)


def test_the_configuration_determines_which_variables_start_later():
    config = TrainConfig(
        init_weights="w", freeze="trunk", unfreeze_after=2, trunk_lr_scale=0.1, epochs=4
    )
    model = training_model(small_tagger(), may_freeze=True)
    optimizer = make_optimizer(
        config, model.tagger.trainable_variables, 7, model.backbone_indices
    )
    assert isinstance(optimizer, Adam)
    assert (optimizer._held_back, optimizer._rate_scale) == ({0, 1, 2}, 0.1)
    assert optimizer._begins_at == 14


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": "trunk"}, "frozen weights are random"),
        ({"freeze": "trunk", "unfreeze_after": 4}, "less than the 4 epochs"),
        ({"freeze": "trunk", "prune_share": 0.5}, "Pruning changes"),
        ({"freeze": "trunk", "trunk_lr_scale": 0.1}, "trunk that never trains"),
        (
            {
                "freeze": "trunk",
                "unfreeze_after": 2,
                "averaging": "swa",
                "swa_start_epoch": 2,
            },
            "mixes weights",
        ),
    ],
)
def test_contradicting_options_are_errors(options, message):
    weights = {} if message == "frozen weights are random" else {"init_weights": "w"}
    with pytest.raises(ConfigError, match=message):
        TrainConfig(epochs=4, **weights, **options)


def test_options_that_need_other_options():
    for flags in ({"freeze": "trunk"}, {"trunk_lr_scale": 0.5}):
        with pytest.raises(ConfigError, match="needs --init-weights"):
            merge_options(flags)
    with pytest.raises(ConfigError, match="needs --freeze trunk"):
        merge_options({"init_weights": "w", "unfreeze_after": 1})
    averaged = TrainConfig(
        epochs=4, init_weights="w", freeze="trunk", unfreeze_after=3, averaging="swa"
    )
    assert averaged.first_averaged_epoch == 4


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Write a finished run with another width and an absolute floor."""
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


def resolve_with(flags):
    flags = {"dataset": "folder", **flags}
    return resolve(flags)


def test_initial_weights_imply_the_options_of_the_network(run_folder):
    for named in (run_folder, run_folder / "model.keras"):
        config = resolve_with({"init_weights": str(named)})
        assert (config.model, config.width, config.rho) == ("resnet_rf_tiny", 4, 1)
        assert config.fixed_floor
        assert weights_file(config.init_weights, config.model) == run_folder / "model.keras"
    assert resolve_with({"init_weights": str(run_folder), "width": "4"}).width == 4
    # The same network under another name.
    assert resolve_with({"init_weights": str(run_folder), "model": "resnet_rf"}).width == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"width": "8"}, r"have width=4.*width=8"),
        ({"rho": "7,3"}, "have rho=1"),
        ({"fixed_floor": False}, "have fixed_floor=True"),
        ({"frontend": "mel_32k"}, "have frontend='perceptual_mel_22k'"),
        ({"model": "crnn"}, "belong to a resnet_rf_tiny"),
    ],
)
def test_options_that_contradict_the_weights_are_errors(flags, message, run_folder):
    with pytest.raises(ConfigError, match=message):
        resolve_with({"init_weights": str(run_folder), **flags})


def test_a_keras_file_implies_model_and_frontend(run_folder, tmp_path):
    path = tmp_path / "w.keras"
    path.write_bytes((run_folder / "model.keras").read_bytes())
    assert implied_options(str(path), "resnet_rf") == {
        "model": "resnet_rf_tiny",
        "frontend": "perceptual_mel_22k",
        "fixed_floor": True,
        "input_channels": 1,
    }
    with pytest.raises(CheckpointError, match="no pretrained weights have this name"):
        implied_options(str(tmp_path / "absent.keras"), "resnet_rf")


def test_a_configuration_is_complete_even_if_its_weights_are_missing():
    config = TrainConfig(init_weights="/gone/model.keras", dataset="folder")
    assert complete(config).init_weights == "/gone/model.keras"
    assert full_name("nothing", "resnet_rf") == "nothing"
    assert json.loads(to_json(replace(config, freeze="trunk")))["freeze"] == "trunk"


@pytest.mark.parametrize(
    ("flags", "rates"),
    [
        ({}, (1e-2, 0.01)),
        ({"freeze": "trunk", "unfreeze_after": 5}, (1e-2, 0.01)),
        ({"freeze": "trunk"}, (1e-2, 1.0)),
        ({"learning_rate": 1e-4}, (1e-4, 1.0)),
        ({"trunk_lr_scale": 0.5}, (1e-4, 0.5)),
    ],
)
def test_the_classifier_has_a_higher_rate_unless_a_rate_is_given(flags, rates, run_folder):
    config = resolve_with({"init_weights": str(run_folder), **flags})
    assert (config.learning_rate, config.trunk_lr_scale) == rates
    plain = resolve_with({})
    assert (plain.learning_rate, plain.trunk_lr_scale) == (1e-4, 1.0)


def test_a_sweep_and_a_search_check_options_against_initial_weights(run_folder):
    weights = ["--init-weights", str(run_folder), "--dataset", "folder"]

    def parse(given):
        options = build_parser(("sweep",)).parse_args(given)
        vars(options).pop("imports", None)  # as `rfkeras.cli.main.run` does
        return options

    for flags, message in (
        (["--rho", "1,7"], "have rho=1"),
        (["--width", "8"], "have width=4"),
    ):
        given = ["sweep", *(["--rho", "1"] if "--rho" not in flags else []), *flags, *weights]
        with pytest.raises(ConfigError, match=message):
            plan(parse(given))
    base = resolve({"init_weights": str(run_folder), "dataset": "folder"}, shared=True)
    for space in ({"rho_time": "1,7", "rho_frequency": "1,7"}, {"width": "4,8"}):
        with pytest.raises(ConfigError, match="Some trials are impossible.*The weights"):
            check_space(parse_space(space), base)
    check_space(parse_space({"learning_rate": "1e-4,1e-3"}), base)
