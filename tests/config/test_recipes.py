"""Recipes under flags that name another data set or model than the recipe."""

import pytest

from rfkeras.config.recipes import list_recipes, read_recipe, read_sweep_table
from rfkeras.config.resolve import DATA_SET_OPTIONS, adapt_recipe, resolve
from rfkeras.config.train_config import TrainConfig
from rfkeras.datasets.load import load_dataset
from rfkeras.errors import ConfigError, DatasetError


def chosen(recipe=None, **flags):
    return resolve(flags, recipe)


def test_options_of_another_data_set_are_dropped(tmp_path):
    name = "jamendo_moodtheme_resnet_rf"
    config = chosen(name, dataset="packed", data_dir=str(tmp_path))
    assert (config.dataset, config.subset, config.fold) == ("packed", None, None)
    assert (config.rho, config.mixup, config.frontend) == (7, 0.3, "perceptual_mel_44k")
    assert config.data_dir == str(tmp_path)
    own = chosen(name, dataset="mtg_jamendo", data_dir=str(tmp_path))
    assert (own.subset, own.fold) == ("moodtheme", 0)
    assert chosen(name, data_dir=str(tmp_path), subset="genre").subset == "genre"


def test_every_data_set_option_can_be_in_a_recipe_and_is_dropped():
    values = dict.fromkeys(DATA_SET_OPTIONS, 1)
    assert set(values) <= set(TrainConfig.__dataclass_fields__)
    chain = [
        ("base", {"dataset": "dcase", "epochs": 3}),
        ("own", {"dataset": "gtzan"} | values),
    ]
    assert adapt_recipe(chain, {"dataset": "dcase"}) == [
        ("base", {"dataset": "dcase", "epochs": 3}),
        ("own", {"dataset": "gtzan"}),
    ]
    assert adapt_recipe(chain, {"dataset": "gtzan", "epochs": 9}) == chain
    unnamed = [("own", {"subset": "moodtheme"})]  # applies to any data set
    assert adapt_recipe(unnamed, {"dataset": "mtg_jamendo"}) == unnamed


@pytest.mark.parametrize("recipe", list_recipes())
def test_every_recipe_works_with_another_model(recipe):
    config = chosen(recipe, model="crnn", data_dir="x", units=8)
    assert (config.model, config.units, config.rho, config.shake) == ("crnn", 8, None, None)
    options = {name for _, table in read_recipe(recipe) for name in table}
    if "initialization" in options:  # an option of both models
        assert config.initialization == "he"


def test_flags_are_still_checked():
    with pytest.raises(ConfigError, match="option of crnn 'rho'"):
        chosen("openmic_resnet_rf", model="crnn", rho=3)
    with pytest.raises(ConfigError, match="Did you mean 'crnn'"):
        chosen("openmic_resnet_rf", model="crn")


def test_a_packed_data_set_accepts_the_remaining_options(tmp_path):
    config = chosen("jamendo_moodtheme_resnet_rf", dataset="packed", data_dir=str(tmp_path))
    given = {n: getattr(config, n) for n in ("subset", "fold", "audio_dir")}
    options = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(
        DatasetError, match="not a packed data set"
    ):  # the options were accepted
        load_dataset("packed", data_dir=config.data_dir, **options)


def test_only_sweeps_read_the_table_sweep_of_a_recipe(tmp_path):
    base, own = tmp_path / "base.yaml", tmp_path / "own.yaml"
    base.write_text("epochs: 7\nsweep: {rho: [3, 5], seeds: 2}\n")
    own.write_text("extends: base.yaml\nwidth: 8\nsweep: {seeds: 4}\n")
    assert read_recipe(str(own)) == [(str(base), {"epochs": 7}), (str(own), {"width": 8})]
    assert read_sweep_table(str(own)) == [
        (str(base), {"rho": [3, 5], "seeds": 2}),
        (str(own), {"seeds": 4}),
    ]
    config = chosen(str(own), rho=5)
    assert (config.epochs, config.width, config.rho, config.seed) == (7, 8, 5, 0)
    assert [table for _, table in read_sweep_table("openmic_resnet_rf")] == [{}]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("{seed: 2}", "Unknown key of sweep 'seed'. Did you mean 'seeds'"),
        ("{7: 2}", "Unknown key of sweep '7'"),
        ("[3, 5]", r"sweep must be a table with rho, seeds, variants, also_test. Received: \["),
        ("", "sweep must be a table"),
    ],
)
def test_every_command_checks_the_keys_of_the_table_sweep(table, message, tmp_path):
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"epochs: 7\nsweep: {table}\n")
    with pytest.raises(ConfigError, match=message):
        chosen(str(recipe))
