"""Published networks as .keras files: inferred options, their sources, and errors."""

import json

import numpy as np
import pytest

import rfkeras
import zoo
from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.interop.torch import _slots, infer_options, read_state
from tests.conftest import FIXTURES
from tests.interop.test_torch import NETWORKS
from zoo.convert import convert, open_folder

RHO5 = FIXTURES / "cp_resnet_rho5_w8_c1_n20.npz"
DAMPED = FIXTURES / "cp_resnet_freq_damp_rho7_w8_c1_n20.npz"
DECOMPOSED_DAMPED = FIXTURES / "cp_resnet_decomp_freq_damp_rho4_w8_c2_n10.npz"
PRUNED = FIXTURES / "cp_resnet_df_prune_rho4_w8_c1_n10.npz"
DECOMPOSED = FIXTURES / "cp_resnet_decomp_rho5_w8_c1_n20.npz"
# The keys in the authors' files, for the network in RHO5.
CONFIG = {
    "arch": "cp_resnet",
    "base_channels": 8,
    "block_type": "basic",
    "depth": 26,
    "input_shape": [10, 1, -1, -1],
    "multi_label": False,
    "n_classes": 20,
    "prediction_threshold": 0.4,
    "stage1": {"maxpool": [1, 2, 4], "k1s": [3, 3, 3, 1], "k2s": [1, 3, 3, 1]},
    "stage2": {"maxpool": [], "k1s": [1, 1, 1, 1], "k2s": [1, 1, 1, 1]},
    "stage3": {"maxpool": [], "k1s": [1, 1, 1, 1], "k2s": [1, 1, 1, 1]},
    "use_bn": True,
    "weight_init": "fixup",
}


def published(folder, state=RHO5, **config):
    """Write a folder as the authors publish it, with .npz instead of .pth."""
    folder.mkdir()
    (folder / "model_state_dict.npz").write_bytes(state.read_bytes())
    (folder / "model_config.json").write_text(json.dumps({**CONFIG, **config}))
    return folder


def state_of(model):
    """Return the state dict that the published code would have for one of our models."""
    arrays = {
        slot.torch_name: (slot.variable.numpy(), slot.is_kernel) for slot in _slots(model)
    }
    return {
        name: value.transpose(3, 2, 1, 0) if is_kernel else value
        for name, (value, is_kernel) in arrays.items()
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_infers_the_options_of_published_networks(name):
    options = {"rho": NETWORKS[name]["rho"], "width": 8, "blocks": (4, 4, 4), **NETWORKS[name]}
    options = {"input_channels": 1, "frequency_aware": False, "decomposition": None, **options}
    options.pop("damping", None)  # not stored in the weights
    options["rho"] = (options["rho"],) * 2
    assert infer_options(read_state(FIXTURES / f"{name}.npz")) == {
        **options,
        "allow_rf_change": False,
    }


@pytest.mark.parametrize(
    "options",
    [
        {"rho": (7, 3), "frequency_aware": True, "input_channels": 2},
        # The smallest submission to DCASE 2020 has only the first stage.
        {"rho": (3, 3), "blocks": (4, 0, 0), "decomposition": 4, "input_channels": 2},
        {"rho": (9, 9), "blocks": (3, 4, 1), "allow_rf_change": True},
        {"rho": (0, 22), "decomposition": 2, "frequency_aware": True},
    ],
)
def test_infers_the_options_that_built_a_model(options):
    options = {"num_classes": 3, "width": 8, "blocks": (4, 4, 4), **options}
    inferred = infer_options(state_of(zoo.create_model("resnet_rf", frontend=None, **options)))
    assert {key: inferred[key] for key in options} == options


def test_weights_of_another_network_are_rejected():
    state = read_state(RHO5)
    wide = dict(state)
    wide["stage3.block2.conv1.weight"] = np.zeros((32, 32, 3, 3))
    with pytest.raises(CheckpointError, match=r"No rho gives .* stage3.block2 3\+1"):
        infer_options(wide)
    more = {
        **state,
        **{f"stage2.block5.conv{n}.weight": np.zeros((16, 16, 1, 1)) for n in (1, 2)},
    }
    with pytest.raises(CheckpointError, match="blocks must be 3 whole numbers from 0 to 4"):
        infer_options(more)
    with pytest.raises(CheckpointError, match="no convolution in_c.0.weight"):
        infer_options({"conv1.weight": np.zeros((8, 1, 7, 7))})
    three = {name.replace("block1.conv2", "block1.conv4"): v for name, v in state.items()}
    with pytest.raises(CheckpointError, match="blocks of two convolutions"):
        infer_options(three)


def test_a_converted_file_computes_the_published_logits(tmp_path):
    made = convert(
        RHO5, tmp_path / "m.keras", reference=RHO5, labels=[f"t{n}" for n in range(20)]
    )
    assert made.largest_difference < 1e-4 * made.largest_logit
    vectors = np.load(RHO5)
    loaded = rfkeras.load_model(tmp_path / "m.keras")
    logits = np.asarray(loaded(vectors["input_nchw"].transpose(0, 3, 2, 1)))
    np.testing.assert_allclose(logits, vectors["logits"], atol=1e-4 * made.largest_logit)
    assert loaded.head.label_names == tuple(f"t{n}" for n in range(20))
    facts = json.loads((tmp_path / "m.json").read_text())
    assert facts["sha256"] == made.sha256
    assert facts["told_by"]["rho"] == "the weights"
    card = (tmp_path / "m.md").read_text()
    assert "| rho | (5, 5) | the weights |" in card
    assert made.sha256 in card
    assert {path.name for path in tmp_path.iterdir()} == {"m.keras", "m.json", "m.md"}


@pytest.mark.parametrize(
    ("state", "arch", "option"),
    [
        (DAMPED, "cp_resnet_freq_damp", {"damping": 0.01}),
        (DECOMPOSED, "cp_resnet_decomp", {"decomposition": 4}),
        (PRUNED, "cp_resnet_df_prune", {"damping": 0.1, "damp_stem": True}),
        (
            DECOMPOSED_DAMPED,
            "cp_resnet_decomp_freq_damp",
            {"decomposition": 4, "damping": 0.01, "damp_stem": False},
        ),
    ],
)
def test_a_published_folder_needs_no_flags(state, arch, option, tmp_path):
    shapes = read_state(state)
    config = {
        "n_classes": len(shapes["feed_forward.0.weight"]),
        "input_shape": [10, shapes["in_c.0.weight"].shape[1], -1, -1],
    }
    folder = published(tmp_path / "sub", state, arch=arch, fold=1, **config)
    made = convert(folder, tmp_path / "m.keras", reference=state)
    assert made.largest_difference < 1e-4 * made.largest_logit
    assert option.items() <= made.options.items()
    assert made.options["task"] == "single_label"
    assert made.told_by["damping"] == "model_config.json"
    assert "Unknown keys of model_config.json: fold." in made.notes
    assert not [note for note in made.notes if note.startswith("Damping")]


def test_the_reference_reveals_wrong_damping(tmp_path):
    with pytest.raises(CheckpointError, match="trained with another --damping"):
        convert(DAMPED, tmp_path / "m.keras", reference=DAMPED)
    assert not list(tmp_path.iterdir())


def test_pruning_masks_are_applied(tmp_path):
    state = read_state(RHO5)
    name = "stage1.block2.conv1"
    mask = (np.arange(state[f"{name}.weight"].size) % 2).reshape(state[f"{name}.weight"].shape)
    arrays = {**state, f"{name}.prune_mask": mask.astype("float32")}
    np.savez(tmp_path / "p.npz", **{f"state.{key}": value for key, value in arrays.items()})
    made = convert(tmp_path / "p.npz", tmp_path / "m.keras")
    assert f"Pruning masks were applied: {mask.size // 2} weights are zero." in made.notes
    kernel = rfkeras.load_model(tmp_path / "m.keras").get_layer("stage1_block2").residuals[0]
    expected = (state[f"{name}.weight"] * mask).transpose(3, 2, 1, 0)
    np.testing.assert_array_equal(kernel.conv1.kernel.numpy(), expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"arch": "cp_resnet_decomp_damp"}, "Did you mean 'cp_resnet_decomp_freq_damp'"),
        ({"block_type": "bottleneck"}, "key 'block_type'.*must be 'basic'"),
        ({"pooling_padding": 1}, "key 'pooling_padding'.*Received: 1"),
        ({"attention_avg": "sum_all"}, "key 'attention_avg'"),
        ({"n_channels": [8, 8, 8]}, r"key 'n_channels'.*must be \[8, 16, 32\]"),
        ({"stage1": {"maxpool": [1, 2]}}, r"key 'stage1.maxpool'.*must be \[1, 2, 4\]"),
        ({"stage2": {"maxpool": [1]}}, r"key 'stage2.maxpool'.*must be \[\]"),
        ({"stop_before_global_avg_pooling": True}, "key 'stop_before_global_avg_pooling'"),
    ],
)
def test_unsupported_values_are_rejected_with_their_key(config, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        open_folder(published(tmp_path / "sub", **config))


def test_keys_of_missing_stages_are_ignored(tmp_path):
    folder = published(
        tmp_path / "sub",
        n_blocks_per_stage=[4, 0, 0],
        n_channels=[8, 8, 8],
        stage3={"maxpool": [1]},
    )
    assert open_folder(folder).options["blocks"] == (4, 0, 0)
    assert open_folder(folder).unknown == ()


def test_folders_without_a_file(tmp_path):
    folder = published(tmp_path / "sub")
    (folder / "model_config.json").unlink()
    with pytest.raises(CheckpointError, match="Give the file model_state_dict.npz instead"):
        open_folder(folder)
    (folder / "model_state_dict.npz").unlink()
    with pytest.raises(CheckpointError, match="contains no weights. Expected one of"):
        open_folder(folder)


def test_files_of_two_networks_are_rejected(tmp_path):
    folder = published(tmp_path / "sub", base_channels=16)
    with pytest.raises(
        ConfigError, match=r"width is 16 in model_config.json, but 8 in the weights"
    ):
        convert(folder, tmp_path / "m.keras")
