"""Train and evaluate from the command line with all data in a bucket."""

import csv
import json

import pytest

from tests.helpers.processes import run

DATA = ("--dataset", "folder", "--data-dir")
QUICK = (
    "--width 4 --rho 2,1 --blocks 1,0,0 --allow-rf-change --epochs 1 --batch-size 8 "
    "--excerpt-seconds 0.5 --window-seconds 1 --learning-rate 0.01 --no-export"
).split()


def summary(report):
    """Return the macro means of a report."""
    return json.loads((report / "report.json").read_text())["summary"]["macro"]


def trained(place, folder):
    """Train a run; return the values of its epoch and the summary of its report."""
    status, _, err = run("train.py", *QUICK, *DATA, place, "--run-dir", folder)
    assert status == 0, err
    with (folder / "log.csv").open() as file:
        (row,) = csv.DictReader(file)
    del row["seconds"]
    return row, summary(folder / "report")


@pytest.mark.slow
def test_a_run_on_a_bucket_equals_the_run_on_the_local_folder(tone_folder, bucket, tmp_path):
    local = trained(tone_folder, tmp_path / "local")
    bucket.put_folder(tone_folder, "tones")
    url = f"{bucket.url}/tones"
    assert trained(url, tmp_path / "remote") == local
    assert float(local[0]["loss"]) > 0
    report = tmp_path / "report"
    status, _, err = run(
        *("evaluate.py", "--model", tmp_path / "remote", *DATA, url, "--output", report)
    )
    assert status == 0, err
    assert summary(report) == local[1]
