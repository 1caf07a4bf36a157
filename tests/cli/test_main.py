"""The command line: imports, misspelt words, closed streams, and the garbage collector."""

import gc
import os
import subprocess
import sys

import pytest

from rfkeras.cli import main
from rfkeras.cli.main import (
    COMMANDS,
    WITHOUT_IMPORT,
    build_parser,
    paused_collector,
    skip_final_collection,
)
from tests.helpers.processes import ROOT, run

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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tagg a.wav", "unknown command 'tagg'. Did you mean 'tag'?"),
        ("trian", "Did you mean 'train'?"),
        ("--verson", "unknown option --verson. Did you mean --version?"),
        ("tag a.wav --modle x", "unknown option --modle. Did you mean --model?"),
        ("tag a.wav --modle=x", "unknown option --modle. Did you mean --model?"),
        ("tag a.wav --format jsnl", "unknown value 'jsnl'. Did you mean 'jsonl'?"),
        ("tag a.wav --zzz --outputdir x", "option --zzz. unknown option --outputdir. Did you"),
        ("tag a.wav --out-dir x --beam --runer=y", "unknown option --out-dir. Did you mean"),
        ("tag a.wav --thresh 1", "unknown option --thresh. Did you mean --threshold?"),
        ("embed a.wav --outptu x.npy", "unknown option --outptu. Did you mean --output?"),
        ("train --eopchs 3", "unknown option --eopchs. Did you mean --epochs?"),
        ("train --epoch 3", "unknown option --epoch. Did you mean --epochs?"),
        ("launch --worker 2", "unknown option --worker. Did you mean --workers?"),
        ("sweep --rhos 1", "unknown option --rhos. Did you mean --rho?"),
        ("tune --serach rho=1:2", "unknown option --serach. Did you mean --search?"),
        ("evaluate --datset x", "unknown option --datset. Did you mean --dataset?"),
        ("convert --from-trch x", "unknown option --from-trch. Did you mean --from-torch?"),
        ("export x --to tflitee --output y", "'tflitee'. Did you mean 'tflite'?"),
        ("data chek", "unknown command 'chek'. Did you mean 'check'?"),
        ("data check --datset x", "unknown option --datset. Did you mean --dataset?"),
        ("rf --modl x", "unknown option --modl. Did you mean --model?"),
        ("rf", "the following arguments are required: --model"),
        ("rf resnet_rf --model resnet_rf", "--model and MODEL: name one model."),
        ("models a b", "unexpected arguments: b"),
    ],
)
def test_misspelt_words_get_the_nearest_one(capsys, words, message):
    with pytest.raises(SystemExit) as end:
        main.run(words.split())
    captured = capsys.readouterr()
    assert (end.value.code, captured.out) == (2, "")
    assert message in captured.err
    assert "usage: rfkeras" in captured.err


def test_every_command_that_loads_a_model_imports_code_of_the_user(tmp_path, capsys):
    path = tmp_path / "own_broken.py"
    path.write_text("raise ValueError('here')")
    words = {"launch": ["--workers", "2"], "tag": ["a.wav"], "rf": ["resnet_rf"]}
    words |= {"embed": ["a.wav", "--output", "x.npy"], "sweep": ["--rho", "1"]}
    words |= {"convert": ["--from-torch", "x", "--output", "y"], "evaluate": ["--run", "x"]}
    words |= {"similar": ["a.wav", "x.npy"], "push": ["x", "hf://me/tiny"]}
    words |= {"export": ["x", "--to", "onnx", "--output", "y"]}
    for command in COMMANDS.keys() - set(WITHOUT_IMPORT):
        status = main.run([command, *words.get(command, []), "--import", str(path)])
        message = f"rfkeras {command}: error: --import {path}, line 1: ValueError: here."
        assert (status, capsys.readouterr().err) == (1, message + "\n")


def shell(script):
    """Run a shell script in which `rfkeras` is the command; return status, output, errors."""
    rfkeras = f'rfkeras() {{ "{sys.executable}" -m rfkeras.cli "$@"; }}; set -o pipefail; '
    done = subprocess.run(
        ["bash", "-c", rfkeras + script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("rfkeras models | true", (141, "", "")),
        ("rfkeras train --help | true", (141, "", "")),
        ("rfkeras models >&-", (0, "", "")),
        ("rfkeras models 2>&- >/dev/null", (0, "", "")),
        ("rfkeras models x >&- 2>&-", (1, "", "")),
        ("rfkeras models no_such_model 2>&-", (1, "", "")),
        ("rfkeras tag no_such_option --x 2>&-", (2, "", "")),
        ("rfkeras models <&- >/dev/null", (0, "", "")),
        ("(sleep 2; rfkeras models no_such_model) 2>&1 | true", (141, "", "")),
    ],
)
def test_a_closed_stream_ends_quietly(script, expected):
    assert shell(script) == expected


def test_a_file_never_gets_the_number_of_a_closed_output(tmp_path):
    code = (
        "import os, rfkeras.cli.main as m; m.run(['models', 'none'])\n"
        f"with open({str(tmp_path / 'x')!r}, 'w') as f: assert f.fileno() > 2, f.fileno()"
    )
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" >&- 2>&- <&-', sys.executable, code], check=False, cwd=ROOT
    )
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("command", "given", "threads"), [("tag", None, "1"), ("tag", "3", "3"), ("find", None, "")]
)
def test_numpy_uses_one_thread_for_small_products(command, given, threads):
    """The commands that compute spectrograms limit OpenBLAS before NumPy is imported."""
    name = "OPENBLAS_NUM_THREADS"
    code = (
        "import os, sys; from rfkeras.cli import main; assert 'numpy' not in sys.modules\n"
        f"try: main.run([{command!r}, '--help'])\n"
        "except SystemExit: pass\n"
        f"print(os.environ.get({name!r}, ''))"
    )
    environment = {key: value for key, value in os.environ.items() if key != name}
    environment |= {"PYTHONPATH": str(ROOT)} | ({} if given is None else {name: given})
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == threads
