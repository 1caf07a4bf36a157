"""The paper's network and the registry of the zoo."""

from contextlib import suppress

import keras
import numpy as np
import pytest

import zoo
from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.rf import RHO_MAX, plan_backbone

# By rho, at width 128: mono networks with 20 classes, stereo networks with 10 classes.
PUBLISHED_PARAMETERS = {5: 3_568_552, 7: 3_961_768}
PUBLISHED_STEREO = {0: 2_911_252, 12: 6_581_268, 21: 21_261_332, 5: 3_568_552 - 1_940}


def trainable_parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def expected_parameters(rho, width=128, channels=1, classes=20):
    """Count the parameters from the plan, without building anything."""
    count, previous = 25 * channels * width + 2 * width, width
    for block in plan_backbone(rho).blocks:
        out = width * 2 ** (block.stage - 1)
        (t1, f1), (t2, f2) = block.kernels
        count += t1 * f1 * previous * out + t2 * f2 * out * out + 4 * out
        count += (previous * out + 2 * out) if previous != out else 0
        previous = out
    return count + previous * classes + 2 * classes


@pytest.mark.parametrize(("rho", "count"), PUBLISHED_PARAMETERS.items())
def test_published_parameter_counts(rho, count):
    model = zoo.create_model("resnet_rf", 20, rho=rho, frontend=None)
    assert trainable_parameters(model) == count == expected_parameters(rho)


@pytest.mark.parametrize(("rho", "count"), PUBLISHED_STEREO.items())
def test_published_parameter_counts_of_stereo_networks(rho, count):
    model = zoo.create_model("resnet_rf", 10, rho=rho, frontend=None, input_channels=2)
    assert trainable_parameters(model) == count == expected_parameters(rho, 128, 2, 10)


@pytest.mark.parametrize("rho", range(RHO_MAX + 1))
def test_parameter_count_for_every_rho(rho):
    model = zoo.create_model("resnet_rf_tiny", 20, rho=rho, frontend=None)
    assert trainable_parameters(model) == expected_parameters(rho, width=32)


def test_published_map_sizes():
    model = zoo.create_model("resnet_rf_tiny", 20, frontend=None)
    shapes = {}
    x = keras.KerasTensor((1, 431, 256, 1))
    for layer in model.layers[1:]:
        x = layer(x)
        shapes[layer.name] = x.shape[1:3]
    assert shapes["stem_relu"] == (215, 127)
    assert shapes["stage1_block4_pool"] == shapes["classifier_bn"] == (26, 15)


@pytest.mark.parametrize("name", ["resnet_rf", "resnet_rf_small", "resnet_rf_tiny"])
def test_initial_logits_are_exactly_zero(name):
    model = zoo.create_model(name, 20)
    x = np.random.default_rng(0).normal(0, 0.1, (2, 22050)).astype("float32")
    np.testing.assert_array_equal(model(x), np.zeros((2, 20)))


def test_aliases_are_options_of_one_architecture():
    names = zoo.list_models("resnet_rf*")
    assert len(names) == 18  # 6 variants in 3 sizes
    for name in names:
        width = 32 if "_tiny" in name else 64 if "_small" in name else 128
        options = zoo.model_info(name).options
        assert options["width"] == width
        assert bool(options["shake"]) is ("_shake" in name)
        assert options["frequency_aware"] is ("_fa" in name)
        assert options["damping"] == (0.01 if "_damped" in name else None)
        assert options["decomposition"] == (4 if "_decomposed" in name else None)
        assert options["rho"] == 7
    assert zoo.model_info("resnet").options["rho"] == RHO_MAX


def test_stem_starts_he_normal_by_its_inputs():
    """Check the deviation sqrt(2 / fan-in) for 25 weights of each input channel."""
    for channels in (1, 2):
        model = zoo.create_model(
            "resnet_rf",
            2,
            frontend=None,
            input_channels=channels,
            blocks=(1, 0, 0),
            allow_rf_change=True,
            rho=0,
        )
        kernel = model.get_layer("stem_conv").kernel.numpy()
        assert kernel.std() == pytest.approx((2 / (25 * channels)) ** 0.5, rel=0.06)


@pytest.mark.parametrize("blocks", [(1, 0, 0), (4, 4, 4)])
def test_published_blocks_start_smaller_in_deeper_networks(blocks):
    """Check the deviation sqrt(2 / (depth * fan-out)) of the first convolution of a block."""
    model = zoo.create_model(
        "resnet_rf", 2, width=32, rho=0, blocks=blocks, allow_rf_change=True, frontend=None
    )
    kernel = model.get_layer("stage1_block1").residuals[0].conv1.kernel.numpy()
    assert kernel.std() == pytest.approx((2 / (sum(blocks) * 9 * 32)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("damp_time", [False, True])
def test_damping_reaches_every_convolution_along_the_chosen_axes(damp_time):
    model = zoo.create_model(
        "resnet_rf",
        2,
        width=4,
        rho=2,
        blocks=(2, 1, 1),
        allow_rf_change=True,
        damping=0.1,
        damp_time=damp_time,
        frontend=None,
    )
    stem = model.get_layer("stem_conv")
    falling = np.array([0.1, 0.55, 1.0, 0.55, 0.1])
    expected = np.outer(falling if damp_time else np.ones(5), falling)
    np.testing.assert_allclose(stem.window[..., 0, 0], expected, rtol=1e-6)
    damped = [
        layer
        for layer in model._flatten_layers()
        if hasattr(layer, "damp_time") and hasattr(layer, "window")
    ]
    assert len(damped) == 4  # the stem, the first block and the first layer after it
    assert {layer.damp_time for layer in damped} == {damp_time}


# The published counts of the low-complexity networks are for stereo input and ten outputs: the
# code counted them before it set the three classes of the task.
@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"rho": 3, "blocks": (4, 0, 0), "decomposition": 4}, 18_740),
        ({"rho": 4, "blocks": (4, 3, 1), "damping": 0.1}, 247_316),
    ],
)
def test_published_low_complexity_counts(options, count):
    model = zoo.create_model(
        "resnet_rf", 10, width=48, input_channels=2, frontend=None, **options
    )
    assert trainable_parameters(model) == count


def test_shake_only_doubles_the_branches():
    plain = zoo.create_model("resnet_rf_tiny", 20, frontend=None)
    shaken = zoo.create_model("resnet_rf_shake_tiny", 20, frontend=None)
    per_branch = sum(
        trainable_parameters(layer.residuals[0])
        for layer in plain.layers
        if layer.name.endswith(("block1", "block2", "block3", "block4"))
    )
    assert trainable_parameters(shaken) - trainable_parameters(plain) == per_branch
    assert not any("shake" in v.path and "seed" not in v.path for v in shaken.variables)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("head", "averag", "Unknown head 'averag'. Did you mean 'average'"),
        ("initialization", "publish", "Unknown initialization 'publish'. Did you mean"),
        ("width", 0, "width must be a whole number of at least 1. Received: 0"),
        ("width", True, "Received: True"),
        ("input_channels", 3, "input_channels must be 1"),
    ],
)
def test_options_out_of_range_are_rejected(option, value, message):
    with pytest.raises(ConfigError, match=message):
        zoo.create_model("resnet_rf_tiny", 2, **{"frontend": None, option: value})


def test_anisotropic_rho_gives_three_kernel_shapes():
    model = zoo.create_model("resnet_rf", 2, rho=(4, 2), width=4, frontend=None)
    kernels = [
        conv.kernel.shape[:2]
        for block in ("stage1_block2", "stage1_block3", "stage1_block4")
        for branch in model.get_layer(block).residuals
        for conv in (branch.conv1, branch.conv2)
    ]
    assert kernels == [(3, 3), (3, 3), (3, 1), (3, 1), (1, 1), (1, 1)]
    model = zoo.create_model("resnet_rf", 2, rho=(0, 1), width=4, frontend=None)
    branch = model.get_layer("stage1_block2").residuals[0]
    assert branch.conv1.kernel.shape[:2] == (1, 3)


def test_all_variants_in_one_call():
    """Count the parameters with all options at once."""
    width, factor = 16, 4
    model = zoo.create_model(
        "resnet_rf",
        5,
        rho=(7, 3),
        width=width,
        shake=True,
        frequency_aware=True,
        damping=0.01,
        decomposition=factor,
        frontend=None,
    )

    def conv(kernel, before, after):
        narrow = after // factor
        return before * narrow + kernel[0] * kernel[1] * narrow**2 + narrow * after

    count, before = 25 * width + 2 * width, width
    for block in plan_backbone((7, 3)).blocks:
        after = width * 2 ** (block.stage - 1)
        first, second = block.kernels
        branch = conv(first, before + 1, after) + conv(second, after + 1, after) + 4 * after
        count += 2 * branch
        count += conv((1, 1), before, after) + 2 * after if before != after else 0
        before = after
    assert trainable_parameters(model) == count + before * 5 + 2 * 5
    # As published: with decomposition, only the middle convolutions are damped.
    assert not hasattr(model.get_layer("stem_conv"), "damping")
    assert model.get_layer("stage1_block2").residuals[0].conv1.spread.damping == 0.01
    spread = model.get_layer("stage1_block2").residuals[1].conv1.spread
    assert spread.damping == 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shake": True, "branches": 1}, "branches=2"),
        ({"shake": True, "branches": 3}, "branches=2"),
        ({"shake_per": "clip", "shake": True}, "Allowed|sample"),
        ({"damping": 1.5}, "from 0 to 1"),
        ({"damping": True}, "from 0 to 1"),
        ({"decomposition": 0}, "from 1 to"),
        ({"decomposition": 64}, "from 1 to 8, the channels of"),
        ({"blocks": (4, 4, 4), "rho": (23, 0)}, "rho"),
        ({"blocks": (4, 1, 3), "rho": 14}, "leaves out block 2 of stage 2, which affects"),
    ],
)
def test_wrong_variant_options(options, message):
    with pytest.raises(ConfigError, match=message):
        zoo.create_model("resnet_rf", 2, **{"width": 8, "frontend": None, **options})


def test_stereo_waveforms():
    model = zoo.create_model("resnet_rf_tiny", 3, input_channels=2)
    assert model(np.zeros((2, 22050, 2), "float32")).shape == (2, 3)


def test_shortest_audio_that_the_network_accepts():
    for frontend in ("perceptual_mel_22k", "mel_32k"):
        model = zoo.create_model("resnet_rf_tiny", 3, frontend=frontend)
        assert model(np.zeros((1, 10), "float32")).shape == (1, 3)
    frames = plan_backbone(7).minimum_frames
    network = zoo.create_model("resnet_rf_tiny", 3, frontend=None)
    assert np.isfinite(network(np.zeros((1, frames, 64, 1), "float32"))).all()
    body = keras.Model(network.input, network.get_layer("stage1_block4_pool").output)
    assert body.compute_output_shape((1, frames, 64, 1))[1] == 1
    with suppress(ValueError):  # which newer versions of Keras raise instead
        assert body.compute_output_shape((1, frames - 1, 64, 1))[1] == 0


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_file_round_trip_under_each_dtype_policy(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        model = zoo.create_model("resnet_rf", label_names=("a", "b"), width=8, rho=(3, 2))
        rng = np.random.default_rng(0)
        for variable in model.trainable_variables:
            variable.assign(variable.numpy() + rng.normal(0, 0.05, variable.shape))
        x = rng.normal(0, 0.1, (2, 22050)).astype("float32")
        model.save(tmp_path / "m.keras")
        loaded = keras.models.load_model(tmp_path / "m.keras")
        np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)
        assert loaded.output.dtype == "float32"
        assert loaded.get_layer("logits").label_names == ("a", "b")
        assert loaded.get_layer("stem_conv").compute_dtype == model.layers[3].compute_dtype
        same = zoo.create_model(
            "resnet_rf", 2, width=8, rho=(3, 2), weights=tmp_path / "m.keras"
        )
        np.testing.assert_allclose(same(x), model(x), atol=1e-6)
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_wrong_name_suggests_the_right_one():
    with pytest.raises(ConfigError, match="Did you mean 'resnet_rf_tiny'"):
        zoo.create_model("resnet_rf_tinny", 20)
    with pytest.raises(ConfigError, match="Did you mean 'width'"):
        zoo.create_model("resnet_rf", 20, widht=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({}, "num_classes"),
        ({"num_classes": 2, "width": 0}, "width"),
        ({"num_classes": 2, "input_channels": 3}, "input_channels"),
        ({"num_classes": 2, "frontend": 3}, "frontend"),
        ({"num_classes": 2, "rho": 23}, "rho"),
        ({"num_classes": 3, "label_names": ("a", "b")}, "3 classes but 2"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        zoo.create_model("resnet_rf", **options)


def test_wrong_weights(tmp_path):
    with pytest.raises(CheckpointError, match="no weights file"):
        zoo.create_model("resnet_rf_tiny", 2, weights=tmp_path / "absent.keras")
    (tmp_path / "w.txt").touch()
    with pytest.raises(CheckpointError, match="end in"):
        zoo.create_model("resnet_rf_tiny", 2, weights=tmp_path / "w.txt")
    zoo.create_model("resnet_rf_tiny", 2).save(tmp_path / "two.keras")
    with pytest.raises(CheckpointError, match=r"filters=32, the model's filters=16"):
        zoo.create_model("resnet_rf_tiny", 2, width=16, weights=tmp_path / "two.keras")


def test_a_name_cannot_be_registered_twice():
    with pytest.raises(ConfigError, match="already registered"):
        zoo.register_alias("resnet_rf_tiny", "resnet_rf", "again")


def test_he_initialisation_starts_without_zeros():
    model = zoo.create_model("resnet_rf_tiny", 3, initialization="he", frontend=None)
    second = next(
        v.numpy()
        for v in model.get_layer("stage2_block2").trainable_variables
        if v.path.endswith("conv2/kernel")
    )
    assert second.std() == pytest.approx(np.sqrt(2 / (second.shape[0] ** 2 * 64)), rel=0.1)
    assert model.get_layer("classifier_conv").kernel.numpy().std() > 0
    with pytest.raises(ConfigError, match="Did you mean 'he'"):
        zoo.create_model("resnet_rf_tiny", 3, initialization="hee", frontend=None)
