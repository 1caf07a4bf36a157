"""`rfkeras convert`, run as a user does."""

import numpy as np
import pytest

import rfkeras
from rfkeras.cli.main import run
from tests.conftest import FIXTURES

STEREO = FIXTURES / "cp_resnet_rho12_w8_c2_n10.npz"


def test_a_checkpoint_is_enough(tmp_path, capsys):
    output = tmp_path / "m.keras"
    names = tmp_path / "tags.txt"
    names.write_text("".join(f"tag {n}\n" for n in range(10)))
    flags = ["--labels", str(names), "--task", "single_label", "--frontend", "mel_32k"]
    assert run(["convert", "--from-torch", str(STEREO), "-o", str(output), *flags]) == 0
    out = capsys.readouterr().out
    for line in (
        "rho (12, 12) the weights",
        "input_channels 2 the weights",
        "width 8 the weights",
    ):
        assert line in " ".join(out.split())
    assert "frontend mel_32k a flag" in " ".join(out.split())
    assert "Damping cannot be read from the weights" in out
    assert "adapt(" in out
    model = rfkeras.load_model(output)
    assert model(np.zeros((1, 32000, 2), "float32")).shape == (1, 10)
    assert (model.head.task, model.head.label_names[3]) == ("single_label", "tag 3")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rho", "7"], "rho is (12, 12) in the weights, but (7, 7) in a flag"),
        (["--width", "16"], "width is 8 in the weights, but 16 in a flag. Omit --width"),
        (["--num-classes", "20"], "num_classes is 10 in the weights, but 20 in a flag"),
        (["--blocks", "4,4,1"], "blocks is (4, 4, 4) in the weights, but (4, 4, 1) in a flag"),
        (["--decomposition", "4"], "decomposition is None in the weights, but 4 in a flag"),
        (["--frequency-aware"], "frequency_aware is False in the weights, but True in a flag"),
        (["--labels", "a,b"], "10 classes but 2 label names"),
        (["--model", "vgg_rf"], "vgg_rf"),
        (["--model", "resnet_fr"], "Did you mean 'resnet_rf'"),
        (["--rho", "x"], "whole number"),
        (["-o", "m.h5"], "must end in .keras"),
        (["--from-torch", "absent.pth"], "no checkpoint file absent.pth"),
        (["--reference", "absent.npz"], "'input_nchw' and 'logits'"),
    ],
)
def test_errors_are_one_line_and_leave_no_file(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["convert", "--from-torch", str(STEREO), "-o", "m.keras", *flags]) == 1
    err = capsys.readouterr().err
    assert err.startswith("rfkeras convert: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
