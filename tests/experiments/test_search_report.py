"""What a search leaves in its folder, and what it says."""

import csv
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rfkeras.config.recipes import complete, recipes_for
from rfkeras.config.train_config import TrainConfig, resolve
from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.experiments import search as search_module
from rfkeras.experiments.search import SearchFolder, open_folder, read_search
from rfkeras.experiments.search_report import (
    DONE,
    FAILED,
    TrialRow,
    best_row,
    receptive_field_of,
    score_figure,
    value_figure,
)
from rfkeras.experiments.search_run import run_search
from rfkeras.experiments.trial import record_failure
from rfkeras.rf import plan_trunk
from tests.helpers.search import small_search, stub

pytestmark = pytest.mark.filterwarnings(  # of keras-tuner's own locks
    "ignore:currentThread:DeprecationWarning", "ignore:getName:DeprecationWarning"
)


def table(folder):
    with folder.table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path):
    return SearchFolder(tmp_path / "search")


def test_a_whole_search(folder, capsys):
    def failing_once(run, config):
        if run.root.name == "1":
            return record_failure(run, "killed by SIGKILL, perhaps out of memory")
        return stub(run, config)

    search = replace(small_search(trials=4), command="tune.py --search ...")
    run_search(search, folder, runner=failing_once)
    out = capsys.readouterr().out
    rows = table(folder)
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["status"] for row in rows] == ["done", "failed", "done", "done"]
    assert rows[1]["reason"] == "killed by SIGKILL, perhaps out of memory"
    assert (rows[1]["val_mAP"], rows[1]["seconds"]) == ("", "")
    for row in rows:
        rho = int(row["rho_time"]), 7  # along frequency the model's own
        plan = plan_trunk(rho)
        assert int(row["rf_time_pixels"]) == plan.time.size
        assert int(row["rf_frequency_pixels"]) == plan.frequency.size
        ms = ((plan.time.size - 1) * 512 + 2048) / 22.05
        assert float(row["rf_time_ms"]) == pytest.approx(ms, abs=0.05)
    best = max((row for row in rows if row["val_mAP"]), key=lambda row: float(row["val_mAP"]))
    assert f"Best: val_mAP {float(best['val_mAP']):.4f}, trial {best['trial']}" in out
    assert out.count("\n[") == 4  # a line a trial
    assert f"train.py --recipe {folder.best}" in out

    options = resolve(TrainConfig, {}, recipes_for({}, str(folder.best)))
    assert complete(options) == folder.trial(best["trial"]).read_config()
    header = folder.best.read_text()
    for part in ("Best of 3 trials", "clips: 1,200 for training, 30 for", "tune.py --search"):
        assert part in header
    for plot in (folder.score_plot, folder.value_plot):
        assert plot.read_bytes()[:4] == b"\x89PNG"

    run_search(search, folder, runner=None)  # nothing left: no trial is run
    run_search(replace(search, trials=5), folder, runner=stub)
    assert [row["status"] for row in table(folder)][4:] == ["done"]
    run_search(replace(search, trials=5), folder, retry_failed=True, runner=stub)
    assert {row["status"] for row in table(folder)} == {"done"}


def test_a_search_that_fails_again_and_again_ends(folder):
    search = small_search(trials=9, max_failures=2)
    with pytest.raises(
        RFKerasError, match="2 trials failed.*: no data.*--resume .* --retry-failed"
    ):
        run_search(search, folder, runner=lambda run, _: record_failure(run, "no data"))
    assert [row["status"] for row in table(folder)] == ["failed", "failed"]
    assert not folder.best.exists()


def test_an_interrupted_search_says_how_it_goes_on(tmp_path):
    folder = SearchFolder(tmp_path / "my search")

    def interrupted(run, config):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:
        run_search(small_search(), folder, runner=interrupted)
    command = shlex.split(str(error.value).removeprefix("Go on with: "))
    assert command == ["tune.py", "--resume", str(folder.root)]


def test_two_values_that_contradict_each_other_are_a_failed_trial(folder):
    space = {"rho": "0/12,12/0,3", "blocks": "4,4,4/4,1,1/4,4,3"}
    search = small_search(trials=8, max_failures=9, space=space)
    run_search(search, folder, runner=stub)
    impossible = [
        row for row in table(folder) if (row["rho"], row["blocks"]) == ("12,12", "4,1,1")
    ]
    assert [row["status"] for row in table(folder)].count("done") == 7
    assert [row["status"] for row in impossible] == ["failed"]
    assert "allow_rf_change" in impossible[0]["reason"]
    assert impossible[0]["rf_time_pixels"] == ""


def test_a_search_goes_on_as_it_began_or_not_at_all(folder):
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


def test_other_folders_are_left_alone(folder, tmp_path):
    with pytest.raises(ConfigError, match="holds no search"):
        read_search(folder)
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="holds other files"):
        open_folder(small_search(), SearchFolder(tmp_path))


def test_processes_that_start_together_open_one_search(folder, monkeypatch):
    write, written = search_module.write_text, []

    def slow_write(path, text):
        write(path, text)
        written.append(path)
        time.sleep(0.05)  # the others come in between

    monkeypatch.setattr(search_module, "write_text", slow_write)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: open_folder(small_search(), folder), range(4)))
    assert written == [folder.base, folder.options]


def test_a_folder_whose_making_was_killed_is_still_new(folder, monkeypatch):
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


def row(score, number=0, status=DONE, epochs=4, **values):
    values = {"rho_time": 3, "learning_rate": 1e-3, "shake": True} | values
    return TrialRow(str(number), status, score, values, epochs, "", (1, 1), 1.0, 1, 60.0, "")


def test_the_best_row():
    search = small_search()
    rows = [row(0.1), row(None, status=FAILED), row(0.3, 2), row(0.3, 3)]
    assert best_row(search, rows) is rows[2]
    loss = replace(search, base=replace(search.base, monitor="val_loss"))
    assert best_row(loss, rows) is rows[0]
    assert best_row(search, rows[1:2]) is None


def test_the_receptive_field_of_models_without_a_limit():
    pixels, ms = receptive_field_of(TrainConfig(model="crnn"))
    assert pixels[0] is None
    assert ms is None
    assert receptive_field_of(TrainConfig(rho=7))[1] == pytest.approx(
        134 * 512 / 22.05 + 2048 / 22.05
    )


def test_the_plots_show_every_trial():
    search = small_search(epochs=4)
    rows = [row(0.1 * k, k, rho_time=k, epochs=2 + 2 * (k > 2)) for k in range(5)]
    rows.insert(2, row(None, 9, status=FAILED))
    scores, values = score_figure(search, rows), value_figure(search, rows)
    trials = scores.axes[0]
    drawn = [
        line.get_xydata()[0].tolist() for line in trials.lines if len(line.get_xdata()) == 1
    ]
    assert [0.1 * k for k in range(5)] == pytest.approx([y for _, y in drawn[:5]])
    assert [x for x, _ in drawn] == [1, 2, 4, 5, 6, 3]  # the last is the cross of the failed
    best = trials.lines[0].get_ydata()
    assert list(best) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4])
    rho = values.axes[0]
    assert rho.get_xlabel() == "rho_time"
    above = [tick.get_text() for tick in rho.child_axes[0].get_xticklabels()]
    ticks = [int(tick.get_text()) for tick in rho.get_xticklabels()]
    for rho_time, shown in zip(ticks, above, strict=True):
        frames = plan_trunk((rho_time, 7)).time.size
        assert int(shown) == round(((frames - 1) * 512 + 2048) / 22.05)
    assert len(rho.lines) == 5
