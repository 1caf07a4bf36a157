"""The imports of the command line, and the garbage collector."""

import gc

import pytest

from rfkeras.cli.main import COMMANDS, build_parser, paused_collector, skip_final_collection
from tests.helpers.processes import run

ARITHMETIC = (
    "import rfkeras, zoo; rfkeras.rf.rf_of_rho(7); rfkeras.rho_for(time_ms=900); "
    "zoo.list_models(); zoo.list_weights()"
)


def test_the_parser_of_one_command_equals_the_parser_of_all():
    everything = build_parser()
    assert build_parser(()).format_help() == everything.format_help()
    words = ["rf", "resnet_rf", "--for-ms", "700", "--no-plots"]
    of_one, of_all = (
        vars(parser.parse_args(words)) for parser in (build_parser(("rf",)), everything)
    )
    assert of_one.pop("run").__module__ == of_all.pop("run").__module__ == "rfkeras.cli.rf"
    assert of_one == of_all


def test_help_and_the_arithmetic_import_neither_numpy_nor_other_commands():
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
def test_a_pause_restores_the_collector(enabled):
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with paused_collector():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was else gc.disable)()


def test_the_final_collection_is_skipped():
    try:
        skip_final_collection()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
