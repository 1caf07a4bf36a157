"""The networks that the benchmark compares are the same."""

import re
from importlib import import_module

import numpy as np
import pytest

import zoo
from benchmarks import single_clip, single_clip_sides
from benchmarks.network import conv_flops, training_flops
from rfkeras.interop import load_torch_checkpoint


@pytest.mark.parametrize("rho", [1, 7])
def test_the_pytorch_network_has_the_same_logits(rho):
    torch = pytest.importorskip("torch")
    from benchmarks.torch_resnet import TorchResNet

    torch.manual_seed(0)
    theirs = TorchResNet(rho, width=4, num_classes=3)
    rng = np.random.default_rng(0)
    state = theirs.state_dict()
    for name, value in state.items():  # the initial weights would give logits of 0
        if value.dtype == torch.float32:
            low, high = (0.5, 2.0) if "running_var" in name else (-0.5, 0.5)
            state[name] = torch.tensor(
                rng.uniform(low, high, tuple(value.shape)), dtype=torch.float32
            )
    theirs.load_state_dict(state)
    theirs.eval()
    ours = zoo.create_model("resnet_rf", 3, rho=rho, width=4, frontend=None)
    load_torch_checkpoint(ours, state)
    x = rng.normal(size=(2, 90, 64, 1)).astype("float32")
    with torch.inference_mode():
        expected = theirs(torch.tensor(x.transpose(0, 3, 2, 1))).numpy()
    np.testing.assert_allclose(ours(x), expected, atol=1e-5 * np.abs(expected).max())


def test_the_pytorch_network_has_the_same_initialisation():
    torch = pytest.importorskip("torch")
    from benchmarks.torch_resnet import TorchResNet

    torch.manual_seed(0)
    theirs = {n: v.numpy() for n, v in TorchResNet(7, 32, 20).state_dict().items()}
    ours = zoo.create_model("resnet_rf", 20, rho=7, width=32, frontend=None)
    stem = np.std(ours.get_layer("stem_conv").kernel)
    assert np.std(theirs["in_c.0.weight"]) == pytest.approx(stem, rel=0.15)
    block = ours.get_layer("stage2_block1")
    first = block.residuals[0].conv1.kernel
    assert np.std(theirs["stage2.block1.conv1.weight"]) == pytest.approx(
        np.std(first), rel=0.05
    )
    shortcut = block.shortcut_conv.kernel
    assert np.std(theirs["stage2.block1.shortcut.conv.weight"]) == pytest.approx(
        np.std(shortcut), rel=0.1
    )
    for zeros in ("stage2.block1.conv2.weight", "feed_forward.0.weight"):
        assert not theirs[zeros].any()


def test_counted_operations():
    # Counted by hand for rho 1, width 1, one class: stem, block 1 (3x3 and 1x1), block 2
    # (3x3, 1x1), then only 1x1, with shortcuts where the number of channels changes.
    frames, n_mels = 19, 35
    stem = (35 + 2 - 5) // 2 + 1, (19 + 2 - 5) // 2 + 1  # 17 x 9
    pixels1, pixels2, pixels3, pixels5 = 17 * 9, 8 * 4, 4 * 2, 2 * 1
    assert stem == (17, 9)
    stage1 = pixels1 * (9 + 1) + pixels2 * (9 + 1) + pixels3 * 4
    stage2 = pixels5 * (1 * 2 + 2 * 2 + 1 * 2 + 3 * 2 * (2 * 2))
    stage3 = pixels5 * (2 * 4 + 4 * 4 + 2 * 4 + 3 * 2 * (4 * 4))
    forward = 2 * (pixels1 * 25 + stage1 + stage2 + stage3 + pixels5 * 4)
    assert conv_flops(1, 1, frames, n_mels, classes=1) == forward
    difference = 3 * conv_flops(1, 1, frames, n_mels) - training_flops(1, 1, frames, n_mels)
    assert difference == 2 * pixels1 * 25


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    single_clip_sides.write(folder, rho=1, width=4, frames=43)
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile
@pytest.mark.parametrize("name", single_clip.SIDES)
def test_every_engine_has_the_scores_of_the_keras_model(clip, name, monkeypatch, tmp_path):
    # TensorFlow is already running, so its number of threads cannot change.
    monkeypatch.setattr("benchmarks.keras_sides.set_threads", lambda threads: None)
    target, more = single_clip.SIDES[name]
    module, function = target.split(":")
    pytest.importorskip({"torch_resnet": "torch"}.get(module.split(".")[1], "numpy"))
    pytest.importorskip("openvino" if name == "OpenVINO" else "numpy")
    side = getattr(import_module(module), function)
    assert np.ptp(np.load(clip / single_clip_sides.SCORES)) > 0.1
    side(folder=str(clip), rho=1, width=4, threads=1, **more)()
    for path in clip.iterdir():
        (tmp_path / path.name).symlink_to(path)
    scores = tmp_path / single_clip_sides.SCORES
    changed = np.load(scores)
    changed[0, 7] += 0.001
    scores.unlink()
    np.save(scores, changed)
    with pytest.raises(ValueError, match="scores differ by") as error:
        side(folder=str(tmp_path), rho=1, width=4, threads=1, **more)
    # The engine's own difference from Keras, which depends on the processor, comes on top.
    printed = re.search(r"differ by (\S+) .* at most 0\.0001 is allowed", str(error.value))
    assert float(printed[1]) == pytest.approx(0.001, abs=1e-4)
