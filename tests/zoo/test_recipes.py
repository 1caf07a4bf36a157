"""Recipes of the paper's experiments: each trains for two steps on data in its format."""

import dataclasses

import keras
import numpy as np
import pytest

import zoo
from rfkeras.audio.io import AudioFormat
from rfkeras.cli.main import run
from rfkeras.config.recipes import list_recipes, read_recipe
from rfkeras.config.resolve import complete, merge_options
from rfkeras.errors import ConfigError
from rfkeras.frontend import preset_config
from rfkeras.training.data import open_inputs
from rfkeras.training.distributed import make_strategy
from rfkeras.training.run_dir import state_variables
from rfkeras.training.step import build_training_model
from tests.helpers.layouts import write_dcase, write_jamendo, write_jamendo_audio, write_openmic

OWN = ("choose_rho", "gm_instruments")  # of this library, not of the paper
RECIPES = [name for name in list_recipes() if not name.startswith(OWN)]
MOODS = ("happy", "dark", "sad")
# Makes a recipe small without changing what it tests.
SMALL = {"width": 8, "excerpt_seconds": 1.0, "batch_size": 4, "cache_gb": 0.0}
# Whole networks are trained in test_every_model.py.
SHALLOW = {"blocks": (1, 1, 1), "allow_rf_change": True}


def tracks(first, count):
    tags = [f"mood/theme---{mood}" for mood in MOODS]
    return {
        first + i: (first + i, 1.5, f"{tags[i % 3]} {tags[(i + 1) % 3]}") for i in range(count)
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a folder per data set, in its published layout."""
    root = tmp_path_factory.mktemp("datasets")
    songs = {"train": tracks(0, 9), "validation": tracks(20, 4), "test": tracks(40, 4)}
    write_jamendo(root / "jamendo", tracks=songs)
    write_jamendo_audio(root / "jamendo", tracks=songs)
    return {
        "openmic": write_openmic(root, train=12),
        "mtg_jamendo": root / "jamendo",
        "dcase": write_dcase(root, audio=True),
    }


def resolved(name, **flags):
    return complete(merge_options(flags, read_recipe(name)))


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains_for_two_steps(name, folders):
    shallow = SHALLOW if resolved(name).blocks == (4, 4, 4) else {}
    config = resolved(name, **SMALL, **shallow)
    config = dataclasses.replace(config, data_dir=str(folders[config.dataset]))
    audio = AudioFormat(preset_config(config.frontend)["sample_rate_hz"], config.input_channels)
    inputs = open_inputs(config, audio, None)
    model = build_training_model(inputs, make_strategy("cpu"))
    before = [v.numpy() for v in state_variables(model.tagger)]
    model.run_eagerly = True  # tracing takes longer than the steps; the commands below trace
    history = model.fit(
        inputs.training_batches(0, 2), steps_per_epoch=2, shuffle=False, verbose=0
    )
    assert np.isfinite(history.history["loss"][0])
    after = [v.numpy() for v in state_variables(model.tagger)]
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    assert len(model.augmentation) == 1
    assert model.mixup.alpha == 0.3


@pytest.mark.slow
@pytest.mark.usefixtures("one_clean_process")
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("jamendo_moodtheme_resnet_rf_shake_fa", []),
        ("dcase2020_1b_pruned", ["--prune-to-parameters=2000"]),
    ],
)
def test_recipe_runs_from_the_command_line_to_the_export(name, flags, folders, tmp_path):
    data_dir = folders[resolved(name).dataset]
    small = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items()]
    arguments = ["train", "--recipe", name, "--data-dir", str(data_dir), *small, *flags]
    arguments += ["--run-dir", str(tmp_path / "run"), "--epochs=2", "--devices=cpu"]
    arguments += ["--blocks=1,1,1", "--allow-rf-change"]
    assert run(arguments) == 0
    assert (tmp_path / "run/saved_model/1/saved_model.pb").is_file()
    assert (tmp_path / "run/report/report.json").is_file()


def parameters(name):
    config = resolved(name)
    classes = {"openmic": 20, "mtg_jamendo": 56, "dcase": 3}[config.dataset]
    model = zoo.create_model(
        config.model,
        classes,
        frontend=None,
        input_channels=config.input_channels,
        **config.model_options(),
    )
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_full_size_networks_of_the_recipes():
    counts = {name: parameters(name) for name in RECIPES}
    assert counts["openmic_resnet_rf"] == 3_961_768  # as published for 20 classes
    assert counts["dcase2020_1b_decomposed"] == 18_390  # as in their comments
    assert counts["dcase2020_1b_damped"] == counts["dcase2020_1b_pruned"] == 245_958
    assert counts["openmic_resnet_rf_shake"] > 1.9 * counts["openmic_resnet_rf"]


@pytest.mark.parametrize("name", RECIPES)
def test_published_schedule(name):
    config = resolved(name)
    assert (config.learning_rate, config.final_learning_rate) == (1e-4, 1e-6)
    assert (config.batch_size, config.mixup, config.time_roll) == (10, 0.3, True)
    assert (config.averaging, config.swa_every) == ("swa", 3)
    published = config.dataset == "dcase"
    assert config.epochs == (350 if published else 200)
    assert config.hold_until_epoch == pytest.approx(50 / 350 * config.epochs)
    assert config.decay_until_epoch == pytest.approx(250 / 350 * config.epochs)
    assert config.first_averaged_epoch == pytest.approx(config.decay_until_epoch, abs=1)


def test_a_custom_recipe_extends_one_of_the_library(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("extends: openmic_resnet\nwidth: 64\n")
    config = resolved(str(own), epochs=300)
    assert (config.model, config.rho, config.width, config.epochs) == ("resnet", 22, 64, 300)
    second = tmp_path / "second.yaml"
    second.write_text("extends: own.yaml\nwidth: 32\n")
    assert resolved(str(second)).width == 32


def test_unreadable_recipes_are_rejected(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'openmic_resnet_rf'"):
        read_recipe("openmic_resnet_fr")
    loop = tmp_path / "loop.yaml"
    loop.write_text("extends: loop.yaml\n")
    with pytest.raises(ConfigError, match="extends itself"):
        read_recipe(str(loop))
    loop.write_text("extends: [a, b]\n")
    with pytest.raises(ConfigError, match="must name a recipe"):
        read_recipe(str(loop))
    loop.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="table of options"):
        read_recipe(str(loop))
    loop.write_text("extends: openmic_resnet\nmixupp: 0.3\n")
    with pytest.raises(ConfigError, match="Did you mean 'mixup'"):
        resolved(str(loop))


def test_the_dtype_policy_is_unchanged():
    assert keras.config.dtype_policy().name == "float32"
