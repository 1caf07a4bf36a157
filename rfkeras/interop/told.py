"""What the weights of a published PyTorch network tell of its options.

Every option that changes the shape of a weight leaves a trace: width, channels, classes,
blocks, rho, decomposition, frequency-awareness. Damping, the front-end, the names of the
tags and the task leave none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.receptive_field.plan import RHO_MAX, STAGES, STEM_KERNEL, TrunkPlan, plan_trunk

Array = NDArray[Any]
Pair = tuple[int, int]

_STEM, _HEAD = "in_c.0.weight", "feed_forward.0.weight"
_AXES = {"time": 3, "frequency": 2}  # their kernels are (out, in, frequency, time)


def told_options(state: Mapping[str, Array]) -> dict[str, Any]:
    """Options of `resnet_rf`, read off the names and shapes of a checkpoint's weights.

    Args:
        state: Name to array, from `rfkeras.interop.torch.read_state`.

    Returns:
        num_classes, rho, width, blocks, allow_rf_change, input_channels, frequency_aware
        and decomposition.

    Raises:
        CheckpointError: These are not the weights of such a network: names are missing, or
            kernels have sizes that no rho gives.
    """
    for name in (_STEM, _HEAD):
        if name not in state or state[name].ndim != 4:
            raise CheckpointError(
                f"The checkpoint has no convolution {name}: it is not of the published "
                f"CP-ResNet. Received: {', '.join(list(state)[:3]) or 'no weights'}, ..."
            )
    if state[_STEM].shape[2:] != (STEM_KERNEL, STEM_KERNEL):
        raise CheckpointError(
            f"The checkpoint's {_STEM} has kernels of {state[_STEM].shape[2:]}; those of "
            f"CP-ResNet are {(STEM_KERNEL, STEM_KERNEL)}."
        )
    blocks = block_counts(state)
    if not any(blocks):
        raise CheckpointError("The checkpoint has no residual blocks (stage1.block1, ...).")
    factor = decomposition(state)
    rho = _rho(state, blocks)
    first = _kernel(state, _first_block(blocks), 1)
    entering = first if factor is None else state[f"{_first_block(blocks)}.conv1.conv1.weight"]
    width = state[_STEM].shape[0]
    return {
        "num_classes": state[_HEAD].shape[0],
        "rho": rho,
        "width": width,
        "blocks": blocks,
        "allow_rf_change": not _whole(rho, blocks),
        "input_channels": state[_STEM].shape[1],
        "frequency_aware": entering.shape[1] == width + 1,
        "decomposition": factor,
    }


def block_counts(state: Mapping[str, Array]) -> tuple[int, int, int]:
    """Blocks of each stage."""
    first, second, third = (
        len({n.split(".")[1] for n in state if n.startswith(f"stage{stage}.block")})
        for stage in range(1, STAGES + 1)
    )
    return first, second, third


def decomposition(state: Mapping[str, Array]) -> int | None:
    """Factor by which convolutions are decomposed; None where they are whole."""
    for name, value in state.items():
        if name.endswith(".conv1.conv3.weight") and name.startswith("stage"):
            return int(value.shape[0] // value.shape[1])
    return None


def _first_block(blocks: tuple[int, int, int]) -> str:
    return f"stage{next(stage for stage, n in enumerate(blocks, start=1) if n)}.block1"


def _kernel(state: Mapping[str, Array], block: str, number: int) -> Array:
    """The convolution of a block that may be wide: of a decomposed one, the middle part."""
    whole, middle = (f"{block}.conv{number}{part}.weight" for part in ("", ".conv2"))
    name = middle if middle in state else whole
    if name not in state or state[name].ndim != 4:
        raise CheckpointError(
            f"The checkpoint has no convolution {whole}: only blocks of two convolutions "
            "('block_type': 'basic') can be expressed."
        )
    return state[name]


def _rho(state: Mapping[str, Array], blocks: tuple[int, int, int]) -> Pair:
    """(rho_time, rho_frequency): the smallest that gives the kernels of all blocks."""
    found = []
    for axis, (name, dimension) in enumerate(_AXES.items()):
        has = {
            f"stage{stage}.block{block}": tuple(
                _kernel(state, f"stage{stage}.block{block}", n).shape[dimension] for n in (1, 2)
            )
            for stage, count in enumerate(blocks, start=1)
            for block in range(1, count + 1)
        }
        rhos = [r for r in range(RHO_MAX + 1) if _kernels(_plan(r, blocks), axis) == has]
        if not rhos:
            sizes = ", ".join(f"{key} {a}+{b}" for key, (a, b) in has.items())
            raise CheckpointError(
                f"No rho gives the checkpoint's kernels along {name}: {sizes}. With rho, "
                "the first kernels of the network are 3 wide and all others 1."
            )
        found.append(rhos[0])
    return found[0], found[1]


def _plan(rho: int | Pair, blocks: tuple[int, int, int]) -> TrunkPlan:
    try:
        return plan_trunk(rho, blocks, allow_rf_change=True)
    except ConfigError as error:  # more blocks than there are
        raise CheckpointError(f"The checkpoint cannot be expressed: {error}") from error


def _kernels(plan: TrunkPlan, axis: int) -> dict[str, tuple[int, ...]]:
    return {
        f"stage{block.stage}.block{block.block}": tuple(k[axis] for k in block.kernels)
        for block in plan.blocks
    }


def _whole(rho: Pair, blocks: tuple[int, int, int]) -> bool:
    """Whether no block is missing that counts for the receptive field."""
    try:
        plan_trunk(rho, blocks)
    except ConfigError:
        return False
    return True
