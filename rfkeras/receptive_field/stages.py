"""From rho to kernels, for plain chains of stages with pooling between them.

The VGG-style and the densely connected network have the 5x5 stem of stride 2 and then
stages of layers with one free kernel each; 2x2 pooling stands between the stages. All
layers of the first stage have kernel 3, as block 1 of the residual network has; of the
others the first `rho` have kernel 3, the rest kernel 1. Where the pooling stands after as
many free layers as in the residual network (1, 2 and 4), a rho gives the receptive field
that it gives there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rfkeras.receptive_field.arithmetic import AxisLayer, FiniteChain
from rfkeras.receptive_field.plan import (
    POOL_SIZE,
    STEM_KERNEL,
    STEM_PADDING,
    STEM_STRIDE,
    Pair,
    rho_pair,
)


@dataclass(frozen=True)
class StagedPlan(FiniteChain):
    """The kernels of every stage, and the receptive field that they give.

    Attributes:
        rho: (rho_time, rho_frequency).
        stages: For each stage the kernels of its layers, each (time, frequency).
    """

    rho: Pair
    stages: tuple[tuple[Pair, ...], ...]

    def axis_layers(self, axis: int) -> Iterator[AxisLayer]:
        yield AxisLayer("stem", STEM_KERNEL, STEM_STRIDE, STEM_PADDING)
        for stage, kernels in enumerate(self.stages, start=1):
            for layer, kernel in enumerate(kernels, start=1):
                size = kernel[axis]
                yield AxisLayer(f"stage{stage}_layer{layer}", size, padding=size // 2)
            if stage < len(self.stages):
                yield AxisLayer(f"stage{stage}_pool", POOL_SIZE, POOL_SIZE)


def plan_stages(rho: int | Pair, depths: Sequence[int]) -> StagedPlan:
    """Kernels of every stage for this rho.

    Args:
        rho: Number of 3-wide layers after the first stage, from 0 to their whole number:
            one number, or (rho_time, rho_frequency).
        depths: Number of layers with a free kernel in each stage.

    Raises:
        ConfigError: rho is out of its range.
    """
    pair = rho_pair(rho, sum(depths[1:]))
    stages: list[tuple[Pair, ...]] = [((3, 3),) * depths[0]]
    before = 0
    for depth in depths[1:]:
        stages.append(tuple(_kernel(layer, pair) for layer in range(before, before + depth)))
        before += depth
    return StagedPlan(rho=pair, stages=tuple(stages))


def _kernel(layer: int, rho: Pair) -> Pair:
    """Kernel of the layer with that number after the first stage, from 0."""
    return 3 if layer < rho[0] else 1, 3 if layer < rho[1] else 1
