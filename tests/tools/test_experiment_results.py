"""Results of the receptive-field experiment and their page (tools/experiment_*.py)."""

import csv
import json

import numpy as np
import pytest

from rfkeras.errors import DatasetError
from rfkeras.evaluation.metrics import mean_average_precision
from tests.helpers.feature_files import SCALE, features, write
from tools import experiment_report, experiment_results
from tools.experiment_results import Results
from tools.sweep_plan import read_plan

N_TAGS = len(SCALE.label_names)
RHOS = ("0", "2", "7", "22")
# How well the networks of each rho hear, from 0 to 1.
QUALITY = {"0": 0.2, "2": 0.3, "7": 0.9, "22": 0.35}
CLIPS = 120


def labels_of(name):
    return np.random.default_rng(len(name)).random((CLIPS, N_TAGS)) < 0.4


def write_run(folder, condition, rho, seed, rng, quality=None):
    logits, point = {}, {}
    for name in ("new", "font"):
        labels = labels_of(name)
        strength = QUALITY[rho] if quality is None else quality
        logits[name] = (3 * strength * labels + rng.normal(size=labels.shape)).astype("float16")
        point[name] = mean_average_precision(logits[name], labels)
    name = f"{condition}-rho{rho}-seed{seed}"
    np.savez(folder / f"{name}.npz", train=np.zeros((3, N_TAGS)), **logits)
    fitted = 0.9 if rho == "0" else 1.0
    curve = [
        {
            "step": 10 * n,
            "loss": 1 / n,
            "train": fitted * n / 10,
            **{test: value * (1 - 0.05 * (10 - n)) for test, value in point.items()},
        }
        for n in range(1, 11)
    ]
    row = {"run": name, "condition": condition, "rho": rho, "seed": seed, "curve": curve}
    row |= {"parameters": 1000 + int(rho), "clips": 50, "seconds": 1.5, "device": "a GPU"}
    with (folder / "runs.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a folder of a sweep, one of its clips and one of the results."""
    sweep, data, out = (tmp_path_factory.mktemp(name) for name in ("sweep", "data", "out"))
    rng = np.random.default_rng(0)
    for rho in RHOS:
        for seed in range(3):
            write_run(sweep, "plain", rho, seed, rng)
    for name in ("new", "font"):
        part = features(CLIPS)
        part.labels[:] = labels_of(name)
        part.mask[:] = True
        write(data / f"{name}-000.npz", part)
    assert experiment_results.main([str(sweep), "--data", str(data), "--out", str(out)]) == 0
    return sweep, data, out


@pytest.fixture(scope="module")
def results(folders):
    return Results(folders[-1])


def test_results_are_those_of_the_sweep(results):
    assert results.conditions == ("plain",)
    assert results.rhos("plain") == RHOS
    assert results.sets("plain") == ("new", "font")
    run = results.runs("plain", "7")[1]
    scores = results.clip_scores(run, "font")
    np.testing.assert_array_equal(scores.labels, labels_of("font"))
    value = mean_average_precision(scores.scores, scores.labels)
    assert results.curve(run, "font")[-1] == pytest.approx(value, abs=1e-12)
    assert results.curve(run, "step").tolist() == list(range(10, 101, 10))


def test_the_interval_of_a_difference_covers_clips_and_seeds(results):
    clear = results.difference("plain", "7", "22", "new")
    assert 0 < clear.low < clear.value < clear.high
    mean = {rho: results.column("plain", rho, "new").mean() for rho in RHOS}
    assert clear.value == pytest.approx(mean["7"] - mean["22"], abs=1e-12)
    assert experiment_report.shown(clear).startswith(f"{clear.value:+.3f} (+")
    same = results.difference("plain", "7", "7", "new")
    assert (same.value, same.low, same.high) == (0, 0, 0)
    # What resampled seeds add is the variance of a mean of three, on the same clips.
    group = results.group("plain", "2", "new")
    added = results.resampled("plain", "2", "new") - group.replicates
    expected = np.mean(np.var(group.model_replicates, axis=0, ddof=1) / 3)
    assert np.mean(added**2) == pytest.approx(expected, rel=0.1)


def test_an_optimum_is_found_on_the_other_half(results):
    found = results.best_on_a_half("plain", "font")
    assert max(found["chosen"], key=found["chosen"].get) == "7"
    assert sum(found["chosen"].values()) == pytest.approx(1)
    for end, rho in (("lowest", "0"), ("highest", "22")):
        lead = found[f"over {end}"]
        assert lead.low > 0
        expected = results.mean("plain", "7", "font") - results.mean("plain", rho, "font")
        assert lead.value == pytest.approx(expected, abs=0.03)


def test_sweeps_are_added_and_other_figures_refused(folders, tmp_path, capsys):
    _, data, out = folders
    rng = np.random.default_rng(1)
    more, again = tmp_path / "more", tmp_path / "again"
    more.mkdir()
    again.mkdir()
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in out.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    write_run(more, "shake", "7", 0, rng)
    command = ["--data", str(data), "--out", str(copy)]
    assert experiment_results.main([str(more), *command]) == 0
    assert experiment_results.main([str(more), *command]) == 0  # the same again adds nothing
    added = Results(copy)
    assert len(added.names) == 13
    assert added.conditions == ("plain", "shake")
    assert len(added.curve("shake-rho7-seed0", "step")) == 10
    write_run(again, "plain", "7", 0, rng)
    assert experiment_results.main([str(again), *command]) == 2
    assert "another run plain-rho7-seed0" in capsys.readouterr().err
    assert experiment_results.main([str(tmp_path), *command]) == 2
    assert "no folder of a sweep" in capsys.readouterr().err
    with pytest.raises(DatasetError, match=r"runs\.csv"):
        Results(tmp_path)


def page_with_places(folder):
    names = ("runs", *experiment_report.TABLES)
    page = folder / "page.md"
    page.write_text("".join(f"{n}:\n<!-- {n} -->\nold\n<!-- end of {n} -->\n" for n in names))
    return page


@pytest.fixture(scope="module")
def written(folders, tmp_path_factory):
    """Return the page with tables, and the folder of its pictures."""
    out, folder = folders[-1], tmp_path_factory.mktemp("page")
    (out / "effective.csv").write_text(
        "run,rho,exact_pixels,frames_95,bands_95,frames_50,bands_50\n"
        "plain-rho7-seed0,7,135,55.7,67.9,22.5,25.4\n"
    )
    condition = {"name": "plain", "rhos": [0, 2, 7, 22], "seeds": [0, 1, 2, 3]}
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"conditions": [condition]}))
    page = page_with_places(folder)
    command = [str(out), "--plan", str(plan), "--page", str(page), "--images", str(folder)]
    assert experiment_report.main(command) == 0
    once = page.read_text()
    assert experiment_report.main(command) == 0
    assert page.read_text() == once
    return once, folder


def table_of(text, name):
    block = text.split(f"<!-- {name} -->")[1].split(f"<!-- end of {name} -->")[0]
    assert "old" not in block
    rows = [line.strip("| ").split(" | ") for line in block.splitlines() if "|" in line]
    return [[cell.strip() for cell in row] for row in rows if set(row[0]) - set("-|")]


def test_tables_have_the_figures(written, results):
    text, _ = written
    assert table_of(text, "runs")[1] == ["`plain`", "0, 2, 7, 22", "16", "12", "9"]
    main = table_of(text, "main")
    assert main[1][:5] == ["0", "23", "0.6", "1,000", "0.900 *"]
    assert main[3][:5] == ["7", "135", "3.2", "1,007", "1.000"]
    assert main[3][6] == experiment_report.shown(results.difference("plain", "7", "22", "new"))
    conditions = table_of(text, "conditions")
    assert conditions[1][5:7] == [
        experiment_report.shown(results.difference("plain", rho, "22", "new"))
        for rho in ("7", "2")
    ]
    assert experiment_report.NOT_RUN in text.split("<!-- capacity -->")[1]
    early = table_of(text, "early signs")
    assert early[1] == ["1,000 clips", "10 %", "0.090 and 0.100", "+1.00", "+1.00"]
    assert table_of(text, "effective fields")[2] == ["95 % of the energy (pixels)", "56 x 68"]


def test_pictures_are_drawn(written):
    _, folder = written
    for name in ("rf_at_the_end.png", "rf_curves.png"):
        assert (folder / name).stat().st_size > 10_000


def test_a_page_without_a_place_is_an_error(results, tmp_path):
    page = page_with_places(tmp_path)
    page.write_text(page.read_text().replace("<!-- main -->", ""))
    plan = tmp_path / "plan.json"
    plan.write_text('{"conditions": [{"name": "plain"}]}')
    with pytest.raises(DatasetError, match="<!-- main -->"):
        experiment_report.write_page(page, results, read_plan(plan))


def test_the_docs_show_the_results_that_are_stored(pytestconfig):
    docs = pytestconfig.rootpath / "docs"
    folder = docs / "rf_sweep" / "to_the_end"
    results = Results(folder)
    plan = read_plan(docs / "rf_sweep" / "plan.json")
    page = (docs / "receptive_field_experiment.md").read_text(encoding="utf-8")
    for table in (
        experiment_report.runs_table(results, plan),
        experiment_report.early_table(results),
        experiment_report.field_table(results),
    ):
        assert table.strip() in page
    with (folder / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["step"] == "4000"]
    scores = results.clip_scores(rows[0]["run"], "recordings")
    value = mean_average_precision(scores.scores, scores.labels, scores.mask)
    assert float(rows[0]["recordings"]) == pytest.approx(value, abs=2e-3)  # float16
