"""Progress goes to standard error: a bar on a terminal, plain lines elsewhere."""

import io

import pytest
from rich.console import Console

from rfkeras.utils import progress
from rfkeras.utils.progress import ProgressBar, track
from rfkeras.utils.text import clock


@pytest.fixture
def now(monkeypatch):
    """Set the clock used for plain lines."""
    times = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[0])

    def set_time(seconds):
        times[0] = seconds

    return set_time


@pytest.fixture
def terminal(monkeypatch):
    """Make standard error a terminal of 100 columns and return what is drawn there."""
    drawn = io.StringIO()
    monkeypatch.setattr(
        progress,
        "Console",
        lambda **_: Console(file=drawn, force_terminal=True, width=100, color_system=None),
    )
    return drawn


def test_plain_lines_are_30_seconds_apart_and_estimate_the_rest(now, capsys):
    with ProgressBar("Checking audio", 4000, unit="files") as bar:
        for done in range(1, 101):
            now(done)
            bar.update(10 * done, note="2 failed")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "Checking audio: 300 of 4,000 files done (2 failed), about 6 min 10 s left",
        "Checking audio: 600 of 4,000 files done (2 failed), about 5 min 40 s left",
        "Checking audio: 900 of 4,000 files done (2 failed), about 5 min 10 s left",
    ]


def test_a_resumed_job_estimates_from_its_own_speed(now, capsys):
    with ProgressBar("", 200, unit="steps", done=100) as bar:
        now(30)
        bar.advance(50)
    assert capsys.readouterr().err == "150 of 200 steps done, about 30 s left\n"


def test_plain_lines_show_the_current_part(now, capsys):
    with ProgressBar("", 41, unit="files") as bar:
        bar.update(20)
        bar.begin_part("song.wav", 207.0, bar=True, show=clock)
        bar.update_part(3.0, "current file")
        now(30)
        bar.update_part(33.0, "current file")
        bar.end_part()
    assert capsys.readouterr().err == "20 of 41 files done; current file 0:33 of 3:27\n"


def test_an_unknown_total_is_left_out(now, capsys):
    bar = ProgressBar("Downloading", None, unit="MB", show=lambda n: f"{n / 1e6:.1f}")
    now(31)
    bar.update(2_500_000)
    assert capsys.readouterr().err == "Downloading: 2.5 MB done\n"


def test_quiet_hides_progress_but_not_printed_lines(now, capsys):
    with ProgressBar("", 2, unit="files", quiet=True) as bar:
        now(60)
        bar.advance()
        bar.print("song.wav: empty file")
    assert capsys.readouterr().err == "song.wav: empty file\n"


def test_track_yields_the_items_and_writes_the_given_number_of_lines(capsys):
    assert list(track(range(25), 25, "Packing", unit="clips", plain_lines=5)) == [*range(25)]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" of ")[0] for line in lines] == [
        f"Packing: {done}" for done in (5, 10, 15, 20, 25)
    ]


def test_a_quiet_track_shows_nothing(capsys):
    assert list(track("ab", 2, "Packing", unit="clips", quiet=True, plain_lines=2)) == [
        "a",
        "b",
    ]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_counts_and_label(terminal, capsys):
    with ProgressBar("training", 2000, unit="steps", done=500, keep=True) as bar:
        bar.update(2000, label="epoch 3/3", note="loss 0.6931")
    shown = terminal.getvalue()
    assert "training" in shown
    assert "500/2,000" in shown
    assert "epoch 3/3 " in shown
    assert "2,000/2,000  loss 0.6931" in shown.rpartition("epoch 3/3")[2]
    assert capsys.readouterr().err == ""


def test_a_long_part_has_a_bar_with_the_end_of_its_name(terminal):
    name = "folder/" * 8 + "song.wav"
    with ProgressBar("", 2, unit="files") as bar:
        bar.begin_part(name, 207.0, bar=True, show=clock)
        bar.update_part(33.0, "current file")
        bar._bar.refresh()
        bar.end_part()
    shown = terminal.getvalue()
    assert f"...{name[-29:]} " in shown
    assert name not in shown
    assert " 0:33 " in shown


def test_lines_are_printed_while_the_bar_is_hidden(terminal, capsys):
    with ProgressBar("", 2, unit="files") as bar:
        bar.print("a line")
        assert bar._bar.live.is_started
        with bar.hidden():
            assert not bar._bar.live.is_started
    assert capsys.readouterr().err == "a line\n"
