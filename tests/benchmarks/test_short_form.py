"""The benchmark runs from start to end with tiny sizes."""

import json
import math

import numpy as np
import pytest

from benchmarks.processes import run_python
from benchmarks.report import PAGE, table
from benchmarks.suite import SECTIONS, Bar
from benchmarks.turns import Side, Times, take_turns
from tests.helpers.processes import run


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(2700)
def test_every_section_runs_and_writes_its_tables(tmp_path):
    status, out, err = run("-m", "benchmarks", "--short", "--output", tmp_path, timeout=2400)
    assert status == 0, err
    page = (tmp_path / PAGE).read_text()
    for name in SECTIONS:
        content = json.loads((tmp_path / f"{name}.json").read_text())
        assert f"## {content['title']}" in page
        assert content["machine"]["packages"]["tensorflow"] in page
        assert content["rows"]
        for row in content["rows"]:
            assert row.keys() == content["rows"][0].keys()
            numbers = [value for value in row.values() if isinstance(value, float)]
            assert numbers
            assert all(math.isfinite(number) for number in numbers)
        for picture in content["pictures"]:
            assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_an_unknown_section_is_rejected_with_a_list_of_sections(tmp_path):
    status, _, err = run("-m", "benchmarks", "netwrok", "--output", tmp_path / "none")
    assert status == 2
    assert "netwrok" in err
    assert "network" in err
    assert not (tmp_path / "none").exists()


def test_numbers_in_a_table_are_rounded():
    rows = [{"by": "a", "ms": 1234.5678, "n": 1000}, {"by": "b", "ms": 0.012345, "n": None}]
    assert table(rows).splitlines() == [
        "| implementation | ms | n |",
        "| --- | ---: | ---: |",
        "| a | 1,235 | 1,000 |",
        "| b | 0.012 | - |",
    ]
    assert "| 12.3 |" in table([{"ms": 12.345}])
    assert "| 1.23 |" in table([{"ms": 1.2345}])


def test_a_target_is_met_at_its_value():
    assert Bar("x", 1.5, 1.5).is_met
    assert not Bar("x", 1.49, 1.5).is_met


def test_the_peak_memory_of_a_process_is_its_own():
    block = np.ones(50_000_000)  # 400 MB in this process
    run = run_python(["-c", "import time; time.sleep(0.2)"], threads=1)
    assert 5 < run.peak_mb < 100 < block.nbytes / 1e6
    assert run.seconds > 0.2
    assert run.processor_seconds < run.seconds
    with pytest.raises(RuntimeError, match="exit status 3"):
        run_python(["-c", "raise SystemExit(3)"], threads=1)


def test_sides_run_in_separate_processes(capfd):
    side = "tests.helpers.sides"
    times = take_turns(
        {
            "slow": Side(f"{side}:sleeping", {"seconds": 0.03}),
            "fast": Side(f"{side}:sleeping", {"seconds": 0.01}, {"OMP_NUM_THREADS": "7"}),
            "missing": Side(f"{side}:with_missing_package"),
        },
        threads=1,
        rounds=3,
        calls=2,
    )
    assert list(times) == ["slow", "fast"]
    assert len(times["slow"].milliseconds) == 6
    # Other work may delay some calls, but not all; two calls timed as one would take 20 ms.
    for name, least in (("slow", 30), ("fast", 10)):
        milliseconds = times[name].milliseconds
        assert all(value >= least for value in milliseconds)
        assert min(milliseconds) < 2 * least
    assert Times([3.0, 1.0, 8.0], ready_ms=9.0, peak_mb=1.0).median == 3.0
    assert 5 < times["slow"].peak_mb < 200  # this process has more
    err = capfd.readouterr().err
    assert "Left out: missing: No module named 'not_installed'" in err
    assert "threads 1, processors 1, OMP_NUM_THREADS 1" in err  # their output is not a response
    assert "threads 1, processors 1, OMP_NUM_THREADS 7" in err
    with pytest.raises(RuntimeError, match="ended with exit status 3"):
        take_turns({"dies": Side(f"{side}:dying")}, threads=1, rounds=1)
