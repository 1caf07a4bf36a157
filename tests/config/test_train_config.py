"""Options: values, recipes, contradictions, and their JSON file."""

import argparse
import dataclasses
import json

import pytest

from rfkeras.config.resolve import add_flags, complete, merge_options
from rfkeras.config.train_config import TrainConfig, check_parts, from_json, from_text, to_json
from rfkeras.errors import ConfigError


def test_a_configuration_survives_a_json_round_trip(tmp_path):
    config = TrainConfig(
        rho=(3, 5), blocks=(4, 3, 2), class_weights={"drums": 2.0}, prune_share=0.5, mixup=0.3
    )
    (tmp_path / "config.json").write_text(to_json(config))
    again = from_json(tmp_path / "config.json")
    assert again == dataclasses.replace(config)


def test_a_recorded_configuration_is_read_without_the_parts_it_names():
    values = {"loss": "my_focal", "augment": ["noise"], "metrics": ["exact"], "rho": 5}
    config = from_text(json.dumps(values), "config.json")
    assert (config.loss, config.augment, config.rho) == ("my_focal", ("noise",), 5)
    for name in values:
        if name != "rho":
            changed = dataclasses.replace(TrainConfig(), **{name: getattr(config, name)})
            with pytest.raises(ConfigError, match=f"config.json: {name}: Unknown .* --import"):
                check_parts(changed, "config.json")
    check_parts(TrainConfig(), "config.json")


def test_flags_override_recipes_and_recipes_override_defaults():
    recipe = {"mixup": 0.3, "class_weights": {"drums": 2}, "averaging": "swa", "swa_every": 5}
    config = merge_options({"mixup": "0.1"}, [("r.yaml", recipe)])
    assert (config.mixup, config.swa_every, config.ema_decay) == (0.1, 5, 0.999)
    assert config.class_weights == {"drums": 2.0}


def test_every_option_has_a_flag_in_one_group():
    parser = argparse.ArgumentParser()
    add_flags(parser)
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
        ({"weight_decay": 0.1}, "weight_decay needs optimizer adamw"),
        ({"hold_epochs": 50, "decay_end_epoch": 50}, "held for 50 epochs .* ends at epoch 50"),
        ({"hold_epochs": 150, "schedule": "published"}, "ends at epoch 142.857 .*'published'"),
        ({"hold_epochs": 200}, "less than the 200 epochs.* set final_learning_rate to"),
        ({"decay_end_epoch": 201}, "Leave it out to decay until the last epoch"),
        ({"schedule": "linaer"}, "Did you mean 'linear'"),
        ({"averaging": "swa", "swa_start_epoch": 201}, "one of the 200 epochs"),
        ({"swa_start_epoch": 100}, "swa_start_epoch needs averaging swa"),
        ({"final_weights": "average"}, "needs averaging swa or ema"),
        ({"prune_share": 0.5, "prune_to_parameters": 100}, "give only one"),
        ({"prune_share": 0.5, "epochs": 50, "prune_epochs": 50}, "prune_epochs=50, epochs=50"),
        ({"prune_share": 0.5, "epochs": 1}, "prune_epochs lower than epochs"),
        (
            {"prune_share": 0.5, "averaging": "swa", "swa_start_epoch": 50},
            "after the 50 epochs of pruning",
        ),
        ({"swa_every": 5}, "^--swa-every 5 needs --averaging swa.$"),
        ({"swa_every": 3, "averaging": "ema"}, "--swa-every 3 needs --averaging swa"),
        ({"ema_decay": 0.9, "averaging": "swa"}, "--ema-decay 0.9 needs --averaging ema"),
        (
            {"averaging": "swa", "final_weights": "last"},
            "--averaging swa needs --final-weights best or average",
        ),
        ({"time_masks": 3}, "--time-masks 3 needs --spec-augment"),
        ({"time_mask_frames": 3}, "--time-mask-frames 3 needs --spec-augment"),
        ({"frequency_masks": 3}, "--frequency-masks 3 needs --spec-augment"),
        (
            {"frequency_mask_bands": 3, "spec_augment": False},
            "--frequency-mask-bands 3 needs --spec-augment",
        ),
        (
            {"prune_scope": "layer"},
            "--prune-scope layer needs --prune-share or --prune-to-parameters",
        ),
        ({"prune_ramp": "linear"}, "needs --prune-share or --prune-to-parameters"),
        ({"prune_epochs": 3}, "--prune-epochs 3 needs --prune-share or"),
        ({"class_weights": "balance"}, "Did you mean 'balanced'"),
        ({"class_weights": {"drums": -1}}, "drums must be a number of at least 0"),
        ({"precision": "float16"}, "Allowed: float32, mixed_bfloat16, mixed_float16"),
        ({"prune_share": 1.0}, "--prune-share must be a number from 0 to 0.9999"),
        ({"cache_features": True}, "cache_features needs fixed_floor"),
        ({"cache_features": True, "fixed_floor": True, "gain_db": 3}, "gain_db to 0.*=3"),
        (
            {"cache_features": True, "fixed_floor": True, "dataset": "packed"},
            "not with packed shards",
        ),
        ({"mixup": "x"}, "--mixup must be a number from 0 to 100"),
    ],
)
def test_contradictions_and_bad_values_are_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        merge_options(options)


def test_a_complete_configuration_contains_all_defaults():
    config = complete(TrainConfig(model="vgg_rf", dataset="folder", optimizer="adamw"))
    assert (config.weight_decay, config.width, config.dropout) == (0.01, 48, 0.3)
    assert config.shake is None  # the architecture has no such option
    assert config.swa_start_epoch is None
    config = complete(TrainConfig(dataset="folder", averaging="swa", epochs=14))
    assert (config.swa_start_epoch, config.weight_decay) == (10, None)


@pytest.mark.parametrize("epochs", [1, 2, 7, 20, 30, 50, 200, 350, 1000])
@pytest.mark.parametrize("schedule", ["linear", "published"])
def test_any_number_of_epochs_works_without_further_options(epochs, schedule):
    config = merge_options({"epochs": epochs, "schedule": schedule})
    assert config.hold_until_epoch == pytest.approx(epochs / 7)
    end = epochs if schedule == "linear" else epochs * 5 / 7
    assert config.decay_until_epoch == pytest.approx(end)
    assert config.prune_until_epoch == 0
    if epochs > 1:
        pruned = merge_options({"epochs": epochs, "prune_share": 0.8, "averaging": "swa"})
        assert pruned.prune_until_epoch == min(-(-epochs // 2), 50)
        assert pruned.prune_until_epoch < pruned.first_averaged_epoch <= epochs
        completed = complete(dataclasses.replace(pruned, dataset="folder"))
        assert completed.first_averaged_epoch == pruned.first_averaged_epoch


def test_details_are_ignored_if_a_stronger_source_turns_them_off():
    base = {"averaging": "swa", "swa_every": 5, "spec_augment": True, "time_masks": 3}
    recipes = [("base.yaml", base), ("own.yaml", {"spec_augment": False})]
    config = merge_options({"averaging": "ema"}, recipes)
    assert (config.averaging, config.swa_every, config.spec_augment) == ("ema", 5, False)
    assert merge_options({"final_weights": "last"}, recipes).averaging == "swa"
    with pytest.raises(ConfigError, match=r"^--time-masks 1 needs --spec-augment"):
        merge_options({"time_masks": 1}, recipes)
    with pytest.raises(ConfigError, match=r"^own.yaml: time_masks needs --spec-augment"):
        merge_options({}, [recipes[0], ("own.yaml", {**recipes[1][1], "time_masks": 3})])
    with pytest.raises(ConfigError, match=r"^r.yaml: prune_epochs needs --prune-share"):
        merge_options({"epochs": 3}, [("r.yaml", {"prune_epochs": 3})])


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        ({"dataset": "folder", "data_dir": "clips"}, "clips"),
        ({"dataset": "openmic"}, "clips"),
        ({"dataset": "gtzan"}, "grouped"),
        ({"dataset": "folder", "split_rule": "grouped"}, "grouped"),
        (json.loads(to_json(TrainConfig(dataset="openmic"))), "grouped"),
    ],
)
def test_the_split_rule_of_configurations_of_version_0_1_0(written, rule):
    assert from_text(json.dumps(written), "config.json").split_rule == rule
