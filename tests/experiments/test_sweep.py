"""The plan of a sweep: values of rho, variants, extra tests and slots for processes."""

import dataclasses
import json
import re
import shlex

import pytest

import zoo
from rfkeras.cli.main import build_parser
from rfkeras.cli.sweep import plan
from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.experiments.sweep import (
    Job,
    SweepRun,
    check_names,
    check_no_variant_options,
    make_grid,
    parse_extra_test,
    parse_rhos,
    parse_variants,
    prepare_job,
    read_extra_tests,
    report_file,
    sweep_settings,
)
from rfkeras.training.launch import slot_environments, visible_gpus
from rfkeras.training.run_dir import RunFolder
from tests.helpers.processes import ROOT


@pytest.mark.parametrize(
    ("text", "rhos"),
    [
        ("0:22:2", list(range(0, 23, 2))),
        ("3:5", [3, 4, 5]),
        ("7", [7]),
        ("0, 3,7", [0, 3, 7]),
        ("7x5,5:6", [(7, 5), 5, 6]),
    ],
)
def test_values_of_rho(text, rhos):
    assert parse_rhos(text) == rhos


@pytest.mark.parametrize(
    "text", ["", "a", "1:", "5:3", "0:4:0", "1:2:3:4", "7x", "-1:3", "3,3"]
)
def test_invalid_values_of_rho(text):
    with pytest.raises(ConfigError, match="rho"):
        parse_rhos(text)


def test_variants_are_joined_and_unknown_ones_rejected():
    assert parse_variants("plain, shake+fa") == ["plain", "shake+fa"]
    run = SweepRun("shake+fa", (7, 5), 2)
    assert run.name == "shake+fa-rho7x5-seed2"
    assert run.options() == {
        "shake": True, "frequency_aware": True, "rho": (7, 5), "seed": 2
    }  # fmt: skip
    with pytest.raises(ConfigError, match="Did you mean 'shake'"):
        parse_variants("plain,shak")
    with pytest.raises(ConfigError, match="each variant once"):
        parse_variants("plain,plain")


def test_every_receptive_field_comes_before_the_second_seed():
    grid = make_grid(["plain", "shake"], [0, 3], seeds=2)
    assert len(set(grid)) == 8
    assert {(run.variant, run.rho) for run in grid[:4]} == {
        (run.variant, run.rho) for run in grid[4:]
    }
    assert {run.seed for run in grid[:4]} == {0}


def test_recipe_and_model_may_set_rho_but_no_options_of_variants():
    check_no_variant_options("Recipe a", {"rho": 7, "seed": 1, "width": 32, "shake": None})
    with pytest.raises(ConfigError, match="Recipe a sets damping, shake"):
        check_no_variant_options("Recipe a", {"shake": True, "damping": 0.1})
    check_no_variant_options("Model", zoo.model_info("resnet_rf_tiny").options)
    for name in ("resnet_rf_shake", "resnet_rf_fa_tiny", "resnet_rf_damped"):
        with pytest.raises(ConfigError, match="not match their names"):
            check_no_variant_options("Model", zoo.model_info(name).options)


def test_settings_come_from_recipes_and_flags_override_them():
    base = ("base.yaml", {"rho": "0:4:2", "seeds": 2, "variants": "plain,shake"})
    own = ("own.yaml", {"rho": [3, "7x5"], "also_test": ["training clips:split=train"]})
    settings = sweep_settings({}, [base, own])
    assert (settings.rhos, settings.seeds) == ([3, (7, 5)], 2)
    assert settings.variants == ["plain", "shake"]
    assert [test.name for test in settings.tests] == ["training clips"]
    flags = {"rho": "1,2", "seeds": 1, "variants": "fa", "also_test": ["a:split=validation"]}
    settings = sweep_settings(flags, [base, own])
    assert (settings.rhos, settings.seeds, settings.variants) == ([1, 2], 1, ["fa"])
    assert [test.name for test in settings.tests] == ["a"]
    plain = sweep_settings({"rho": "7"})
    assert (plain.seeds, plain.variants, plain.tests) == (3, ["plain"], ())
    with pytest.raises(ConfigError, match=r"--rho 0:22:2.*such as choose_rho"):
        sweep_settings({"seeds": 2}, [("r", {"seeds": 2})])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"rho": [7, 7]}, r"r\.yaml: sweep: --rho: give each value once"),
        ({"seeds": 0}, r"r\.yaml: sweep: --seeds must be a whole number of at least 1"),
        ({"variants": "shak"}, r"r\.yaml: sweep: .*Did you mean 'shake'"),
        ({"also_test": "x"}, r"r\.yaml: sweep: --also-test: Write NAME"),
        ({"also_test": 3}, r"r\.yaml: sweep: --also-test: Write NAME"),
        ({"also_test": ["a b:split=train", "a-b:split=test"]}, "names must differ"),
    ],
)
def test_wrong_settings_in_a_recipe_name_the_recipe(table, message):
    with pytest.raises(ConfigError, match=message):
        sweep_settings({"rho": "7"}, [("r.yaml", table)])


def planned(*arguments):
    options = build_parser().parse_args(["sweep", *arguments])
    del options.imports  # of rfkeras.cli.main
    return plan(options)


def test_the_recipe_choose_rho_needs_no_further_flags(tmp_path):
    jobs = planned("--recipe", "choose_rho", "--dataset", "folder", "--data-dir", str(tmp_path))
    assert [(job.run.rho, job.run.seed) for job in jobs] == [
        (rho, seed) for seed in (0, 1) for rho in (2, 7, 11, 16, 22)
    ]
    assert all(test.is_training_clips for job in jobs for test in job.tests)
    config = jobs[0].config
    assert (config.dataset, config.data_dir) == ("folder", str(tmp_path))
    assert (config.epochs, config.batch_size, config.final_weights) == (20, 16, "last")
    # The number of steps that the recipe's comment states for 1,000 clips.
    trained = 1000 * (1 - config.test_share) * (1 - config.validation_share)
    assert trained * config.excerpts_per_clip * config.epochs / config.batch_size == 4000
    few = planned("--recipe=choose_rho", f"--data-dir={tmp_path}", "--rho=7", "--seeds=1")
    assert [job.run.name for job in few] == ["plain-rho7-seed0"]
    assert few[0].config.model == "resnet_rf_tiny"
    with pytest.raises(ConfigError, match="A sweep needs the values of rho"):
        planned("--dataset=folder", f"--data-dir={tmp_path}")


def test_a_missing_folder_is_reported_before_any_run(tmp_path):
    with pytest.raises(DatasetError, match="--data-dir .*absent does not exist. Give a CSV"):
        planned("--rho=7", "--dataset=folder", f"--data-dir={tmp_path / 'absent'}")
    with pytest.raises(ConfigError, match="'openmic' needs --data-dir"):
        planned("--rho=7", "--dataset=openmic")
    with pytest.raises(DatasetError, match="absent does not exist"):
        planned("--rho=7", f"--also-test=other:dataset=folder,data_dir={tmp_path / 'absent'}")


def test_extra_tests_must_have_different_folders(tmp_path):
    first, second = parse_extra_test("a b:split=train"), parse_extra_test("a-b:split=test")
    check_names([first])
    with pytest.raises(ConfigError, match="names must differ"):
        check_names([first, second])
    run, folder = SweepRun("plain", 0, 0), RunFolder(tmp_path / "run")
    prepare_job(Job(run, folder, TrainConfig(), (first,)))
    assert read_extra_tests(folder) == (first,)
    record = report_file(folder, first).with_name("test.json")
    record.parent.mkdir()
    record.write_text(json.dumps(dataclasses.asdict(first)))
    prepare_job(Job(run, folder, TrainConfig(cache_gb=1.0), (first,)))
    with pytest.raises(ConfigError, match="'a-b' was scored on other data"):
        prepare_job(Job(run, folder, TrainConfig(), (second,)))
    with pytest.raises(ConfigError, match=r"epochs \(200 there, 3 now\)"):
        prepare_job(Job(run, folder, TrainConfig(epochs=3), (first,)))


def test_extra_test_overrides_options_of_the_run():
    trained = TrainConfig(dataset_size=400, train_share=0.5, excerpt_seconds=5.0)
    font = parse_extra_test("other font: sound_font=F.sf2, dataset_size=1600")
    assert font.config_for(trained) == dataclasses.replace(
        trained, sound_font="F.sf2", dataset_size=1600
    )
    assert (font.name, font.split, font.folder_name) == (
        "other font",
        "test",
        "report-other_font",
    )
    other = parse_extra_test("open: dataset=openmic,data_dir=/data,split=validation")
    config = other.config_for(trained)
    assert (config.dataset, config.dataset_size, config.data_dir) == ("openmic", None, "/data")
    assert other.split == "validation"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name", "NAME:option=value"),
        (":split=train", "NAME:option=value"),
        ("test:split=train", "own test split"),
        ("a:split=other", "Unknown split"),
        ("a:dataset_sise=3", "Did you mean 'dataset_size'"),
        ("a:width=3", "Unknown option 'width'"),
        ("a:dataset_size=x", "whole number"),
        ("a:split=train,split=test", "each option once"),
    ],
)
def test_invalid_extra_tests(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_extra_test(text)


def test_simultaneous_runs_share_gpus_or_cores(monkeypatch):
    assert slot_environments(3, ["0", "1"], 8) == [
        {"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("0", "1", "0")
    ]
    assert slot_environments(1, [], 8) == [{}]
    two = slot_environments(3, [], 8)
    assert [slot["TF_NUM_INTRAOP_THREADS"] for slot in two] == ["2", "2", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert visible_gpus() == ["2", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []


def test_documented_command_plans_runs_that_differ_only_in_three_options():
    text = (ROOT / "docs/receptive_field_experiment.md").read_text(encoding="utf-8")
    command = re.search(r"^\.venv/bin/rfkeras sweep (.*?)```", text, flags=re.S | re.M)[1]
    jobs = planned(*shlex.split(command.replace("\\\n", " ")))
    assert len(jobs) == len({job.folder.root for job in jobs}) == 36
    configs = {
        dataclasses.replace(job.config, rho=7, seed=0, shake=None, branches=None)
        for job in jobs
    }
    assert len(configs) == 1
    (config,) = configs
    assert (config.epochs, config.train_share, config.final_weights) == (14, 0.37, "last")
    assert config.excerpt_seconds == config.window_seconds == 5.0
    assert not config.export
    assert jobs[0].tests[0].options["sound_font"].endswith("FluidR3_GM.sf2")
