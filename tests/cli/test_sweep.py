"""`rfkeras sweep`: stopped, failing, resumed and finished."""

import csv
import json
import signal
import time

import pytest

import rfkeras
from tests.helpers.processes import run, start

pytestmark = pytest.mark.slow

FLAGS = (
    "--seeds 1 --width 4 --epochs 2 --batch-size 8 --jobs 2 "
    "--blocks 1,1,1 --allow-rf-change --excerpt-seconds 0.5 --window-seconds 1 "
    "--checkpoint-steps 1 --dataset folder --fixed-floor --cache-features"
).split()


def command(data, output, *more):
    return ("-m", "rfkeras.cli", "sweep", *FLAGS, "--data-dir", data, "--output", output, *more)


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_a_sweep_stops_resumes_reports_failures_and_skips_finished_runs(tone_folder, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        'sweep: {rho: [0, 1], seeds: 2, also_test: ["training clips:split=train"]}\n'
    )
    extra = ("--recipe", recipe)
    runs = tmp_path / "runs"
    first, second = runs / "plain-rho0-seed0", runs / "plain-rho1-seed0"

    process = start(*command(tone_folder, tmp_path, *extra))
    snapshots = [folder / "checkpoints/last.npz" for folder in (first, second)]
    wait_for(lambda: all(path.exists() for path in snapshots), process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Resume with the same command" in err
    assert not (first / "model.keras").exists()

    snapshot = snapshots[1]
    snapshot.write_bytes(b"nonsense")
    status, out, err = run(*command(tone_folder, tmp_path, *extra))
    assert status == 1
    assert "plain-rho0-seed0: done" in out
    assert "plain-rho1-seed0: FAILED" in out
    assert str(snapshot) in out
    assert "Not finished: 1 of 2 runs" in out

    snapshot.unlink()
    assert len(list((tmp_path / "features").iterdir())) == 1  # shared by all runs
    assert not list(runs.glob("*/features"))
    made = (first / "model.keras").stat().st_mtime_ns
    status, out, err = run(*command(tone_folder, tmp_path, *extra))
    assert status == 0, out + err
    assert "1 of 2 runs already done" in out
    assert (first / "model.keras").stat().st_mtime_ns == made
    assert not (first / "saved_model").exists()
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["test"], row["rho"]) for row in rows} == {
        (test, rho) for test in ("test", "training clips") for rho in ("0", "1")
    }
    for row in rows:
        folder = runs / f"plain-rho{row['rho']}-seed0"
        report = folder / {"test": "report"}.get(row["test"], "report-training_clips")
        content = json.loads((report / "report.json").read_text())
        assert float(row["mAP"]) == pytest.approx(
            content["summary"]["macro"]["average_precision"], rel=1e-5
        )
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
    summary = (tmp_path / "summary.md").read_text()
    (recommended,) = [line for line in out.splitlines() if line.startswith("Recommendation: ")]
    assert f"\n\n{recommended}\n" in summary
    learnt = [float(row["mAP"]) for row in rows if row["test"] == "training clips"]
    assert min(learnt) < 0.98
    for text in (out, summary):
        assert "\nNot trained to the end: rho " in text

    # From Python: the runs are those of the command, so none is trained again.
    options = {"width": 4, "epochs": 2, "batch_size": 8, "blocks": "1,1,1", "dataset": "folder"}
    options |= {"allow_rf_change": True, "excerpt_seconds": 0.5, "window_seconds": 1}
    options |= {"checkpoint_steps": 1, "fixed_floor": True, "cache_features": True}
    points = rfkeras.sweep(
        [0, 1], output=tmp_path, recipe=str(recipe), data_dir=str(tone_folder), **options
    )
    assert (first / "model.keras").stat().st_mtime_ns == made
    assert sorted((p.test, p.rho) for p in points) == sorted(
        (row["test"], row["rho"]) for row in rows
    )
    assert (tmp_path / "summary.md").read_text() == summary
