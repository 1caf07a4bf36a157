"""From rho to the kernels of every block and their receptive field, and back.

The network (Koutini et al., arXiv 2007.13503) has a 5x5 stem with stride 2 and three stages
of four residual blocks with two convolutions each. Max-pooling follows blocks 1, 2 and 4 of
the first stage. Block 1 has kernels 3 and 1. Of the 22 convolutions in the other blocks, the
first `rho` have kernel 3 and the others kernel 1. So rho sets the receptive field without
changing depth or resolution. Time and frequency can have different values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.frontend.presets import SpectrogramScale, scale_of_preset
from rfkeras.rf.axis import AxisLayer, FiniteChain, LayerChain

STAGES = 3
BLOCKS_PER_STAGE = 4
RHO_MAX = 2 * (STAGES * BLOCKS_PER_STAGE - 1)  # all convolutions except those of block 1
POOLED_BLOCKS = (1, 2, 4)  # of stage 1
STEM_KERNEL, STEM_STRIDE, STEM_PADDING = 5, 2, 1
POOL_SIZE = 2
RULES = ("at_most", "at_least", "nearest")
_MAX_TRIED = 1000  # limit for plans that accept any rho; larger fields are useless
_AXES = ("time", "frequency")
Pair = tuple[int, int]
Plan = Callable[[int | Pair], LayerChain]


@dataclass(frozen=True)
class BlockPlan:
    """The plan of one residual block.

    Attributes:
        stage: 1 to 3.
        block: 1 to 4, the block's number in its stage.
        kernels: Kernels of its two convolutions, each (time, frequency).
        pooled: True if 2x2 max-pooling follows.
    """

    stage: int
    block: int
    kernels: tuple[Pair, Pair]
    pooled: bool

    @property
    def name(self) -> str:
        """Name of the block and prefix of its layers: "stage2_block3"."""
        return f"stage{self.stage}_block{self.block}"


@dataclass(frozen=True)
class BackbonePlan(FiniteChain):
    """The blocks of a network, and their receptive field.

    Attributes:
        rho: (rho_time, rho_frequency).
        blocks: The blocks to build, in order.
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


def plan_backbone(
    rho: int | Pair,
    blocks: tuple[int, int, int] = (4, 4, 4),
    allow_rf_change: bool = False,
) -> BackbonePlan:
    """Plan the kernels of every block for this rho.

    Args:
        rho: Number of convolutions after block 1 with kernel 3, from 0 to 22: one number,
            or (rho_time, rho_frequency).
        blocks: Number of blocks to keep in each of the three stages, each 0 to 4, counted
            from the start; (4, 4, 4) is the whole network. Stages with 0 disappear.
        allow_rf_change: Allow removing blocks that affect the receptive field.

    Returns:
        The plan. Its `time` and `frequency` are the receptive field.

    Raises:
        ConfigError: rho or blocks is out of range, or a removed block has a kernel larger
            than 1 or a pooling layer and `allow_rf_change` is False.

    Example:
        >>> plan_backbone(7).time.size
        135
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
            f"0: the number of blocks to keep in each stage. Received: blocks={blocks!r}."
        )
    planned = []
    for index in range(STAGES * BLOCKS_PER_STAGE):
        block = _plan_block(index, pair)
        if block.block <= kept[block.stage - 1]:
            planned.append(block)
        elif not allow_rf_change and (block.kernels != ((1, 1), (1, 1)) or block.pooled):
            raise ConfigError(
                f"blocks={blocks!r} leaves out block {block.block} of stage {block.stage}, "
                f"which affects the receptive field at rho={rho!r} (kernels {block.kernels} "
                "or pooling). Keep the block, choose a smaller rho, or pass "
                "allow_rf_change=True."
            )
    return BackbonePlan(rho=pair, blocks=tuple(planned))


def _plan_block(index: int, rho: Pair) -> BlockPlan:
    """Plan the block with this index (0 to 11) of the whole network."""
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
    """Return the receptive field (time, frequency) of the whole network in pixels."""
    plan = plan_backbone(rho)
    return plan.time.size, plan.frequency.size


def rho_pair(rho: int | Pair, maximum: int = RHO_MAX) -> Pair:
    """Return rho as (rho_time, rho_frequency).

    Raises:
        ConfigError: It is neither an integer from 0 to the maximum nor a pair of them.
    """
    pair = tuple(rho) if isinstance(rho, tuple | list) else (rho, rho)
    whole = all(isinstance(r, int) and not isinstance(r, bool) for r in pair)
    if len(pair) != 2 or not whole or not all(0 <= r <= maximum for r in pair):
        raise ConfigError(
            f"rho must be a whole number from 0 to {maximum}, or a pair of them "
            f"(rho_time, rho_frequency). Received: rho={rho!r}."
        )
    return pair[0], pair[1]


@dataclass(frozen=True)
class StagedPlan(FiniteChain):
    """The kernels of every stage, and their receptive field.

    Attributes:
        rho: (rho_time, rho_frequency).
        stages: Kernels of the layers of each stage, each (time, frequency).
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
    """Plan the kernels of every stage for this rho.

    Args:
        rho: Number of layers with kernel 3 after the first stage, from 0 to all of them:
            one number, or (rho_time, rho_frequency).
        depths: Number of layers with a variable kernel in each stage.

    Returns:
        The plan. Its `time` and `frequency` are the receptive field.

    Raises:
        ConfigError: rho is out of range.
    """
    pair = rho_pair(rho, sum(depths[1:]))
    stages: list[tuple[Pair, ...]] = [((3, 3),) * depths[0]]
    before = 0
    for depth in depths[1:]:
        stages.append(tuple(_kernel(layer, pair) for layer in range(before, before + depth)))
        before += depth
    return StagedPlan(rho=pair, stages=tuple(stages))


def _kernel(layer: int, rho: Pair) -> Pair:
    """Return the kernel of a layer, counted from 0 after the first stage."""
    return 3 if layer < rho[0] else 1, 3 if layer < rho[1] else 1


def rho_for(
    *,
    rf_time: float | None = None,
    rf_frequency: float | None = None,
    time_ms: float | None = None,
    mel_bands: float | None = None,
    bandwidth_hz: float | None = None,
    centre_hz: float | None = None,
    rule: str = "at_most",
    frontend: str | SpectrogramScale = "perceptual_mel_22k",
    plan: Plan = plan_backbone,
) -> int | Pair:
    """Return the rho for a requested receptive field (RF).

    A request for one axis gives one rho for both axes. A request for each axis gives a
    pair. The axes are independent of each other.

    Args:
        rf_time: RF along time, in spectrogram frames.
        rf_frequency: RF along frequency, in spectrogram pixels, which are mel bands.
        time_ms: RF along time, in milliseconds of audio including the analysis window.
        mel_bands: Another name for `rf_frequency`.
        bandwidth_hz: RF along frequency, in Hz around `centre_hz`.
        centre_hz: Frequency at which `bandwidth_hz` is measured. It is needed because
            higher mel bands are wider.
        rule: "at_most" (the largest RF that does not exceed the request), "at_least" (the
            smallest RF that reaches it) or "nearest" (of two equally near, the smaller).
        frontend: Preset or scale that defines the size of frames and bands.
        plan: Function from rho to the layers of the network, which raises ConfigError above
            the largest rho. The default is the residual network's; for other architectures
            use `zoo.model_info(name).plan`.

    Returns:
        rho, or (rho_time, rho_frequency).

    Raises:
        ConfigError: There is no request, or two for one axis; a value is not positive; the
            rule is unknown; the network has an unlimited field or no rho; or no rho fits
            the rule. In the last case the message gives the closest RF.

    Example:
        >>> rho_for(rf_time=135)
        7
        >>> rho_for(time_ms=2000, mel_bands=60)
        (4, 3)
    """
    if rule not in RULES:
        raise ConfigError(unknown_name("rule", str(rule), RULES))
    scale = scale_of_preset(frontend) if isinstance(frontend, str) else frontend
    if (bandwidth_hz is None) != (centre_hz is None):
        raise ConfigError(
            "bandwidth_hz and centre_hz go together, because the width of mel bands in Hz "
            f"depends on frequency. Received: bandwidth_hz={bandwidth_hz}, "
            f"centre_hz={centre_hz}."
        )
    requests = [
        _Request(0, "rf_time", rf_time, "frames", float),
        _Request(0, "time_ms", time_ms, "ms", scale.ms),
        _Request(1, "rf_frequency", rf_frequency, "mel bands", float),
        _Request(1, "mel_bands", mel_bands, "mel bands", float),
        _Request(
            1,
            "bandwidth_hz",
            bandwidth_hz,
            f"Hz around {centre_hz or 0:g} Hz",
            lambda size: scale.bandwidth_hz(size, centre_hz or 0.0),
        ),
    ]
    found = [
        _choose(plan, request, rule)
        for axis in (0, 1)
        if (request := _only_request(requests, axis))
    ]
    if not found:
        raise ConfigError(
            f"rho_for needs at least one of {', '.join(r.name for r in requests)}. "
            "Received: none."
        )
    return found[0] if len(found) == 1 else (found[0], found[1])


@dataclass(frozen=True)
class _Request:
    """A requested receptive field on one axis.

    Attributes:
        axis: 0 time, 1 frequency.
        name: Name of the argument.
        value: Its value.
        unit: Its unit.
        measure: Converts pixels to this unit.
    """

    axis: int
    name: str
    value: float | None
    unit: str
    measure: Callable[[int], float]


def _only_request(requests: list[_Request], axis: int) -> _Request | None:
    """Return the request for an axis, if there is one."""
    given = [each for each in requests if each.axis == axis and each.value is not None]
    if len(given) > 1:
        raise ConfigError(
            f"{' and '.join(each.name for each in given)} both request a field "
            f"along {_AXES[axis]}. Leave out one of them."
        )
    for request in given:
        value = request.value
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < (value or 0) < float("inf"):
            raise ConfigError(
                f"{request.name} must be a positive number of {request.unit}. "
                f"Received: {value!r}."
            )
    return given[0] if given else None


def _choose(plan: Plan, request: _Request, rule: str) -> int:
    """Return the rho that fits a request."""
    wanted = request.value or 0.0
    sizes = []
    for _, chain in accepted_rhos(plan):
        field = (chain.time, chain.frequency)[request.axis]
        if field is None:
            raise ConfigError(
                "The receptive field of this network is unlimited along "
                f"{_AXES[request.axis]}, so there is no rho to choose."
            )
        sizes.append(request.measure(field.size))
    rhos = range(len(sizes))
    if rule == "nearest":
        return min(rhos, key=lambda rho: abs(sizes[rho] - wanted))
    if rule == "at_most" and sizes[0] <= wanted:
        return max(rho for rho in rhos if sizes[rho] <= wanted)
    if rule == "at_least" and sizes[-1] >= wanted:
        return min(rho for rho in rhos if sizes[rho] >= wanted)
    if rule == "at_most":
        bound, end, rho, size, remedy = "less", "smallest", 0, math.ceil(sizes[0]), "more"
    else:
        bound, end, rho = "more", "largest", len(sizes) - 1
        size, remedy = math.floor(sizes[-1]), "less"
    raise ConfigError(
        f"No rho gives {wanted:g} {request.unit} or {bound}; the {end} (rho {rho}) is {size} "
        f"{request.unit}. Ask for {remedy}, or use the rule 'nearest'."
    )


def accepted_rhos(plan: Plan) -> Iterator[tuple[int, LayerChain]]:
    """Yield every rho that a plan accepts, starting at 0, with its layers.

    Raises:
        ConfigError: The plan rejects rho 0, or does not depend on rho.
    """
    before: list[object] = []
    for rho in range(_MAX_TRIED):
        try:
            chain = plan(rho)
        except ConfigError:
            if rho == 0:
                raise
            return
        layers: list[object] = [list(chain.axis_layers(axis)) for axis in (0, 1)]
        if layers == before:
            raise ConfigError("This network has no rho, so its receptive field is fixed.")
        yield rho, chain
        before = layers


@dataclass(frozen=True)
class RhoStep:
    """The network with one rho, compared with the rho before.

    Attributes:
        rho: The rho of both axes.
        time: Receptive field along time, in spectrogram frames; None: unlimited.
        frequency: Receptive field along frequency, in mel bands; None: unlimited.
        layers: Names of the layers that this step widens; empty for rho 0.
        added: Pixels that it adds along (time, frequency); (0, 0) for rho 0.
        parameters: Number of parameters of the network; None if not counted.
        added_parameters: Number of parameters that the step adds; None if not counted.
    """

    rho: int
    time: int | None
    frequency: int | None
    layers: tuple[str, ...] = ()
    added: tuple[int, int] = (0, 0)
    parameters: int | None = None
    added_parameters: int | None = None

    def to_dict(self, scale: SpectrogramScale | None = None) -> dict[str, Any]:
        """Return the step as a JSON object.

        Args:
            scale: Adds "time_ms" and "mel_share", the part of the mel axis that one
                position sees (1 for all of it).
        """
        row: dict[str, Any] = {
            "rho": self.rho,
            "time": self.time,
            "frequency": self.frequency,
            "layers": list(self.layers),
            "added": list(self.added),
            "parameters": self.parameters,
            "added_parameters": self.added_parameters,
        }
        if scale is not None:
            row["time_ms"] = None if self.time is None else scale.ms(self.time)
            row["mel_share"] = scale.mel_share(self.frequency)
        return row


def explain_rho(
    plan: Plan = plan_backbone, parameters: Callable[[int], int] | None = None
) -> tuple[RhoStep, ...]:
    """List what every rho of a network sees, and what it adds to the rho before.

    Args:
        plan: Function from rho to the layers of the network, which raises ConfigError above
            the largest rho; see `rho_for`.
        parameters: Function from rho to the number of parameters of the network, called
            once per rho. Building the networks takes most of the time.

    Returns:
        One step per rho, from 0 to the largest.

    Raises:
        ConfigError: The network has no rho.

    Example:
        >>> [step.time for step in explain_rho()][:8]
        [23, 31, 39, 55, 71, 87, 103, 135]
    """
    steps: list[RhoStep] = []
    before: LayerChain | None = None
    for rho, chain in list(accepted_rhos(plan)):  # validate all before building the first
        count = None if parameters is None else parameters(rho)
        time, frequency = (
            None if field is None else field.size for field in (chain.time, chain.frequency)
        )
        step = RhoStep(rho, time, frequency, parameters=count)
        if before is not None:
            step = replace(
                step,
                layers=_widened(before, chain),
                added=(
                    (step.time or 0) - (steps[-1].time or 0),
                    (step.frequency or 0) - (steps[-1].frequency or 0),
                ),
                added_parameters=None if count is None else count - (steps[-1].parameters or 0),
            )
        steps.append(step)
        before = chain
    return tuple(steps)


def _widened(before: LayerChain, after: LayerChain) -> tuple[str, ...]:
    """Return the names of the layers whose kernels differ between two networks."""
    names: dict[str, None] = {}
    for axis in (0, 1):
        for old, new in zip(before.axis_layers(axis), after.axis_layers(axis), strict=True):
            if old.kernel != new.kernel:
                names[new.name] = None
    return tuple(names)
