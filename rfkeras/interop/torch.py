"""Load weights of the published PyTorch networks into zoo models.

In their naming, `in_c` is the stem, `stage<s>.block<b>` are the residual blocks, and
`feed_forward` is the head. A batch normalisation follows each convolution. A decomposed
convolution has three parts, `conv1` to `conv3`. Their kernels are (out, in, frequency, time);
ours are (time, frequency, in, out).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.layers import DampedConv2D, DecomposedConv2D, ResidualBlock, find_head
from rfkeras.rf.rho import RHO_MAX, STAGES, STEM_KERNEL, BackbonePlan, plan_backbone
from rfkeras.utils.files import open_npz
from rfkeras.utils.text import first_few

Pair = tuple[int, int]
Array = NDArray[Any]
_STEM, _HEAD = "in_c.0.weight", "feed_forward.0.weight"
_AXES = {"time": 3, "frequency": 2}  # of kernels (out, in, frequency, time)
TORCH_SUFFIXES = (".pth", ".pt")
CHECKPOINT_SUFFIXES = (".npz", *TORCH_SUFFIXES)
NPZ_PREFIX = "state."
BN_WEIGHTS = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
MASK = ".prune_mask"
_AGREEMENT = 1e-4  # relative to the largest logit; float32 in two frameworks
BLOCK = re.compile(r"stage(\d+)_block(\d+)$")


def load_torch_checkpoint(model: Any, source: str | Path | Mapping[str, Any]) -> None:
    """Load a checkpoint of the published PyTorch networks into a zoo model.

    If any part of the checkpoint does not fit, the model's weights do not change. Pruning masks
    (`prune_mask`) are applied to the weights. Damping is not stored in checkpoints, so you need
    to know the damping with which a network was trained. If a file also contains reference
    vectors (`input_nchw` and `logits`), the model's logits are compared with them.

    Args:
        model: A residual zoo model with one branch and the checkpoint's rho, width, channels,
            classes, blocks and variant.
        source: A state dict (name to array or tensor), optionally under the key "state_dict";
            or a file: `.npz` with arrays named "state.<name>", or `.pth`/`.pt`, which needs the
            `torch` extra and is read with weights_only.

    Raises:
        CheckpointError: The file cannot be read, or it belongs to another configuration; the
            message contains the checkpoint's value. Or the logits differ from the reference.
    """
    _check_model(model)
    state = read_state(source)
    _check_stem(model, has_learned_gates(state))
    state, _ = apply_masks(state)
    slots = list(_slots(model))
    _check_names(slots, state)
    values = []
    for slot in slots:
        value = state[slot.torch_name]
        if slot.is_kernel and value.ndim == 4:
            value = np.transpose(value, (3, 2, 1, 0))
        if tuple(value.shape) != tuple(slot.variable.shape):
            raise CheckpointError(_shape_message(slot, value, state))
        values.append(value.astype(np.float32))
    before = [slot.variable.numpy() for slot in slots]
    for slot, value in zip(slots, values, strict=True):
        slot.variable.assign(value)
    if isinstance(source, str | Path) and _is_comparable(model, Path(source)):
        try:
            compare(model, source)
        except CheckpointError:
            for slot, value in zip(slots, before, strict=True):
                slot.variable.assign(value)
            raise


def apply_masks(state: Mapping[str, Array]) -> tuple[dict[str, Array], int]:
    """Apply the pruning masks of a state dict to its weights.

    A mask keeps a weight where it is above 0. This holds for masks of 0 and 1, and for the
    learned gates of `cp_resnet_dampfr_gate_prune`.

    Returns:
        (state dict without masks, number of weights that masks set to zero).

    Raises:
        CheckpointError: A mask has no weights, or another shape.
    """
    weights = {name: value for name, value in state.items() if not name.endswith(MASK)}
    zeros = 0
    for name, mask in state.items():
        if not name.endswith(MASK):
            continue
        key = name.removesuffix(MASK) + ".weight"
        if key not in weights:
            raise CheckpointError(f"The checkpoint has {name} but no {key}.")
        if mask.shape != weights[key].shape:
            raise CheckpointError(
                f"The checkpoint's {name} has shape {mask.shape}, but {key} has shape "
                f"{weights[key].shape}."
            )
        weights[key] = weights[key] * (mask > 0)
        zeros += int((mask <= 0).sum())
    return weights, zeros


def has_learned_gates(state: Mapping[str, Array]) -> bool:
    """Return whether a state dict has masks with other values than 0 and 1."""
    masks = (value for name, value in state.items() if name.endswith(MASK))
    return any(not np.isin(mask, (0, 1)).all() for mask in masks)


def _check_stem(model: Any, has_gates: bool) -> None:
    """Reject a damped stem for checkpoints whose networks never have one."""
    stem = model.get_layer("stem_conv")
    if not isinstance(stem, DampedConv2D) or stem.damping == 1:
        return
    decomposed = any(getattr(layer, "decomposition", None) for layer in model.layers)
    if decomposed or has_gates:
        kind = "decomposed convolutions" if decomposed else "learned pruning gates"
        raise CheckpointError(
            f"Model {model.name!r} has a damped stem, but published networks with {kind} have "
            "a stem without damping. Build the model with damp_stem=False (--no-damp-stem)."
        )


def _is_comparable(model: Any, source: Path) -> bool:
    """Return whether a file has reference vectors that apply to this model."""
    if source.suffix != ".npz" or len(model.inputs[0].shape) != 4:
        return False
    head = find_head(model)
    if head is None or head.frames or head.pooling != "average":
        return False
    with open_npz(source) as archive:
        return {"input_nchw", "logits"} <= set(archive.files)


def compare(network: Any, reference: str | Path) -> tuple[float, float]:
    """Compare a network's logits with reference vectors.

    Returns:
        (largest difference of a logit, largest logit of the reference).

    Raises:
        CheckpointError: The reference cannot be read, or the logits differ by more than float32
            rounding.
    """
    try:
        with open_npz(reference) as arrays:
            inputs, wanted = arrays["input_nchw"], arrays["logits"]
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"The reference {reference} must be an .npz with arrays 'input_nchw' and "
            f"'logits': {error}"
        ) from error
    if inputs.ndim != 4 or len(network.inputs[0].shape) != 4:
        raise CheckpointError(
            f"{reference}: 'input_nchw' has shape {inputs.shape}. Reference vectors are "
            "spectrograms (batch, channels, frequency, time): compare without --frontend."
        )
    # (batch, channel, frequency, time) -> (batch, time, frequency, channel)
    logits = np.asarray(network(inputs.transpose(0, 3, 2, 1), training=False))
    if logits.shape != wanted.shape:
        raise CheckpointError(
            f"{reference}: 'logits' has shape {wanted.shape}, the model's have {logits.shape}."
        )
    difference, largest = (float(np.abs(x).max()) for x in (logits - wanted, wanted))
    if not difference <= _AGREEMENT * largest:
        raise CheckpointError(
            f"The converted network's logits differ from {reference} by {difference:.2g}. The "
            f"largest logit is {largest:.2g}, and {_AGREEMENT:g} of it is allowed. Was the "
            "network trained with another --damping? The weights do not contain it."
        )
    return difference, largest


def read_state(source: str | Path | Mapping[str, Any]) -> dict[str, Array]:
    """Read a state dict as NumPy arrays, without batch counters.

    Raises:
        CheckpointError: The file is missing, has another format, or contains no state dict.
    """
    if isinstance(source, Mapping):
        state: Mapping[str, Any] = source
    else:
        state = _read_file(Path(source))
    state = state.get("state_dict", state)
    arrays = {
        name: value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
        for name, value in state.items()
    }
    return {n: a for n, a in arrays.items() if not n.endswith("num_batches_tracked")}


def _read_file(path: Path) -> Mapping[str, Any]:
    """Read a state dict from a file."""
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint file {path}.")
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix in TORCH_SUFFIXES:
        return _read_pth(path)
    raise CheckpointError(
        f"{path}: a PyTorch checkpoint must end in {', '.join(CHECKPOINT_SUFFIXES)}."
    )


def _read_npz(path: Path) -> Mapping[str, Any]:
    try:
        with open_npz(path) as archive:
            names = [name for name in archive.files if name.startswith(NPZ_PREFIX)]
            state = {name.removeprefix(NPZ_PREFIX): archive[name] for name in names}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as .npz: {error}") from error
    if not state:
        raise CheckpointError(f"{path} contains no array with the prefix {NPZ_PREFIX!r}.")
    return state


def _read_pth(path: Path) -> Mapping[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(
            f"Reading {path} needs PyTorch: pip install 'rfkeras[torch]'. Alternatively, save "
            "the state dict as .npz with names 'state.<name>'."
        ) from error
    import pickle

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path} contains a {type(loaded).__name__}, not a state dict.")
    return loaded


@dataclass(frozen=True)
class _Slot:
    """A variable of the model and the checkpoint entry for it."""

    torch_name: str
    variable: Any
    is_kernel: bool


def _slots(model: Any) -> Iterator[_Slot]:
    """Yield the slots of a model."""
    for layer in model.layers:
        block = BLOCK.match(layer.name)
        if layer.name == "stem_conv":
            yield from _conv_slots("in_c.0", layer)
        elif layer.name == "stem_bn":
            yield from _bn_slots("in_c.1", layer)
        elif layer.name == "classifier_conv":
            yield from _conv_slots("feed_forward.0", layer)
        elif layer.name == "classifier_bn":
            yield from _bn_slots("feed_forward.1", layer)
        elif block:
            prefix = f"stage{block[1]}.block{block[2]}"
            for branch in layer.residuals:
                for number in (1, 2):
                    conv, bn = getattr(branch, f"conv{number}"), getattr(branch, f"bn{number}")
                    yield from _conv_slots(f"{prefix}.conv{number}", conv)
                    yield from _bn_slots(f"{prefix}.bn{number}", bn)
            if layer.shortcut_conv is not None:
                yield from _conv_slots(f"{prefix}.shortcut.conv", layer.shortcut_conv)
                yield from _bn_slots(f"{prefix}.shortcut.bn", layer.shortcut_bn)


def _conv_slots(prefix: str, layer: Any) -> Iterator[_Slot]:
    """Yield the slots of a convolution."""
    if isinstance(layer, DecomposedConv2D):
        for number, part in enumerate((layer.narrow, layer.spread, layer.widen), start=1):
            yield _Slot(f"{prefix}.conv{number}.weight", part.kernel, True)
    else:
        yield _Slot(f"{prefix}.weight", layer.kernel, True)


def _bn_slots(prefix: str, layer: Any) -> Iterator[_Slot]:
    """Yield the slots of a batch normalisation."""
    for torch_name, name in BN_WEIGHTS.items():
        yield _Slot(f"{prefix}.{torch_name}", getattr(layer, name), False)


def _check_model(model: Any) -> None:
    """Check that the model is a residual model with one branch."""
    branches = {layer.branches for layer in model.layers if isinstance(layer, ResidualBlock)}
    if branches != {1}:
        raise CheckpointError(
            f"Model {model.name!r} is not a residual model with one branch. Published "
            "checkpoints exist only for such models. Build it without shake and branches."
        )


def _check_names(slots: list[_Slot], state: Mapping[str, Array]) -> None:
    """Check that the checkpoint has exactly the entries of the model."""
    wanted = {slot.torch_name for slot in slots}
    missing, left_over = sorted(wanted - set(state)), sorted(set(state) - wanted)
    if not missing and not left_over:
        return
    raise CheckpointError(
        f"The checkpoint has blocks={block_counts(state)} and "
        f"decomposition={decomposition(state)}; the model differs. "
        f"Missing in the checkpoint: {first_few(missing) or 'nothing'}. Not in the model: "
        f"{first_few(left_over) or 'nothing'}."
    )


def _shape_message(slot: _Slot, value: Array, state: Mapping[str, Array]) -> str:
    """Return which option of the model differs from the checkpoint, from the first mismatch."""
    name, has, wants = slot.torch_name, value.shape, tuple(slot.variable.shape)
    if name == "in_c.0.weight" and has[2] != wants[2]:
        cause = f"The checkpoint has input_channels={has[2]}, the model {wants[2]}"
    elif name.startswith("in_c."):
        cause = f"The checkpoint has width={has[-1]}, the model {wants[-1]}"
    elif name.startswith("feed_forward.") and has[-1] != wants[-1]:
        cause = f"The checkpoint has num_classes={has[-1]}, the model {wants[-1]}"
    elif slot.is_kernel and len(has) == 4 and has[:2] != wants[:2]:
        cause = (
            f"The checkpoint has rho={_count_wide_kernels(state)} (time, frequency): its "
            f"kernel {name} has size {has[:2]}, the model's {wants[:2]}"
        )
    elif slot.is_kernel and abs(has[2] - wants[2]) == 1:
        aware = has[2] > wants[2]
        cause = f"The checkpoint has frequency_aware={aware}, the model {not aware}"
    elif decomposition(state) is not None and slot.is_kernel:
        cause = f"The checkpoint has decomposition={decomposition(state)}"
    else:
        cause = f"The checkpoint's {name} has shape {has}, the model's {wants}"
    return f"{cause}. Build the model with the checkpoint's value."


def _count_wide_kernels(state: Mapping[str, Array]) -> tuple[int, int]:
    """Return (rho_time, rho_frequency): the numbers of kernels of size 3 after block 1."""
    wide = r"stage\d+\.block\d+\.conv[12](\.conv2)?\.weight"
    kernels = [
        value.shape[:-3:-1]
        for name, value in state.items()
        if re.fullmatch(wide, name) and not name.startswith("stage1.block1.")
    ]
    return sum(k[0] > 1 for k in kernels), sum(k[1] > 1 for k in kernels)


def infer_options(state: Mapping[str, Array]) -> dict[str, Any]:
    """Infer the options of `resnet_rf` from the names and shapes of a checkpoint's weights.

    Args:
        state: Name to array, from `rfkeras.interop.torch.read_state`.

    Returns:
        num_classes, rho, width, blocks, allow_rf_change, input_channels, frequency_aware and
        decomposition.

    Raises:
        CheckpointError: The weights belong to another network: names are missing, or no rho
            gives the sizes of the kernels.
    """
    for name in (_STEM, _HEAD):
        if name not in state or state[name].ndim != 4:
            raise CheckpointError(
                f"The checkpoint has no convolution {name}, so it is not a published "
                f"CP-ResNet. Received: {', '.join(list(state)[:3]) or 'no weights'}, ..."
            )
    if state[_STEM].shape[2:] != (STEM_KERNEL, STEM_KERNEL):
        raise CheckpointError(
            f"The checkpoint's {_STEM} has kernels {state[_STEM].shape[2:]}; CP-ResNet has "
            f"{(STEM_KERNEL, STEM_KERNEL)}."
        )
    blocks = block_counts(state)
    if not any(blocks):
        raise CheckpointError("The checkpoint has no residual blocks (stage1.block1, ...).")
    factor = decomposition(state)
    rho = _infer_rho(state, blocks)
    first = _kernel(state, _first_block(blocks), 1)
    entering = first if factor is None else state[f"{_first_block(blocks)}.conv1.conv1.weight"]
    width = state[_STEM].shape[0]
    return {
        "num_classes": state[_HEAD].shape[0],
        "rho": rho,
        "width": width,
        "blocks": blocks,
        "allow_rf_change": not _is_complete(rho, blocks),
        "input_channels": state[_STEM].shape[1],
        "frequency_aware": entering.shape[1] == width + 1,
        "decomposition": factor,
    }


def block_counts(state: Mapping[str, Array]) -> tuple[int, int, int]:
    """Return the number of blocks in each stage."""
    first, second, third = (
        len({n.split(".")[1] for n in state if n.startswith(f"stage{stage}.block")})
        for stage in range(1, STAGES + 1)
    )
    return first, second, third


def decomposition(state: Mapping[str, Array]) -> int | None:
    """Return the decomposition factor of convolutions; None if they are not decomposed."""
    for name, value in state.items():
        if name.endswith(".conv1.conv3.weight") and name.startswith("stage"):
            return int(value.shape[0] // value.shape[1])
    return None


def _first_block(blocks: tuple[int, int, int]) -> str:
    """Return the name of the first block."""
    return f"stage{next(stage for stage, n in enumerate(blocks, start=1) if n)}.block1"


def _kernel(state: Mapping[str, Array], block: str, number: int) -> Array:
    """Return a block's convolution that can be wide; if decomposed, its middle part."""
    whole, middle = (f"{block}.conv{number}{part}.weight" for part in ("", ".conv2"))
    name = middle if middle in state else whole
    if name not in state or state[name].ndim != 4:
        raise CheckpointError(
            f"The checkpoint has no convolution {whole}: only blocks of two convolutions "
            "('block_type': 'basic') are supported."
        )
    return state[name]


def _infer_rho(state: Mapping[str, Array], blocks: tuple[int, int, int]) -> Pair:
    """Return (rho_time, rho_frequency), the smallest values that give all kernels."""
    found = []
    for axis, (name, dimension) in enumerate(_AXES.items()):
        has = {
            f"stage{stage}.block{block}": tuple(
                _kernel(state, f"stage{stage}.block{block}", n).shape[dimension] for n in (1, 2)
            )
            for stage, count in enumerate(blocks, start=1)
            for block in range(1, count + 1)
        }
        rhos = [r for r in range(RHO_MAX + 1) if _kernels(_plan_blocks(r, blocks), axis) == has]
        if not rhos:
            sizes = ", ".join(f"{key} {a}+{b}" for key, (a, b) in has.items())
            raise CheckpointError(
                f"No rho gives the checkpoint's kernels along {name}: {sizes}. With rho, the "
                "first kernels of the network have size 3 and all others size 1."
            )
        found.append(rhos[0])
    return found[0], found[1]


def _plan_blocks(rho: int | Pair, blocks: tuple[int, int, int]) -> BackbonePlan:
    """Return the plan of blocks for a rho."""
    try:
        return plan_backbone(rho, blocks, allow_rf_change=True)
    except ConfigError as error:  # too many blocks
        raise CheckpointError(f"The checkpoint cannot be converted: {error}") from error


def _kernels(plan: BackbonePlan, axis: int) -> dict[str, tuple[int, ...]]:
    """Return the kernel sizes of all blocks along an axis."""
    return {
        f"stage{block.stage}.block{block.block}": tuple(k[axis] for k in block.kernels)
        for block in plan.blocks
    }


def _is_complete(rho: Pair, blocks: tuple[int, int, int]) -> bool:
    """Return whether all blocks that affect the receptive field are present."""
    try:
        plan_backbone(rho, blocks)
    except ConfigError:
        return False
    return True
