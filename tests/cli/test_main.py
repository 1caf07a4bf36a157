"""What the command line imports, and what it leaves alone."""

import gc

import pytest

from rfkeras.cli.main import COMMANDS, build_parser, leave_everything, paused_collector
from tests.helpers.processes import run

ARITHMETIC = (
    "import rfkeras, zoo; rfkeras.rf.rf_of_rho(7); rfkeras.rho_for(time_ms=900); "
    "zoo.list_models(); zoo.list_weights()"
)


def test_a_parser_of_one_command_reads_it_as_the_parser_of_all_does():
    everything = build_parser()
    assert build_parser(()).format_help() == everything.format_help()
    words = ["rf", "resnet_rf", "--for-ms", "700", "--no-plots"]
    of_one, of_all = (
        vars(parser.parse_args(words)) for parser in (build_parser(("rf",)), everything)
    )
    assert of_one.pop("run").__module__ == of_all.pop("run").__module__ == "rfkeras.cli.rf"
    assert of_one == of_all


def test_help_and_the_arithmetic_import_no_numpy_and_no_other_command():
    modules = "print(*(name for name in sys.modules if '.' not in name or 'cli' in name))"
    code = (
        "import sys; from rfkeras.cli.main import build_parser; "
        f"build_parser(('rf',)); {modules}; {ARITHMETIC}; build_parser(); {modules}"
    )
    status, out, err = run("-c", code, fork=False)
    assert status == 0, err
    of_one, of_all = (set(line.split()) for line in out.splitlines())
    assert {"numpy", "keras", "tensorflow"}.isdisjoint(of_all)
    commands = {f"rfkeras.cli.{name}" for name in COMMANDS}
    assert of_one & commands == {"rfkeras.cli.rf"}
    assert of_all >= commands


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was_after_a_pause(enabled):
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with paused_collector():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was else gc.disable)()


def test_what_is_left_is_searched_no_more():
    try:
        leave_everything()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
