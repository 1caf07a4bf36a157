"""The folder of a search, the configurations of its trials, recipes and the default space."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import yaml

import zoo
from rfkeras.config.recipes import list_recipes
from rfkeras.config.resolve import complete, merge_options, option_sources
from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import ConfigError
from rfkeras.experiments import search as search_module
from rfkeras.experiments.search import (
    SearchFolder,
    check_space,
    complete_config,
    default_space,
    open_folder,
    read_search,
    recipe_options,
    trial_config,
)
from rfkeras.experiments.search_space import Grid, parse_space
from tests.helpers.search import small_search

BASE = TrainConfig(epochs=40, width=8, rho=(5, 3))


@pytest.fixture
def folder(tmp_path):
    return SearchFolder(tmp_path / "search")


def test_search_can_be_reopened_only_with_the_same_options(folder):
    search = small_search()
    open_folder(search, folder)
    assert read_search(folder) == search
    open_folder(search, folder)
    open_folder(replace(search, trials=50), folder)
    assert read_search(folder).trials == 50
    others = {
        "trials was 50, now 5": search,
        "method was random, now bayesian": replace(search, method="bayesian", trials=50),
        "width was 4, now 8": replace(search, base=replace(search.base, width=8), trials=50),
        "rho was not searched, now 1,2; rho_time was 0,1": replace(
            small_search(space={"rho": "1,2"}), trials=50
        ),
    }
    for message, other in others.items():
        with pytest.raises(ConfigError, match="holds a search with other options") as error:
            open_folder(other, folder)
        for part in message.split("; "):
            assert part in str(error.value)
        assert "--resume" in str(error.value)


def test_folders_with_other_files_are_rejected(folder, tmp_path):
    with pytest.raises(ConfigError, match="holds no search"):
        read_search(folder)
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="do not belong to a search"):
        open_folder(small_search(), SearchFolder(tmp_path))


def test_processes_that_start_together_open_one_search(folder, monkeypatch):
    write, written = search_module.write_text, []

    def slow_write(path, text):
        write(path, text)
        written.append(path)
        time.sleep(0.05)  # gives the others time to interfere

    monkeypatch.setattr(search_module, "write_text", slow_write)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: open_folder(small_search(), folder), range(4)))
    assert written == [folder.base, folder.options]


def test_folder_of_a_start_that_was_killed_can_be_used(folder, monkeypatch):
    write = search_module.write_text

    def killed_before_the_options(path, text):
        if path == folder.options:
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(search_module, "write_text", killed_before_the_options)
    with pytest.raises(KeyboardInterrupt):
        open_folder(small_search(), folder)
    monkeypatch.undo()
    assert folder.base.exists()
    folder.workers.mkdir()
    search = small_search(method="bayesian")
    open_folder(search, folder)
    assert read_search(folder) == search


@pytest.mark.parametrize(
    ("values", "rho"),
    [
        ({"rho": 4}, 4),
        ({"rho": (7, 3)}, (7, 3)),
        ({"rho_time": 9}, (9, 3)),
        ({"rho_frequency": 9}, (5, 9)),
        ({"rho_time": 2, "rho_frequency": 2}, 2),
        ({}, (5, 3)),
    ],
)
def test_axes_of_rho(values, rho):
    assert trial_config(BASE, values).rho == rho


def test_other_axis_keeps_the_rho_of_the_model():
    base = TrainConfig(model="resnet_rf_small")
    own = zoo.model_info("resnet_rf_small").options["rho"]
    assert trial_config(base, {"rho_time": own + 1}).rho == (own + 1, own)
    with pytest.raises(ConfigError, match="option of crnn 'rho'"):
        trial_config(TrainConfig(model="crnn"), {"rho_time": 3})


def test_values_set_options_of_the_model_and_of_training():
    values = {"shake": True, "damping": None, "learning_rate": 3e-3, "mixup": 0.3, "width": 16}
    base = replace(BASE, damping=0.1)
    config = complete_config(base, values)
    assert {name: getattr(config, name) for name in values} == values
    assert config.model_options()["shake"] is True
    assert "damping" not in config.model_options()


def test_schedule_options_in_epochs_are_scaled():
    base = TrainConfig(
        epochs=40,
        hold_epochs=10,
        decay_end_epoch=30,
        averaging="swa",
        swa_start_epoch=31,
        early_stop_epochs=8,
        prune_share=0.5,
        prune_epochs=20,
    )
    short = trial_config(base, {}, epochs=4)
    assert (short.epochs, short.hold_epochs, short.decay_end_epoch) == (4, 1.0, 3.0)
    assert (short.swa_start_epoch, short.early_stop_epochs, short.prune_epochs) == (4, 1, 2)
    assert trial_config(base, {}, epochs=40) == base
    plain = trial_config(TrainConfig(epochs=40), {}, epochs=4)
    assert (plain.hold_epochs, plain.hold_until_epoch) == (None, pytest.approx(4 / 7))


@pytest.mark.parametrize("recipe", list_recipes())
def test_recipe_of_a_configuration_gives_the_same_configuration(recipe):
    flags = {"data_dir": "/data", "mixup": 0.2}
    base = merge_options(flags, option_sources(flags, recipe))
    model = zoo.model_info(base.model).options
    values = {"learning_rate": 0.00123}
    values |= {"rho_time": 6} if "rho" in model and base.rho is not None else {}
    config = trial_config(base, values, epochs=max(2, base.epochs // 3))
    options = yaml.safe_load(yaml.safe_dump(recipe_options(config)))
    assert set(options) <= set(TrainConfig.__dataclass_fields__)
    again = merge_options({}, [("best.yaml", options)])
    assert again == config
    assert complete(again) == complete(config)


def test_recipe_leaves_out_options_without_effect():
    recipe = [("r", {"spec_augment": True, "time_masks": 3})]
    config = merge_options({"spec_augment": False}, recipe)
    assert config.time_masks == 3
    assert recipe_options(config) == {}
    on = replace(config, spec_augment=True)
    assert recipe_options(on) == {"spec_augment": True, "time_masks": 3}


def test_default_space_has_the_options_of_the_model():
    space = default_space(TrainConfig(width=32), {})
    assert list(space.parameters) == [
        *("rho_time", "rho_frequency", "width", "shake", "frequency_aware", "damping"),
        *("mixup", "learning_rate"),
    ]
    assert space.parameters["width"] == Grid((16, 32), ordered=True)
    assert space.parameters["rho_time"].values == tuple(range(13))
    fixed = default_space(TrainConfig(rho=3), {"rho": 3, "shake": False, "mixup": 0.1})
    assert list(fixed.parameters) == ["width", "frequency_aware", "damping", "learning_rate"]
    assert "rho_time" not in default_space(TrainConfig(model="crnn"), {}).parameters


@pytest.mark.parametrize("model", zoo.list_models())
def test_default_space_is_possible_for_every_model(model):
    base = TrainConfig(model=model, epochs=9)
    check_space(default_space(base, {}), base, shortest=1)


@pytest.mark.parametrize(
    ("specs", "options", "message"),
    [
        ({"rho": "0:30"}, {}, "rho=30.*from 0 to 22"),
        ({"rho": "0:3"}, {"model": "crnn"}, "option of crnn 'rho'"),
        ({"shake": "true,false"}, {"model": "vgg_rf"}, "option of vgg_rf 'shake'"),
        ({"model": "resnet_rf,vgg_rf", "shake": "true,false"}, {}, "option of vgg_rf 'shake'"),
        ({"weight_decay": "0.01,0.1"}, {}, "weight_decay needs optimizer adamw"),
        ({"swa_every": "1,2"}, {}, "over swa_every needs --averaging swa"),
        ({"blocks": "4,4,4/4,1,1"}, {"rho": 12}, "allow_rf_change"),
        ({"prune_share": "none,0.5"}, {}, "Pruning must end before the last epoch"),
    ],
)
def test_impossible_trials_are_rejected_before_training(specs, options, message):
    base = TrainConfig(**{"epochs": 9, **options})
    with pytest.raises(ConfigError, match=message):
        check_space(parse_space(specs), base, shortest=1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hold_epochs", {}),
        ("decay_end_epoch", {}),
        ("swa_start_epoch", {"averaging": "swa"}),
        ("prune_epochs", {"prune_share": 0.5}),
        ("early_stop_epochs", {}),
    ],
)
def test_options_in_epochs_need_trials_of_equal_length(name, options):
    base, space = TrainConfig(epochs=9, **options), parse_space({name: "5,6"})
    check_space(space, base, shortest=9)
    with pytest.raises(ConfigError, match=f"search {name}: .* from 1 to 9 epochs.*random"):
        check_space(space, base, shortest=1)


def test_error_states_the_length_of_an_impossible_trial():
    space = parse_space({"prune_share": "none,0.5"})
    base = TrainConfig(epochs=9)
    check_space(space, base, shortest=9)
    with pytest.raises(ConfigError, match=r"prune_share=0.5 in .* \(epochs 1 of 9\): Pruning"):
        check_space(space, base, shortest=1)


def test_options_may_depend_on_searched_options():
    base = TrainConfig(epochs=9)
    for specs in (
        {"optimizer": "adam,adamw", "weight_decay": "0.01,0.1 when optimizer=adamw"},
        {"averaging": "none,swa", "swa_every": "1,2"},
    ):
        check_space(parse_space(specs), base)
