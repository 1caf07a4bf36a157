"""The soak runs, in seconds: what it finds on hours is in the documentation."""

import json

import pytest

from benchmarks.soak import soak
from benchmarks.soak_page import PICTURE, SUMMARY, write_page
from tests.helpers.processes import start


@pytest.mark.slow
@pytest.mark.long
def test_a_short_soak_finds_nothing_left_and_writes_its_page(tmp_path, capsys):
    def forked(arguments, log, temporary):
        return start(*arguments, TMPDIR=str(temporary))

    status = soak(tmp_path, 1.0, 9, short=True, start=forked)
    out = capsys.readouterr().out
    assert status == 0, out
    assert "Nothing grew, and nothing was left." in out
    summary = json.loads((tmp_path / SUMMARY).read_text())
    training, tagging = (summary["jobs"][name] for name in ("training", "tagging"))
    assert training["resumed"] is True
    assert (tagging["done"], tagging["status"], tagging["left"]) == (9, 0, [])
    assert training["trace"]["samples"][-1]["rss_mb"] > 100
    text = write_page(tmp_path, tmp_path / "docs").read_text()
    assert "the 9 files are the same" in text
    assert (tmp_path / "docs" / "benchmarks" / PICTURE).read_bytes().startswith(b"\x89PNG")
