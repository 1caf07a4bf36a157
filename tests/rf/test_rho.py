"""The arithmetic of rho, kernels and receptive field, and its inverse."""

import math
from functools import cache, partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from rfkeras.errors import ConfigError
from rfkeras.frontend.presets import scale_of_preset
from rfkeras.rf import RHO_MAX, AxisField, AxisLayer, compose, plan_backbone, rf_of_rho
from rfkeras.rf.rho import RULES, explain_rho, rho_for

# Maximum receptive field in pixels for each rho, from the published networks.
PUBLISHED_RF = {
    0: 23, 1: 31, 2: 39, 3: 55, 4: 71, 5: 87, 6: 103, 7: 135, 8: 167, 9: 199, 10: 231,
    11: 263, 12: 295, 15: 391, 18: 487, 21: 583, 22: 615,
}  # fmt: skip


@pytest.mark.parametrize(("rho", "size"), PUBLISHED_RF.items())
def test_published_receptive_field_for_every_rho(rho, size):
    assert rf_of_rho(rho) == (size, size)


def test_axes_are_independent():
    assert rf_of_rho((7, 3)) == (PUBLISHED_RF[7], PUBLISHED_RF[3])
    blocks = plan_backbone((2, 1)).blocks
    assert blocks[0].kernels == ((3, 3), (1, 1))
    assert blocks[1].kernels == ((3, 3), (3, 1))
    assert blocks[2].kernels == ((1, 1), (1, 1))


def test_receptive_field_grows_with_rho():
    sizes = [rf_of_rho(rho)[0] for rho in range(RHO_MAX + 1)]
    assert sizes == sorted(set(sizes))


def test_first_block_is_always_three_then_one():
    for rho in range(RHO_MAX + 1):
        assert plan_backbone(rho).blocks[0].kernels == ((3, 3), (1, 1))


def test_pooling_follows_blocks_1_2_and_4_of_the_first_stage():
    pooled = [block.name for block in plan_backbone(7).blocks if block.pooled]
    assert pooled == ["stage1_block1", "stage1_block2", "stage1_block4"]


def test_compose_counts_kernels_strides_and_padding():
    field = compose([AxisLayer("a", 5, 2, 1), AxisLayer("b", 3, 1, 1), AxisLayer("p", 2, 2)])
    assert field == AxisField(size=5 + 2 * 2 + 1 * 2, jump=4, start=-1 - 2)
    assert field.window(3) == (-3 + 12, -3 + 12 + field.size)


@pytest.mark.parametrize("rho", [-1, 23, 1.5, True, "7", (7,), (7, 23), (1, 2, 3), (7, 1.0)])
def test_error_for_wrong_rho_shows_the_allowed_values(rho):
    with pytest.raises(ConfigError, match="from 0 to 22"):
        plan_backbone(rho)


def test_blocks_with_kernel_1_can_be_removed():
    whole, shorter = plan_backbone(4), plan_backbone(4, (4, 3, 1))
    assert len(shorter.blocks) == 8
    assert shorter.time == whole.time


@pytest.mark.parametrize("blocks", [(4, 0, 4), (3, 4, 4)])
def test_blocks_that_affect_the_receptive_field_cannot_be_removed(blocks):
    with pytest.raises(ConfigError, match="allow_rf_change=True"):
        plan_backbone(8, blocks)
    assert plan_backbone(8, blocks, allow_rf_change=True).time.size < plan_backbone(8).time.size


@pytest.mark.parametrize("blocks", [(4, 4), (5, 4, 4), (0, 0, 0), (4, 4, -1), (4, 4, 1.0)])
def test_wrong_blocks(blocks):
    with pytest.raises(ConfigError, match="blocks must be"):
        plan_backbone(7, blocks)


def test_invalid_layers():
    with pytest.raises(ConfigError, match="kernel >= 1"):
        AxisLayer("a", 0)


SCALE = scale_of_preset("perceptual_mel_22k")
ARCHITECTURES = {"resnet_rf": 22, "vgg_rf": 7, "densenet_rf": 22}
few = settings(max_examples=80, derandomize=True, deadline=None)


@cache
def plan_of(name):
    return cache(zoo.model_info(name).plan)


def sizes(name):
    plan = plan_of(name)
    return [plan(rho).time.size for rho in range(ARCHITECTURES[name] + 1)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rho_for_inverts_every_receptive_field_in_every_unit(name):
    plan = plan_of(name)
    for rho, size in enumerate(sizes(name)):
        requests = (
            {"rf_time": size},
            {"rf_frequency": size},
            {"mel_bands": size},
            {"time_ms": SCALE.ms(size)},
        )
        for request, rule in zip(requests, (*RULES, RULES[rho % 3]), strict=True):
            assert rho_for(**request, rule=rule, plan=plan) == rho
        other = ARCHITECTURES[name] - rho
        pair = rho_for(rf_time=size, mel_bands=sizes(name)[other], plan=plan)
        assert pair == (rho, other)


@few
@given(st.sampled_from(sorted(ARCHITECTURES)), st.sampled_from(RULES), st.floats(1, 20000))
def test_no_other_rho_fits_the_rule_better(name, rule, time_ms):
    spans = [SCALE.ms(size) for size in sizes(name)]
    fitting = {
        "at_most": [ms for ms in spans if ms <= time_ms][-1:],
        "at_least": [ms for ms in spans if ms >= time_ms][:1],
        "nearest": [min(spans, key=lambda ms: abs(ms - time_ms))],
    }[rule]
    plan = plan_of(name)
    if fitting:
        found = rho_for(time_ms=time_ms, rule=rule, plan=plan)
        assert found == spans.index(fitting[0])
    else:
        end = math.ceil(spans[0]) if rule == "at_most" else math.floor(spans[-1])
        with pytest.raises(ConfigError, match=f"is {end} ms"):
            rho_for(time_ms=time_ms, rule=rule, plan=plan)


def test_hz_are_measured_at_the_given_frequency():
    # The same number of Hz spans many bands in the bass and few in the treble.
    rhos = [rho_for(bandwidth_hz=2500, centre_hz=hz) for hz in (500, 1000, 4000)]
    assert rhos == sorted(rhos, reverse=True)
    for rho, hz in zip(rhos, (500, 1000, 4000), strict=True):
        size, next_size = (plan_backbone(r).frequency.size for r in (rho, rho + 1))
        assert SCALE.bandwidth_hz(size, hz) <= 2500 < SCALE.bandwidth_hz(next_size, hz)
    # Of all rhos that see the whole spectrogram, "at_least" takes the smallest.
    whole = rho_for(bandwidth_hz=11025, centre_hz=1000, rule="at_least")
    sizes_of = [plan_backbone(rho).frequency.size for rho in range(RHO_MAX + 1)]
    sees = [SCALE.bandwidth_hz(size, 1000) for size in sizes_of]
    assert sees.index(11025.0) == whole < RHO_MAX
    assert rho_for(bandwidth_hz=20000, centre_hz=1000) == RHO_MAX


def test_front_end_determines_milliseconds():
    # The window of mel_32k is 800 samples and its hop 320: 135 frames are 1,365 ms.
    assert rho_for(time_ms=1366, frontend="mel_32k") == 7
    assert rho_for(time_ms=1366, frontend=scale_of_preset("mel_32k")) == 7
    assert rho_for(time_ms=1364, frontend="mel_32k") == 6


@pytest.mark.parametrize(
    ("wanted", "rho"),
    [(1, 0), (26.9, 0), (27, 0), (27.1, 1), (35, 1), (47, 2), (119, 6), (9999, 22)],
)
def test_of_two_equally_near_fields_nearest_is_the_smaller(wanted, rho):
    """Check requests halfway between the fields 23, 31, 39, 55 ... 103, 135."""
    assert rho_for(rf_time=wanted, rule="nearest") == rho
    assert rho_for(mel_bands=wanted, rule="nearest") == rho


def test_removed_blocks_limit_rho():
    plan = partial(plan_backbone, blocks=(4, 1, 1))
    assert rho_for(rf_time=10_000, plan=plan) == 8
    assert len(explain_rho(plan)) == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs at least one of rf_time, time_ms"),
        (
            {"rf_time": 22},
            r"22 frames or less; the smallest \(rho 0\) is 23 frames. Ask for more",
        ),
        ({"mel_bands": 700, "rule": "at_least"}, r"largest \(rho 22\) is 615 mel bands"),
        ({"rf_time": 100, "time_ms": 100}, "time_ms both request a field along time"),
        ({"rf_frequency": 9, "mel_bands": 9}, "both request a field along frequency"),
        ({"rf_time": 0}, "must be a positive number of frames. Received: 0"),
        ({"rf_time": True}, "must be a positive number"),
        ({"time_ms": float("inf")}, "must be a positive number of ms"),
        ({"rf_time": float("nan")}, "must be a positive number"),
        ({"rf_time": 100, "rule": "at most"}, "Did you mean 'at_most'"),
        ({"bandwidth_hz": 100}, "bandwidth_hz and centre_hz go together"),
        ({"centre_hz": 100, "rf_time": 100}, "go together"),
        ({"bandwidth_hz": 100, "centre_hz": 12000}, "half the sample rate"),
        ({"time_ms": 100, "frontend": "mel"}, "Unknown front-end 'mel'"),
    ],
)
def test_impossible_requests(arguments, message):
    with pytest.raises(ConfigError, match=message):
        rho_for(**arguments)


def test_networks_without_a_variable_field():
    crnn = zoo.model_info("crnn")
    with pytest.raises(ConfigError, match="unlimited along time"):
        rho_for(rf_time=100, plan=lambda rho: crnn.plan_for(rho=rho))
    with pytest.raises(ConfigError, match="has no rho"):
        rho_for(rf_time=100, plan=lambda rho: plan_backbone(7))
    with pytest.raises(ConfigError, match="has no rho"):
        explain_rho(lambda rho: crnn.plan_for(rho=rho))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_steps_add_up_and_name_the_widened_layer(name):
    plan = plan_of(name)
    steps = explain_rho(plan)
    assert [step.rho for step in steps] == list(range(ARCHITECTURES[name] + 1))
    assert [step.time for step in steps] == [step.frequency for step in steps] == sizes(name)
    for before, step in pairwise(steps):
        assert step.added == (step.time - before.time, step.frequency - before.frequency)
        (grown,) = step.layers
        kernels = [
            {layer.name: layer.kernel for layer in plan(rho).axis_layers(0)}[grown]
            for rho in (before.rho, step.rho)
        ]
        assert kernels == [1, 3]
    assert steps[0].layers == ()
    assert len({step.layers for step in steps}) == len(steps)


def test_parameters_equal_the_built_networks():
    def parameters(rho):
        model = zoo.create_model("vgg_rf", 2, rho=rho, width=1, frontend=None)
        return sum(
            variable.value.shape.num_elements() for variable in model.trainable_variables
        )

    steps = explain_rho(zoo.model_info("vgg_rf").plan, parameters)
    # A 3x3 kernel has 8 more weights than a 1x1 kernel for each pair of channels.
    channels = (1, 2, 2, 4, 4, 6, 6, 8)
    pairs = [a * b for a, b in pairwise(channels)]
    assert [step.added_parameters for step in steps] == [None, *(8 * p for p in pairs)]
    assert steps[7].parameters == steps[0].parameters + 8 * sum(pairs)
    assert steps[7].to_dict(SCALE) == {
        "rho": 7,
        "time": 135,
        "frequency": 135,
        "layers": ["stage4_layer1"],
        "added": [32, 32],
        "parameters": steps[7].parameters,
        "added_parameters": 8 * 6 * 8,
        "time_ms": SCALE.ms(135),
        "mel_share": 135 / 256,
    }


def test_mel_share_is_at_most_1():
    assert [SCALE.mel_share(bands) for bands in (64, 256, 615, None)] == [0.25, 1, 1, 1]
