"""From rho to the kernels of every block, and to the receptive field that they give.

The network (Koutini et al., arXiv 2007.13503) has a 5x5 stem of stride 2 and three stages
of four residual blocks with two convolutions each; max-pooling follows blocks 1, 2 and 4
of the first stage. Block 1 has kernels 3 and 1. Of the 22 convolutions in the other
blocks the first `rho` have kernel 3, the rest kernel 1: rho sets the receptive field and
leaves depth and resolution alone. Time and frequency may have different values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rfkeras.errors import ConfigError
from rfkeras.receptive_field.arithmetic import AxisLayer, FiniteChain

STAGES = 3
BLOCKS_PER_STAGE = 4
RHO_MAX = 2 * (STAGES * BLOCKS_PER_STAGE - 1)  # every convolution but the two of block 1
POOLED_BLOCKS = (1, 2, 4)  # of stage 1
STEM_KERNEL, STEM_STRIDE, STEM_PADDING = 5, 2, 1
POOL_SIZE = 2

Pair = tuple[int, int]


@dataclass(frozen=True)
class BlockPlan:
    """One residual block.

    Attributes:
        stage: 1 to 3.
        block: 1 to 4 in its stage.
        kernels: Kernels of its two convolutions, each (time, frequency).
        pooled: Whether 2x2 max-pooling follows.
    """

    stage: int
    block: int
    kernels: tuple[Pair, Pair]
    pooled: bool

    @property
    def name(self) -> str:
        """Stem of its layers' names: "stage2_block3"."""
        return f"stage{self.stage}_block{self.block}"


@dataclass(frozen=True)
class TrunkPlan(FiniteChain):
    """All blocks of a network, and the receptive field that they give.

    Attributes:
        rho: (rho_time, rho_frequency).
        blocks: The blocks that are kept, in order.
    """

    rho: Pair
    blocks: tuple[BlockPlan, ...]

    def axis_layers(self, axis: int) -> Iterator[AxisLayer]:
        yield AxisLayer("stem", STEM_KERNEL, STEM_STRIDE, STEM_PADDING)
        for block in self.blocks:
            for number, kernel in enumerate(block.kernels, start=1):
                size = kernel[axis]
                yield AxisLayer(f"{block.name}_conv{number}", size, padding=size // 2)
            if block.pooled:
                yield AxisLayer(f"{block.name}_pool", POOL_SIZE, POOL_SIZE)


def rho_pair(rho: int | Pair, maximum: int = RHO_MAX) -> Pair:
    """rho as (rho_time, rho_frequency).

    Raises:
        ConfigError: It is neither a whole number from 0 to the maximum nor a pair of them.
    """
    pair = tuple(rho) if isinstance(rho, tuple | list) else (rho, rho)
    whole = all(isinstance(r, int) and not isinstance(r, bool) for r in pair)
    if len(pair) != 2 or not whole or not all(0 <= r <= maximum for r in pair):
        raise ConfigError(
            f"rho must be a whole number from 0 to {maximum}, or a pair of them "
            f"(rho_time, rho_frequency). Received: rho={rho!r}."
        )
    return pair[0], pair[1]


def plan_trunk(
    rho: int | Pair,
    blocks: tuple[int, int, int] = (4, 4, 4),
    allow_rf_change: bool = False,
) -> TrunkPlan:
    """Kernels of every block for this rho.

    Args:
        rho: Number of 3-wide convolutions after block 1, 0 to 22: one number, or
            (rho_time, rho_frequency).
        blocks: Blocks kept in each of the three stages, each 0 to 4, counted from the
            front; (4, 4, 4) is the whole network. A stage with none disappears.
        allow_rf_change: Let blocks go whose removal changes the receptive field.

    Returns:
        The plan; its `time` and `frequency` give the receptive field.

    Raises:
        ConfigError: rho or blocks out of range, or a block left out had a kernel larger
            than 1 or a pooling layer and `allow_rf_change` is False.
    """
    pair = rho_pair(rho)
    kept = tuple(blocks)
    in_range = all(
        isinstance(b, int) and not isinstance(b, bool) and 0 <= b <= BLOCKS_PER_STAGE
        for b in kept
    )
    if len(kept) != STAGES or not in_range or sum(kept) == 0:
        raise ConfigError(
            f"blocks must be {STAGES} whole numbers from 0 to {BLOCKS_PER_STAGE}, not all "
            f"0: the blocks kept in each stage. Received: blocks={blocks!r}."
        )
    planned = []
    for index in range(STAGES * BLOCKS_PER_STAGE):
        block = _plan_block(index, pair)
        if block.block <= kept[block.stage - 1]:
            planned.append(block)
        elif not allow_rf_change and (block.kernels != ((1, 1), (1, 1)) or block.pooled):
            raise ConfigError(
                f"blocks={blocks!r} leaves out block {block.block} of stage {block.stage}, "
                f"whose kernels {block.kernels} or pooling count for the receptive field "
                f"at rho={rho!r}. Keep it, choose a smaller rho, or pass "
                "allow_rf_change=True."
            )
    return TrunkPlan(rho=pair, blocks=tuple(planned))


def _plan_block(index: int, rho: Pair) -> BlockPlan:
    """The block at that place (0 to 11) of the whole network."""
    stage, block = index // BLOCKS_PER_STAGE + 1, index % BLOCKS_PER_STAGE + 1
    if index == 0:
        kernels = ((3, 3), (1, 1))
    else:
        first, second = (
            tuple(3 if conv < r else 1 for r in rho)
            for conv in (2 * (index - 1), 2 * (index - 1) + 1)
        )
        kernels = ((first[0], first[1]), (second[0], second[1]))
    return BlockPlan(stage, block, kernels, pooled=stage == 1 and block in POOLED_BLOCKS)


def rf_of_rho(rho: int | Pair) -> Pair:
    """Receptive field (time, frequency) of the whole network in spectrogram pixels."""
    trunk = plan_trunk(rho)
    return trunk.time.size, trunk.frequency.size
