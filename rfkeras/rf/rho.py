"""From rho to the kernels of every block, and to the receptive field that they give.

The network (Koutini et al., arXiv 2007.13503) has a 5x5 stem of stride 2 and three stages
of four residual blocks with two convolutions each; max-pooling follows blocks 1, 2 and 4
of the first stage. Block 1 has kernels 3 and 1. Of the 22 convolutions in the other
blocks the first `rho` have kernel 3, the rest kernel 1: rho sets the receptive field and
leaves depth and resolution alone. Time and frequency may have different values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.frontend.presets import SpectrogramScale, scale_of_preset
from rfkeras.rf.axis import AxisField, AxisLayer, FiniteChain, LayerChain

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


Plan = Callable[[int | Pair], LayerChain]

RULES = ("at_most", "at_least", "nearest")
_ENOUGH = 1000  # rhos tried of a plan that takes all; fields of that size end nowhere
_AXES = ("time", "frequency")


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
    plan: Plan = plan_trunk,
) -> int | Pair:
    """The rho whose receptive field (RF) is the wanted one, or comes next to it.

    Wishes on one axis give one rho, which then holds on both axes. A wish on each axis
    gives a pair; the axes do not depend on each other.

    Args:
        rf_time: RF along time, in spectrogram frames.
        rf_frequency: RF along frequency, in spectrogram pixels, which are mel bands.
        time_ms: RF along time, in milliseconds of audio, the analysis window included.
        mel_bands: Another name of `rf_frequency`.
        bandwidth_hz: RF along frequency, in Hz around `centre_hz`.
        centre_hz: Where `bandwidth_hz` is meant, for mel bands are wider the higher they
            lie.
        rule: "at_most": the largest RF that does not exceed the wish; "at_least": the
            smallest that reaches it; "nearest": the nearest, of two as near the smaller.
        frontend: Preset or scale that tells what a frame and a band are.
        plan: From rho to the layers of the network, raising ConfigError beyond the largest
            rho; by default the residual network's. Of another architecture it is
            `zoo.model_info(name).plan`.

    Returns:
        rho, or (rho_time, rho_frequency).

    Raises:
        ConfigError: No wish or two for one axis, one that is not positive, an unknown rule,
            a network without a limit or without a rho, or no rho that fits the rule; the
            message then gives the RF that comes next.

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
            "bandwidth_hz and centre_hz go together: a mel band is few Hz wide in the bass "
            f"and many in the treble. Received: bandwidth_hz={bandwidth_hz}, "
            f"centre_hz={centre_hz}."
        )
    wishes = [
        _Wish(0, "rf_time", rf_time, "frames", float),
        _Wish(0, "time_ms", time_ms, "ms", scale.ms),
        _Wish(1, "rf_frequency", rf_frequency, "mel bands", float),
        _Wish(1, "mel_bands", mel_bands, "mel bands", float),
        _Wish(
            1,
            "bandwidth_hz",
            bandwidth_hz,
            f"Hz around {centre_hz or 0:g} Hz",
            lambda size: scale.bandwidth_hz(size, centre_hz or 0.0),
        ),
    ]
    found = [_choose(plan, wish, rule) for axis in (0, 1) if (wish := _only_wish(wishes, axis))]
    if not found:
        raise ConfigError(
            f"rho_for needs a wish: {', '.join(wish.name for wish in wishes)}. Received: none."
        )
    return found[0] if len(found) == 1 else (found[0], found[1])


def accepted_rhos(plan: Plan) -> Iterator[tuple[int, LayerChain]]:
    """Every rho that a plan takes, from 0 on, with the layers that it gives.

    Raises:
        ConfigError: It does not take rho 0, or rho makes no difference to it.
    """
    before: list[object] = []
    for rho in range(_ENOUGH):
        try:
            chain = plan(rho)
        except ConfigError:
            if rho == 0:
                raise
            return
        layers: list[object] = [list(chain.axis_layers(axis)) for axis in (0, 1)]
        if layers == before:
            raise ConfigError("This network has no rho: its receptive field cannot be chosen.")
        yield rho, chain
        before = layers


@dataclass(frozen=True)
class _Wish:
    """What is wanted of one axis.

    Attributes:
        axis: 0 time, 1 frequency.
        name: Of the argument.
        value: Of the argument.
        unit: In which it is given.
        measure: From pixels to that unit.
    """

    axis: int
    name: str
    value: float | None
    unit: str
    measure: Callable[[int], float]


def _only_wish(wishes: list[_Wish], axis: int) -> _Wish | None:
    """The one wish for an axis, if there is any."""
    given = [wish for wish in wishes if wish.axis == axis and wish.value is not None]
    if len(given) > 1:
        raise ConfigError(
            f"One wish for each axis: {' and '.join(wish.name for wish in given)} are both "
            f"about {_AXES[axis]}. Leave out one of them."
        )
    for wish in given:
        number = isinstance(wish.value, int | float) and not isinstance(wish.value, bool)
        if not number or not 0 < (wish.value or 0) < float("inf"):
            raise ConfigError(
                f"{wish.name} must be a positive number of {wish.unit}. "
                f"Received: {wish.value!r}."
            )
    return given[0] if given else None


def _choose(plan: Plan, wish: _Wish, rule: str) -> int:
    """The rho that fits best."""
    wanted = wish.value or 0.0
    sizes = []
    for _, chain in accepted_rhos(plan):
        field = (chain.time, chain.frequency)[wish.axis]
        if field is None:
            raise ConfigError(
                "The receptive field of this network has no limit along "
                f"{_AXES[wish.axis]}: no rho is to be chosen."
            )
        sizes.append(wish.measure(field.size))
    rhos = range(len(sizes))
    if rule == "nearest":
        return min(rhos, key=lambda rho: abs(sizes[rho] - wanted))
    if rule == "at_most" and sizes[0] <= wanted:
        return max(rho for rho in rhos if sizes[rho] <= wanted)
    if rule == "at_least" and sizes[-1] >= wanted:
        return min(rho for rho in rhos if sizes[rho] >= wanted)
    verb, end, rho = (
        ("keeps within", "smallest", 0)
        if rule == "at_most"
        else ("reaches", "largest", len(sizes) - 1)
    )
    raise ConfigError(
        f"No receptive field {verb} {wish.name}={wanted:g}: the {end}, of rho {rho}, is "
        f"{sizes[rho]:g} {wish.unit}. Ask for {'more' if rho == 0 else 'less'}, or for "
        "rule='nearest'."
    )


@dataclass(frozen=True)
class RhoStep:
    """The network of one rho, and what sets it apart from that of one less.

    Attributes:
        rho: On both axes.
        time: Receptive field along time, in spectrogram frames; None: without limit.
        frequency: Along frequency, in mel bands; None: without limit.
        layers: Names of the layers that this step widens; none for rho 0.
        added: Pixels that it adds on (time, frequency); (0, 0) for rho 0.
        parameters: Of the whole network; None where they were not counted.
        added_parameters: Those that the step adds; None likewise.
    """

    rho: int
    time: int | None
    frequency: int | None
    layers: tuple[str, ...] = ()
    added: tuple[int, int] = (0, 0)
    parameters: int | None = None
    added_parameters: int | None = None

    def to_dict(self, scale: SpectrogramScale | None = None) -> dict[str, Any]:
        """The step as a JSON object.

        Args:
            scale: Adds "time_ms", and "mel_share", the part of the mel axis that one
                position sees: 1 where it sees all.
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
            row["mel_share"] = mel_share(self.frequency, scale)
        return row


def mel_share(bands: int | None, scale: SpectrogramScale) -> float:
    """The part of the mel axis that so many bands cover, at most 1; None: all bands."""
    return 1.0 if bands is None else min(1.0, bands / scale.n_mels)


def explain_rho(
    plan: Plan = plan_trunk, parameters: Callable[[int], int] | None = None
) -> tuple[RhoStep, ...]:
    """What every rho of a network sees, and what each adds to the one before.

    Args:
        plan: From rho to the layers of the network, raising ConfigError beyond the largest
            rho; see `rho_for`.
        parameters: Number of parameters of the network with that rho. It is called once for
            each rho; building the networks takes far longer than all the rest.

    Returns:
        A step for each rho, from 0 to the largest.

    Raises:
        ConfigError: The network has no rho.

    Example:
        >>> [step.time for step in explain_rho()][:8]
        [23, 31, 39, 55, 71, 87, 103, 135]
    """
    steps: list[RhoStep] = []
    before: LayerChain | None = None
    for rho, chain in list(accepted_rhos(plan)):  # all, before the first is built
        count = None if parameters is None else parameters(rho)
        step = RhoStep(rho, _size(chain.time), _size(chain.frequency), parameters=count)
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


def _size(field: AxisField | None) -> int | None:
    return None if field is None else field.size


def _widened(before: LayerChain, after: LayerChain) -> tuple[str, ...]:
    """Names of the layers whose kernels differ between two networks, in order."""
    names: dict[str, None] = {}
    for axis in (0, 1):
        for old, new in zip(before.axis_layers(axis), after.axis_layers(axis), strict=True):
            if old.kernel != new.kernel:
                names[new.name] = None
    return tuple(names)


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
