"""Train and evaluate from the command line with all data in a bucket."""

import csv
import json

import pytest

from tests.helpers.processes import run

QUICK = (
    "--width 4 --rho 2,1 --blocks 1,1,1 --allow-rf-change --epochs 1 --batch-size 8 "
    "--excerpt-seconds 0.5 --window-seconds 1 --learning-rate 0.01 --no-export"
).split()


def trained(dataset, place, folder):
    """Train, evaluate again; return the values of the epoch and the macro means of both."""
    status, _, err = run(
        *("train.py", *QUICK, "--dataset", dataset, "--data-dir", place, "--run-dir", folder)
    )
    assert status == 0, err
    report = folder.with_name(f"{folder.name}-report")
    status, _, err = run(
        *("evaluate.py", "--model", folder, "--dataset", dataset, "--data-dir", place),
        *("--output", report),
    )
    assert status == 0, err
    with (folder / "log.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    values = {name: float(value) for name, value in row.items() if name != "seconds"}
    summaries = [
        json.loads((where / "report.json").read_text())["summary"]["macro"]
        for where in (folder / "report", report)
    ]
    return values, summaries


@pytest.mark.slow
def test_a_run_on_a_bucket_equals_the_run_on_the_local_folder(tone_folder, bucket, tmp_path):
    local = trained("folder", tone_folder, tmp_path / "local")
    bucket.put_folder(tone_folder, "tones")
    there = trained("folder", f"{bucket.url}/tones", tmp_path / "remote")
    assert there == local
    assert local[0]["loss"] > 0
    assert local[1][0] == local[1][1]
    status, out, err = run(
        *("-m", "rfkeras.cli", "data", "pack", f"{bucket.url}/packed"),
        *("--dataset", "folder", "--data-dir", f"{bucket.url}/tones", "--shard-mb", "0.5"),
    )
    assert status == 0, err
    assert "packed/index.json" in bucket.names()
    packed = trained("packed", f"{bucket.url}/packed", tmp_path / "packed")
    # 16-bit shards of 16-bit files hold the same samples, but are read in another order.
    assert packed[0]["loss"] == pytest.approx(local[0]["loss"], rel=0.2)
    assert packed[1][0] == packed[1][1]
