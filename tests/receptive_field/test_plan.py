"""rho, kernels and receptive field: the arithmetic."""

import pytest

from rfkeras.errors import ConfigError
from rfkeras.receptive_field import (
    RHO_MAX,
    AxisField,
    AxisLayer,
    compose,
    plan_trunk,
    rf_of_rho,
)

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
    blocks = plan_trunk((2, 1)).blocks
    assert blocks[0].kernels == ((3, 3), (1, 1))
    assert blocks[1].kernels == ((3, 3), (3, 1))
    assert blocks[2].kernels == ((1, 1), (1, 1))


def test_receptive_field_grows_with_rho():
    sizes = [rf_of_rho(rho)[0] for rho in range(RHO_MAX + 1)]
    assert sizes == sorted(set(sizes))


def test_first_block_is_always_three_then_one():
    for rho in range(RHO_MAX + 1):
        assert plan_trunk(rho).blocks[0].kernels == ((3, 3), (1, 1))


def test_pooling_follows_blocks_1_2_and_4_of_the_first_stage():
    pooled = [block.name for block in plan_trunk(7).blocks if block.pooled]
    assert pooled == ["stage1_block1", "stage1_block2", "stage1_block4"]


def test_compose_counts_kernels_strides_and_padding():
    field = compose([AxisLayer("a", 5, 2, 1), AxisLayer("b", 3, 1, 1), AxisLayer("p", 2, 2)])
    assert field == AxisField(size=5 + 2 * 2 + 1 * 2, jump=4, start=-1 - 2)
    assert field.window(3) == (-3 + 12, -3 + 12 + field.size)


@pytest.mark.parametrize("rho", [-1, 23, 1.5, True, "7", (7,), (7, 23), (1, 2, 3), (7, 1.0)])
def test_wrong_rho_says_what_is_allowed(rho):
    with pytest.raises(ConfigError, match="from 0 to 22"):
        plan_trunk(rho)


def test_blocks_without_kernels_can_go():
    whole, shorter = plan_trunk(4), plan_trunk(4, (4, 3, 1))
    assert len(shorter.blocks) == 8
    assert shorter.time == whole.time


@pytest.mark.parametrize("blocks", [(4, 0, 4), (3, 4, 4)])
def test_blocks_that_count_for_the_receptive_field_stay(blocks):
    with pytest.raises(ConfigError, match="allow_rf_change=True"):
        plan_trunk(8, blocks)
    assert plan_trunk(8, blocks, allow_rf_change=True).time.size < plan_trunk(8).time.size


@pytest.mark.parametrize("blocks", [(4, 4), (5, 4, 4), (0, 0, 0), (4, 4, -1), (4, 4, 1.0)])
def test_wrong_blocks(blocks):
    with pytest.raises(ConfigError, match="blocks must be"):
        plan_trunk(7, blocks)


def test_layers_that_make_no_sense():
    with pytest.raises(ConfigError, match="kernel >= 1"):
        AxisLayer("a", 0)
