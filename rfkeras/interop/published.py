"""The folders in which the authors of CP-ResNet publish their networks.

Such a folder holds `model_config.json` and `model_state_dict.pth`
(https://github.com/kkoutini/cpjku_dcase20). The configuration says what the weights
cannot: which code built the network, and so whether and how strongly it is damped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfkeras.errors import CheckpointError, unknown_name
from rfkeras.interop.torch import CHECKPOINT_SUFFIXES
from rfkeras.receptive_field.plan import BLOCKS_PER_STAGE, POOLED_BLOCKS, STAGES

CONFIG, STATE = "model_config.json", "model_state_dict"

# Module of the published code: what is left of its kernels at their ends.
ARCHITECTURES: dict[str, float | None] = {
    "cp_resnet": None,
    "cp_faresnet": None,
    "cp_resnet_decomp": None,
    "cp_resnet_prune": None,
    "cp_resnet_freq_damp": 0.01,
    "cp_resnet_df_prune": 0.1,
}
# Keys whose value must be this one, or missing: no option expresses another.
FIXED: dict[str, tuple[Any, ...]] = {
    "block_type": ("basic",),
    "pooling_padding": (0, None),
    "use_raw_spectograms": (False, None),
    "attention_avg": (False, None),
    "stop_before_global_avg_pooling": (False, None),
    "grow_a_lot": (False, None),
    "use_bn": (True, None),
}
# Keys that change nothing that is computed up to the logits.
WITHOUT_EFFECT = (
    "apply_softmax",
    "depth",  # with n_blocks_per_stage; without, it counts the blocks
    "prediction_threshold",
    "return_embed",
    "use_check_point",
    "weight_init",
)
_STAGES = tuple(f"stage{stage}" for stage in range(1, STAGES + 1))
_LAYERS_PER_BLOCK_EACH = 6  # that one block in each stage adds to the depth


@dataclass(frozen=True)
class PublishedFolder:
    """A published network.

    Attributes:
        state: File of its weights.
        options: What its configuration says, as options of `resnet_rf` and the task.
        unknown: Keys of the configuration whose meaning is not known.
    """

    state: Path
    options: dict[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def open_folder(folder: str | Path) -> PublishedFolder:
    """Read the configuration of a published network.

    Raises:
        CheckpointError: A file is missing or cannot be read, or a key has a value that no
            option of `resnet_rf` expresses; the message names the key.
    """
    folder = Path(folder)
    states = [folder / f"{STATE}{suffix}" for suffix in CHECKPOINT_SUFFIXES]
    state = next((path for path in states if path.is_file()), None)
    if state is None:
        names = ", ".join(path.name for path in states)
        raise CheckpointError(
            f"{folder} holds no weights: one of {names} is needed. Give the file itself if "
            "it has another name."
        )
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} holds no {CONFIG}. Give the file {state.name} instead of its folder: "
            "then flags say what the weights do not."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, Mapping):
        raise CheckpointError(f"{path} holds a {type(config).__name__}, not a table of keys.")
    return read_config(config, state)


def read_config(config: Mapping[str, Any], state: Path) -> PublishedFolder:
    """The options that a `model_config.json` says; see `open_folder`."""
    _check_expressible(config)
    options: dict[str, Any] = {}
    used = {"arch", "n_channels", *FIXED, *WITHOUT_EFFECT, *_STAGES}
    if "arch" in config:
        arch = config["arch"]
        options["damping"] = ARCHITECTURES[arch]
        if arch == "cp_faresnet":
            options["frequency_aware"] = True
        if arch == "cp_resnet_decomp":
            options["decomposition"] = config.get("decomp_factor") or 4
    used.add("decomp_factor")
    for key, option in (("base_channels", "width"), ("n_classes", "num_classes")):
        if key in config:
            options[option] = config[key]
            used.add(key)
    if "input_shape" in config:  # (batch, channels, frequency, time)
        options["input_channels"] = config["input_shape"][1]
        used.add("input_shape")
    blocks = _blocks(config)
    if blocks is not None:
        options["blocks"] = blocks
    used.add("n_blocks_per_stage")
    if "multi_label" in config:
        options["task"] = "multi_label" if config["multi_label"] else "single_label"
        used.add("multi_label")
    return PublishedFolder(state, options, tuple(sorted(set(config) - used)))


def _blocks(config: Mapping[str, Any]) -> tuple[int, ...] | None:
    if config.get("n_blocks_per_stage") is not None:
        return tuple(config["n_blocks_per_stage"])
    if "depth" in config:
        return ((config["depth"] - 2) // _LAYERS_PER_BLOCK_EACH,) * STAGES
    return None


def _check_expressible(config: Mapping[str, Any]) -> None:
    arch = config.get("arch", "cp_resnet")
    if arch not in ARCHITECTURES:
        raise CheckpointError(
            f"{CONFIG}, key 'arch': {unknown_name('architecture', str(arch), ARCHITECTURES)} "
            "Others compute something else (cp_resnet_decomp_freq_damp damps the blocks and "
            "not the stem)."
        )
    for key, allowed in FIXED.items():
        if key in config and config[key] not in allowed:
            raise _inexpressible(key, config[key], f"must be {allowed[0]!r}")
    blocks = _blocks(config) or (BLOCKS_PER_STAGE,) * STAGES
    for stage, count in zip(_STAGES, blocks, strict=True):
        pooled = list(POOLED_BLOCKS) if stage == _STAGES[0] else []
        pools = config.get(stage, {}).get("maxpool", pooled)
        taken, wanted = ([p for p in places if p <= count] for places in (pools, pooled))
        if count and taken != wanted:
            raise _inexpressible(f"{stage}.maxpool", pools, f"must be {pooled}")
    channels, width = config.get("n_channels"), config.get("base_channels")
    if channels is not None and width is not None:
        wanted = [width * 2**place for place in range(STAGES)]
        kept = [place for place, count in enumerate(blocks) if count]
        if any(channels[place] != wanted[place] for place in kept):
            raise _inexpressible("n_channels", channels, f"must be {wanted}")


def _inexpressible(key: str, value: Any, rule: str) -> CheckpointError:
    return CheckpointError(
        f"{CONFIG}, key {key!r}: a network with this value cannot be expressed; it {rule}. "
        f"Received: {value!r}."
    )
