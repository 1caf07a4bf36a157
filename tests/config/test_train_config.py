"""Options: values, recipes, contradictions, and their way through a run folder."""

import argparse
import dataclasses

import pytest

from rfkeras.config.recipes import complete
from rfkeras.config.train_config import TrainConfig, add_flags, from_json, resolve, to_json
from rfkeras.errors import ConfigError


def test_a_configuration_comes_back_from_json(tmp_path):
    config = TrainConfig(
        rho=(3, 5), blocks=(4, 3, 2), class_weights={"drums": 2.0}, prune_share=0.5, mixup=0.3
    )
    (tmp_path / "config.json").write_text(to_json(config))
    again = from_json(TrainConfig, tmp_path / "config.json")
    assert again == dataclasses.replace(config)


def test_flags_win_over_recipes_over_defaults():
    recipe = {"mixup": 0.3, "class_weights": {"drums": 2}, "averaging": "swa", "swa_every": 5}
    config = resolve(TrainConfig, {"mixup": "0.1"}, [("r.yaml", recipe)])
    assert (config.mixup, config.swa_every, config.ema_decay) == (0.1, 5, 0.999)
    assert config.class_weights == {"drums": 2.0}


def test_every_option_has_a_flag_in_one_group():
    parser = argparse.ArgumentParser()
    add_flags(parser, TrainConfig)
    titles = [group.title for group in parser._action_groups[2:]]
    assert titles[0] == "model"
    assert len(titles) == len(set(titles)) == 9
    flags = {
        action.dest for group in parser._action_groups[2:] for action in group._group_actions
    }
    assert flags == {field.name for field in dataclasses.fields(TrainConfig)}


def test_by_default_the_training_is_plain():
    config = TrainConfig()
    augmentation = (config.mixup, config.time_roll, config.spec_augment, config.gain_db)
    assert not any(augmentation)
    assert (config.averaging, config.precision, config.jit) == ("none", "float32", False)
    assert (config.class_weights, config.clip_norm, config.prunes) == ("none", None, False)
    assert (config.monitor, config.thresholds) == ("val_mAP", "validation")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_decay": 0.1}, "weight_decay goes with optimizer adamw"),
        ({"hold_epochs": 50, "decay_end_epoch": 50}, "held for 50 epochs .* ends at epoch 50"),
        ({"hold_epochs": 150, "schedule": "published"}, "ends at epoch 142.857 .*'published'"),
        ({"hold_epochs": 200}, "fewer than the 200 epochs.* set final_learning_rate to"),
        ({"decay_end_epoch": 201}, "leave it out to decay to the last epoch"),
        ({"schedule": "linaer"}, "Did you mean 'linear'"),
        ({"averaging": "swa", "swa_start_epoch": 201}, "one of the 200 epochs"),
        ({"swa_start_epoch": 100}, "goes with averaging swa alone"),
        ({"final_weights": "average"}, "set averaging to swa or ema"),
        ({"prune_share": 0.5, "prune_to_parameters": 100}, "give one of them"),
        ({"prune_share": 0.5, "epochs": 50, "prune_epochs": 50}, "prune_epochs=50, epochs=50"),
        ({"prune_share": 0.5, "epochs": 1}, "prune_epochs lower than epochs"),
        (
            {"prune_share": 0.5, "averaging": "swa", "swa_start_epoch": 50},
            "after the 50 epochs that prune",
        ),
        (
            {"swa_every": 5},
            "swa_every has no effect .* averaging is 'none': set averaging to s",
        ),
        ({"swa_every": 3, "averaging": "ema"}, "averaging is 'ema'"),
        ({"ema_decay": 0.9, "averaging": "swa"}, "set averaging to ema"),
        ({"averaging": "swa", "final_weights": "last"}, "set final_weights to best or average"),
        ({"time_masks": 3}, "spec_augment is False: set spec_augment"),
        ({"time_mask_frames": 3}, "spec_augment is False: set spec_augment"),
        ({"frequency_masks": 3}, "spec_augment is False: set spec_augment"),
        ({"frequency_mask_bands": 3, "spec_augment": False}, "spec_augment is False"),
        ({"prune_scope": "layer"}, "prune_share is None and prune_to_parameters is None"),
        ({"prune_ramp": "linear"}, "set prune_share or prune_to_parameters"),
        ({"prune_epochs": 3}, "or leave prune_epochs out. Received: 3"),
        ({"class_weights": "balance"}, "Did you mean 'balanced'"),
        ({"class_weights": {"drums": -1}}, "drums must be a number from 0"),
        ({"precision": "float16"}, "Allowed: float32, mixed_bfloat16, mixed_float16"),
        ({"prune_share": 1.0}, "prune_share must be a number from 0 to 0.9999"),
        ({"mixup": "x"}, "mixup must be a number"),
    ],
)
def test_nonsense_is_refused_before_anything_runs(options, message):
    with pytest.raises(ConfigError, match=message):
        resolve(TrainConfig, options)


def test_a_run_writes_out_what_it_defaults_to():
    config = complete(TrainConfig(model="vgg_rf", dataset="folder", optimizer="adamw"))
    assert (config.weight_decay, config.width, config.dropout) == (0.01, 48, 0.3)
    assert config.shake is None  # the architecture has no such option
    assert config.swa_start_epoch is None
    config = complete(TrainConfig(dataset="folder", averaging="swa", epochs=14))
    assert (config.swa_start_epoch, config.weight_decay) == (10, None)


@pytest.mark.parametrize("epochs", [1, 2, 7, 20, 30, 50, 200, 350, 1000])
@pytest.mark.parametrize("schedule", ["linear", "published"])
def test_any_number_of_epochs_works_without_further_options(epochs, schedule):
    config = resolve(TrainConfig, {"epochs": epochs, "schedule": schedule})
    assert config.hold_until_epoch == pytest.approx(epochs / 7)
    end = epochs if schedule == "linear" else epochs * 5 / 7
    assert config.decay_until_epoch == pytest.approx(end)
    assert config.prune_until_epoch == 0
    if epochs > 1:
        pruned = resolve(
            TrainConfig, {"epochs": epochs, "prune_share": 0.8, "averaging": "swa"}
        )
        assert pruned.prune_until_epoch == min(-(-epochs // 2), 50)
        assert pruned.prune_until_epoch < pruned.first_averaged_epoch <= epochs
        completed = complete(dataclasses.replace(pruned, dataset="folder"))
        assert completed.first_averaged_epoch == pruned.first_averaged_epoch


def test_details_are_left_over_where_something_stronger_turned_them_off():
    base = {"averaging": "swa", "swa_every": 5, "spec_augment": True, "time_masks": 3}
    recipes = [("base.yaml", base), ("own.yaml", {"spec_augment": False})]
    config = resolve(TrainConfig, {"averaging": "ema"}, recipes)
    assert (config.averaging, config.swa_every, config.spec_augment) == ("ema", 5, False)
    assert resolve(TrainConfig, {"final_weights": "last"}, recipes).averaging == "swa"
    with pytest.raises(ConfigError, match=r"^command line: time_masks has no effect"):
        resolve(TrainConfig, {"time_masks": 1}, recipes)
    with pytest.raises(ConfigError, match=r"^own.yaml: time_masks has no effect"):
        resolve(TrainConfig, {}, [recipes[0], ("own.yaml", {**recipes[1][1], "time_masks": 3})])
    with pytest.raises(ConfigError, match=r"^r.yaml: prune_epochs has no effect"):
        resolve(TrainConfig, {"epochs": 3}, [("r.yaml", {"prune_epochs": 3})])
