"""The published networks' outputs, reproduced from their weights."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from rfkeras.errors import CheckpointError
from rfkeras.interop import load_torch_checkpoint
from rfkeras.interop.torch import apply_masks, read_state
from rfkeras.layers import DampedConv2D
from tests.conftest import FIXTURES

# Files, and the options that build their networks.
NETWORKS = {
    "cp_resnet_rho4_w8_c1_n10_b431": {"num_classes": 10, "rho": 4, "blocks": (4, 3, 1)},
    "cp_resnet_rho5_w8_c1_n20": {"num_classes": 20, "rho": 5},
    "cp_resnet_rho12_w8_c2_n10": {"num_classes": 10, "rho": 12, "input_channels": 2},
    "cp_faresnet_rho5_w8_c1_n20": {"num_classes": 20, "rho": 5, "frequency_aware": True},
    "cp_resnet_decomp_rho5_w8_c1_n20": {"num_classes": 20, "rho": 5, "decomposition": 4},
    "cp_resnet_freq_damp_rho7_w8_c1_n20": {"num_classes": 20, "rho": 7, "damping": 0.01},
    "cp_resnet_decomp_freq_damp_rho4_w8_c2_n10": {
        "num_classes": 10,
        "rho": 4,
        "input_channels": 2,
        "damping": 0.01,
        "decomposition": 4,
    },
    "cp_resnet_df_prune_rho4_w8_c1_n10": {"num_classes": 10, "rho": 4, "damping": 0.1},
}
DECOMPOSED = "cp_resnet_decomp_freq_damp_rho4_w8_c2_n10"
PRUNED = "cp_resnet_df_prune_rho4_w8_c1_n10"
RHO5 = FIXTURES / "cp_resnet_rho5_w8_c1_n20.npz"


def build(**options):
    return zoo.create_model("resnet_rf", **{"width": 8, "frontend": None, **options})


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_input_gradient_of_the_published_networks(name):
    vectors = np.load(FIXTURES / f"{name}.npz")
    model = build(**NETWORKS[name])
    load_torch_checkpoint(model, FIXTURES / f"{name}.npz")
    # (batch, channel, frequency, time) -> (batch, time, frequency, channel)
    x = tf.constant(vectors["input_nchw"].transpose(0, 3, 2, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = model(x, training=False)
        value = tf.reduce_sum(logits**2)
    gradient = tape.gradient(value, x).numpy().transpose(0, 3, 2, 1)
    for ours, theirs in ((logits, vectors["logits"]), (gradient, vectors["input_grad"])):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        (DECOMPOSED, {"damp_stem": True}, "damp_stem=False"),
        (DECOMPOSED, {"damping": None}, "logits differ"),
        (DECOMPOSED, {"damping": 0.1}, "logits differ"),
        (PRUNED, {"damping": 0.01}, "logits differ"),
        (PRUNED, {"damp_stem": False}, "logits differ"),
        ("cp_resnet_freq_damp_rho7_w8_c1_n20", {"damp_stem": False}, "logits differ"),
        ("cp_resnet_freq_damp_rho7_w8_c1_n20", {"damping": None}, "logits differ"),
        ("cp_resnet_rho5_w8_c1_n20", {"damping": 0.1}, "logits differ"),
    ],
)
def test_a_file_with_reference_vectors_only_loads_into_the_same_network(name, changed, message):
    model = build(**{**NETWORKS[name], **changed})
    before = [w.numpy() for w in model.weights]
    with pytest.raises(CheckpointError, match=message):
        load_torch_checkpoint(model, FIXTURES / f"{name}.npz")
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, weight.numpy())


def test_the_published_stem_is_damped_unless_blocks_are_decomposed():
    for options, damped in (
        ({"damping": 0.01}, True),
        ({"damping": 0.01, "decomposition": 4}, False),
        ({"damping": 0.01, "decomposition": 4, "damp_stem": True}, True),
        ({"damping": 0.1, "damp_stem": False}, False),
        ({"damp_stem": True}, False),
    ):
        stem = build(num_classes=2, rho=1, **options).get_layer("stem_conv")
        assert isinstance(stem, DampedConv2D) == damped, options


def test_masks_keep_weights_where_they_are_above_zero():
    state = {"a.weight": np.full((2, 3), 2.0), "b.weight": np.ones(2)}
    for mask in ([[1, 0, 1], [0, 0, 1]], [[0.7, 0.0, 1e-3], [-0.2, -5, 3]]):
        masked, zeros = apply_masks({**state, "a.prune_mask": np.array(mask)})
        assert set(masked) == {"a.weight", "b.weight"}
        np.testing.assert_array_equal(masked["a.weight"], [[2, 0, 2], [0, 0, 2]])
        assert zeros == 3
    with pytest.raises(CheckpointError, match=r"has shape \(3,\)"):
        apply_masks({**state, "a.prune_mask": np.ones(3)})
    with pytest.raises(CheckpointError, match=r"no c\.weight"):
        apply_masks({**state, "c.prune_mask": np.ones(3)})


def test_learned_gates_need_a_stem_without_damping():
    state = read_state(RHO5)
    name = "stage1.block2.conv1"
    gates = np.random.default_rng(0).normal(size=state[f"{name}.weight"].shape)
    gated = {**state, f"{name}.prune_mask": gates}
    options = {"num_classes": 20, "rho": 5, "damping": 0.1}
    with pytest.raises(CheckpointError, match="learned pruning gates"):
        load_torch_checkpoint(build(**options), gated)
    model = build(**options, damp_stem=False)
    load_torch_checkpoint(model, gated)
    kernel = model.get_layer("stage1_block2").residuals[0].conv1.kernel.numpy()
    expected = (state[f"{name}.weight"] * (gates > 0)).transpose(3, 2, 1, 0)
    np.testing.assert_array_equal(kernel, expected)


def test_create_model_accepts_the_file_as_weights():
    model = build(**NETWORKS[RHO5.stem], weights=RHO5)
    state = read_state(RHO5)
    kernel = model.get_layer("stage1_block2").residuals[0].conv1.kernel.numpy()
    expected = state["stage1.block2.conv1.weight"].transpose(3, 2, 1, 0)
    np.testing.assert_array_equal(kernel, expected)


def test_state_dict_with_arrays_and_counters():
    state = read_state(RHO5)
    model = build(num_classes=20, rho=5)
    counters = {"in_c.1.num_batches_tracked": np.array(7)}
    load_torch_checkpoint(model, {"state_dict": state | counters})
    np.testing.assert_array_equal(
        model.get_layer("stem_bn").moving_mean.numpy(), state["in_c.1.running_mean"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": 7}, r"checkpoint has rho=\(5, 5\)"),
        ({"rho": 4}, r"checkpoint has rho=\(5, 5\)"),
        ({"rho": (5, 4)}, r"checkpoint has rho=\(5, 5\)"),
        ({"width": 16}, "checkpoint has width=8, the model 16"),
        ({"num_classes": 10}, "checkpoint has num_classes=20, the model 10"),
        ({"input_channels": 2}, "checkpoint has input_channels=1, the model 2"),
        ({"blocks": (4, 4, 3)}, r"checkpoint has blocks=\(4, 4, 4\)"),
        ({"frequency_aware": True}, "checkpoint has frequency_aware=False"),
        ({"decomposition": 4}, "and decomposition=None"),
        ({"shake": True}, "not a residual model with one branch"),
    ],
)
def test_the_error_for_a_wrong_model_names_the_checkpoints_value(options, message):
    model = build(**{"num_classes": 20, "rho": 5, **options})
    before = [w.numpy() for w in model.weights]
    with pytest.raises(CheckpointError, match=message):
        load_torch_checkpoint(model, RHO5)
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, weight.numpy())  # nothing was loaded


def test_files_that_are_not_checkpoints(tmp_path):
    model = build(num_classes=20, rho=5)
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        load_torch_checkpoint(model, tmp_path / "absent.npz")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(RHO5.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_torch_checkpoint(model, broken)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(CheckpointError, match="no array with the prefix"):
        load_torch_checkpoint(model, tmp_path / "other.npz")
    with pytest.raises(CheckpointError, match="must end in"):
        load_torch_checkpoint(model, _touch(tmp_path / "weights.bin"))


def _touch(path):
    path.touch()
    return path


def test_pickles_are_not_executed(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, **{"state.x": np.array([print], dtype=object)})
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_torch_checkpoint(build(num_classes=20, rho=5), path)


def test_pth_file(tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(value) for name, value in read_state(RHO5).items()}
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    model = build(num_classes=20, rho=5, weights=tmp_path / "model.pth")
    expected = build(num_classes=20, rho=5, weights=RHO5)
    x = keras.random.normal((1, 64, 64, 1))
    np.testing.assert_array_equal(model(x), expected(x))


def test_pth_without_torch_explains_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CheckpointError, match=r"rfkeras\[torch\]"):
        load_torch_checkpoint(build(num_classes=20, rho=5), _touch(tmp_path / "m.pth"))
