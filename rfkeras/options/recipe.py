"""Options of how a model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rfkeras.options.needs import AVERAGE_KEPT, EMA, PRUNING, SPEC_AUGMENT, SWA
from rfkeras.options.parsers import choice, number, option, switch, text, weights, whole


@dataclass(frozen=True)
class AugmentationOptions:
    """Random changes of the training clips, all off by default."""

    group_title: ClassVar[str] = "augmentation"

    mixup: float = option(
        0.0, number(0.0, 100.0), "alpha of mixup (published: 0.3); 0 mixes nothing"
    )
    time_roll: bool = option(
        False, switch, "roll each spectrogram circularly in time (published: on)"
    )
    gain_db: float = option(
        0.0, number(0.0, 60.0), "random gain of each waveform, at most this many dB either way"
    )
    spec_augment: bool = option(
        False, switch, "blank random stripes of each spectrogram (SpecAugment)"
    )
    time_masks: int = option(
        2, whole(0), "SpecAugment: stripes across time", needs=SPEC_AUGMENT
    )
    time_mask_frames: int = option(
        40, whole(1), "SpecAugment: their largest width", needs=SPEC_AUGMENT
    )
    frequency_masks: int = option(
        2, whole(0), "SpecAugment: stripes across frequency", needs=SPEC_AUGMENT
    )
    frequency_mask_bands: int = option(
        24, whole(1), "SpecAugment: their largest width", needs=SPEC_AUGMENT
    )


@dataclass(frozen=True)
class OptimizerOptions:
    """Steps, learning rate and loss."""

    group_title: ClassVar[str] = "optimisation"

    epochs: int = option(200, whole(1), "passes over the training set")
    batch_size: int = option(10, whole(1), "clips a step, over all devices together")
    optimizer: str = option("adam", choice("adam", "adamw"), "adam or adamw")
    learning_rate: float = option(1e-4, number(0.0, 10.0), "at the start")
    schedule: str = option(
        "linear",
        choice("linear", "published"),
        "end of the decay: linear (the last epoch) or published (5/7 of all, as 250 of 350)",
    )
    hold_epochs: float | None = option(
        None,
        number(0.0),
        "epochs at the first learning rate, before the linear decay (default: 1/7 of all, "
        "as 50 of 350)",
    )
    decay_end_epoch: float | None = option(
        None, number(0.0), "epoch at which the decay ends (default: by --schedule)"
    )
    final_learning_rate: float = option(1e-6, number(0.0, 10.0), "at the end of the decay")
    weight_decay: float | None = option(
        None, number(0.0, 1.0), "decay of kernels, of adamw alone (default there: 0.01)"
    )
    clip_norm: float | None = option(
        None, number(1e-6), "largest norm of the gradient of a whole step (default: no limit)"
    )
    class_weights: str | Mapping[str, float] = option(
        "none", weights, "none, balanced, or in a recipe a table from tag to weight"
    )
    prior_bias: bool = option(
        False, switch, "start from the tags' frequencies instead of the published zero logits"
    )
    seed: int = option(0, whole(0, 2**31 - 1), "of initialisation, order and excerpts")


@dataclass(frozen=True)
class SelectionOptions:
    """Which weights a run ends with, and when."""

    group_title: ClassVar[str] = "averaging and choice of weights"

    monitor: str = option("val_mAP", text, "figure of log.csv that tells the best epoch")
    early_stop_epochs: int | None = option(
        None, whole(1), "stop after this many epochs without a better one (default: never)"
    )
    averaging: str = option(
        "none",
        choice("none", "swa", "ema"),
        "average of weights over epochs or steps",
        needs=AVERAGE_KEPT,
    )
    swa_start_epoch: int | None = option(
        None,
        whole(1),
        "first epoch averaged (default: 5/7 of all, as 250 of 350; none while pruning)",
    )
    swa_every: int = option(
        3, whole(1), "epochs from one that is averaged to the next", needs=SWA
    )
    ema_decay: float = option(
        0.999, number(0.0, 0.999999), "share of the old average a step", needs=EMA
    )
    final_weights: str = option(
        "best",
        choice("best", "last", "average"),
        "best (of the best epoch and the average), last or average",
    )
    thresholds: str = option(
        "validation",
        choice("validation", "half"),
        "per-tag decision thresholds: chosen on validation, or 0.5 for all",
    )


@dataclass(frozen=True)
class PruningOptions:
    """Kernels set to zero, the smallest first."""

    group_title: ClassVar[str] = "pruning"

    prune_share: float | None = option(
        None, number(0.0, 0.9999), "share of the kernels' weights that ends as zero"
    )
    prune_to_parameters: int | None = option(
        None, whole(1), "parameters that are not zero at the end, all kinds together"
    )
    prune_scope: str = option(
        "global",
        choice("global", "layer"),
        "smallest weights of the whole model, or of each kernel",
        needs=PRUNING,
    )
    prune_ramp: str = option(
        "linear",
        choice("linear", "exponential"),
        "how the share grows over the epochs",
        needs=PRUNING,
    )
    prune_epochs: int | None = option(
        None,
        whole(1),
        "epochs after which the share is reached (default: half of all, 50 at most)",
        needs=PRUNING,
    )


@dataclass(frozen=True)
class MachineOptions:
    """Devices, number formats, checkpoints, files."""

    group_title: ClassVar[str] = "machine"

    devices: str = option(
        "auto", text, "auto (all GPUs, else the CPU), cpu, gpu, cpu:N or gpu:N"
    )
    precision: str = option(
        "float32",
        choice("float32", "mixed_bfloat16", "mixed_float16"),
        "number format while training; the finished model is float32",
    )
    jit: bool = option(False, switch, "compile the network's step by XLA")
    checkpoint_steps: int = option(50, whole(1), "steps between two checkpoints")
    export: bool = option(
        True, switch, "export a SavedModel, and compare it in a clean process"
    )
