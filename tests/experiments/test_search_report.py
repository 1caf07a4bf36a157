"""A whole search without training: its table, recipe, plots and messages."""

import csv
import shlex
from dataclasses import replace

import pytest

from rfkeras.config.resolve import complete, merge_options, option_sources
from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import RFKerasError
from rfkeras.experiments.search import SearchFolder
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
from rfkeras.rf import plan_backbone
from tests.helpers.search import small_search, stub

pytestmark = pytest.mark.filterwarnings(  # from keras-tuner's locks
    "ignore:currentThread:DeprecationWarning", "ignore:getName:DeprecationWarning"
)


def table(folder):
    """Read the rows of trials.csv."""
    with folder.table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path):
    return SearchFolder(tmp_path / "search")


def test_whole_search(folder, capsys):
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
        rho = int(row["rho_time"]), 7  # the default of the model along frequency
        plan = plan_backbone(rho)
        assert int(row["rf_time_pixels"]) == plan.time.size
        assert int(row["rf_frequency_pixels"]) == plan.frequency.size
        ms = ((plan.time.size - 1) * 512 + 2048) / 22.05
        assert float(row["rf_time_ms"]) == pytest.approx(ms, abs=0.05)
    best = max((row for row in rows if row["val_mAP"]), key=lambda row: float(row["val_mAP"]))
    assert f"Best: val_mAP {float(best['val_mAP']):.4f}, trial {best['trial']}" in out
    assert out.count("\n[") == 4  # one line per trial
    assert f"rfkeras train --recipe {folder.best}" in out

    options = merge_options({}, option_sources({}, str(folder.best)))
    assert complete(options) == folder.trial(best["trial"]).read_config()
    header = folder.best.read_text()
    for part in ("Best of 3 trials", "clips: 1,200 for training, 30 for", "tune.py --search"):
        assert part in header
    for plot in (folder.score_plot, folder.value_plot):
        assert plot.read_bytes()[:4] == b"\x89PNG"

    run_search(search, folder, runner=None)  # no trial is left to run
    run_search(replace(search, trials=5), folder, runner=stub)
    assert [row["status"] for row in table(folder)][4:] == ["done"]
    run_search(replace(search, trials=5), folder, retry_failed=True, runner=stub)
    assert {row["status"] for row in table(folder)} == {"done"}


def test_search_ends_after_too_many_failures(folder):
    search = small_search(trials=9, max_failures=2)
    with pytest.raises(
        RFKerasError, match="2 trials failed in a row.*: no data.*--resume .* --retry-failed"
    ):
        run_search(search, folder, runner=lambda run, _: record_failure(run, "no data"))
    assert [row["status"] for row in table(folder)] == ["failed", "failed"]
    assert not folder.best.exists()


def test_interrupted_search_reports_how_to_resume(tmp_path):
    folder = SearchFolder(tmp_path / "my search")

    def interrupted(run, config):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:
        run_search(small_search(), folder, runner=interrupted)
    command = shlex.split(str(error.value).removeprefix("Resume with: "))
    assert command == ["rfkeras", "tune", "--resume", str(folder.root)]


def test_trial_with_contradicting_values_fails(folder):
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


def row(score, number=0, status=DONE, epochs=4, **values):
    """Return a row with default values."""
    values = {"rho_time": 3, "learning_rate": 1e-3, "shake": True} | values
    return TrialRow(str(number), status, score, values, epochs, "", (1, 1), 1.0, 1, 60.0, "")


def test_best_row():
    search = small_search()
    rows = [row(0.1), row(None, status=FAILED), row(0.3, 2), row(0.3, 3)]
    assert best_row(search, rows) is rows[2]
    loss = replace(search, base=replace(search.base, monitor="val_loss"))
    assert best_row(loss, rows) is rows[0]
    assert best_row(search, rows[1:2]) is None


def test_receptive_field_of_unlimited_and_limited_models():
    pixels, ms = receptive_field_of(TrainConfig(model="crnn"))
    assert pixels[0] is None
    assert ms is None
    assert receptive_field_of(TrainConfig(rho=7))[1] == pytest.approx(
        134 * 512 / 22.05 + 2048 / 22.05
    )


def test_plots_show_every_trial():
    search = small_search(epochs=4)
    rows = [row(0.1 * k, k, rho_time=k, epochs=2 + 2 * (k > 2)) for k in range(5)]
    rows.insert(2, row(None, 9, status=FAILED))
    scores, values = score_figure(search, rows), value_figure(search, rows)
    trials = scores.axes[0]
    drawn = [
        line.get_xydata()[0].tolist() for line in trials.lines if len(line.get_xdata()) == 1
    ]
    assert [0.1 * k for k in range(5)] == pytest.approx([y for _, y in drawn[:5]])
    assert [x for x, _ in drawn] == [
        1,
        2,
        4,
        5,
        6,
        3,
    ]  # the last one failed
    best = trials.lines[0].get_ydata()
    assert list(best) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4])
    rho = values.axes[0]
    assert rho.get_xlabel() == "rho_time"
    above = [tick.get_text() for tick in rho.child_axes[0].get_xticklabels()]
    ticks = [int(tick.get_text()) for tick in rho.get_xticklabels()]
    for rho_time, shown in zip(ticks, above, strict=True):
        frames = plan_backbone((rho_time, 7)).time.size
        assert int(shown) == round(((frames - 1) * 512 + 2048) / 22.05)
    assert len(rho.lines) == 5
