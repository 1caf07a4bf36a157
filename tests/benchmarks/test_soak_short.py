"""A soak test of a few seconds runs from start to end."""

import json

import pytest

from benchmarks.soak import soak
from benchmarks.soak_report import PICTURE, SUMMARY, write_page
from tests.helpers.processes import start


@pytest.mark.slow
@pytest.mark.long
def test_a_short_soak_finds_no_problem_and_writes_its_page(tmp_path, capsys):
    def forked(arguments, log, temporary):
        return start(*arguments, TMPDIR=str(temporary))

    status = soak(tmp_path, 1.0, 9, short=True, start=forked)
    out = capsys.readouterr().out
    assert status == 0, out
    assert "No growth, and no files left." in out
    summary = json.loads((tmp_path / SUMMARY).read_text())
    training, tagging = (summary["jobs"][name] for name in ("training", "tagging"))
    assert training["resumed"] is True
    assert (tagging["done"], tagging["status"], tagging["left"]) == (9, 0, [])
    assert training["trace"]["samples"][-1]["rss_mb"] > 100
    text = write_page(tmp_path, tmp_path / "docs").read_text()
    assert "The 9 files are copies" in text
    assert (tmp_path / "docs" / "benchmarks" / PICTURE).read_bytes().startswith(b"\x89PNG")
