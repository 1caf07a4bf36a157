"""Recipes under flags that name another data set or another model than they do."""

import pytest

from rfkeras.config.recipes import (
    DATA_SET_OPTIONS,
    adapt_recipe,
    complete,
    list_recipes,
    read_recipe,
    recipes_for,
)
from rfkeras.config.train_config import TrainConfig, resolve
from rfkeras.datasets.load import load_dataset
from rfkeras.errors import ConfigError, DatasetError


def chosen(recipe=None, **flags):
    return complete(resolve(TrainConfig, flags, recipes_for(flags, recipe)))


def test_another_data_set_takes_none_of_the_recipes_own_options(tmp_path):
    name = "jamendo_moodtheme_resnet_rf"
    config = chosen(name, dataset="packed", data_dir=str(tmp_path))
    assert (config.dataset, config.subset, config.fold) == ("packed", None, None)
    assert (config.rho, config.mixup, config.frontend) == (7, 0.3, "perceptual_mel_44k")
    assert config.data_dir == str(tmp_path)
    own = chosen(name, dataset="mtg_jamendo", data_dir=str(tmp_path))
    assert (own.subset, own.fold) == ("moodtheme", 0)
    assert chosen(name, data_dir=str(tmp_path), subset="genre").subset == "genre"


def test_every_data_set_option_may_stand_in_a_recipe_and_is_dropped():
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
    unnamed = [("own", {"subset": "moodtheme"})]  # meant for the data set of the flags
    assert adapt_recipe(unnamed, {"dataset": "mtg_jamendo"}) == unnamed


@pytest.mark.parametrize("recipe", list_recipes())
def test_every_recipe_serves_another_model(recipe):
    config = chosen(recipe, model="crnn", data_dir="x", units=8)
    assert (config.model, config.units, config.rho, config.shake) == ("crnn", 8, None, None)
    options = {name for _, table in read_recipe(recipe) for name in table}
    if "initialization" in options:  # which both models have
        assert config.initialization == "he"


def test_what_the_flags_give_is_still_checked():
    with pytest.raises(ConfigError, match="option of crnn 'rho'"):
        chosen("openmic_resnet_rf", model="crnn", rho=3)
    with pytest.raises(ConfigError, match="Did you mean 'crnn'"):
        chosen("openmic_resnet_rf", model="crn")


def test_options_that_are_left_are_those_that_a_packed_data_set_takes(tmp_path):
    config = chosen("jamendo_moodtheme_resnet_rf", dataset="packed", data_dir=str(tmp_path))
    given = {n: getattr(config, n) for n in ("subset", "fold", "audio_dir")}
    options = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(DatasetError, match="not a packed data set"):  # looked for, not refused
        load_dataset("packed", data_dir=config.data_dir, **options)
