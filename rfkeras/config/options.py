"""Options of how a model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from rfkeras.config.parsing import (
    AVERAGE_KEPT,
    EMA,
    FROZEN,
    INITIAL,
    PRUNING,
    SPEC_AUGMENT,
    SWA,
    choice,
    number,
    option,
    switch,
    text,
    weights,
    whole,
    whole_numbers,
)


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


@dataclass(frozen=True)
class FineTuningOptions:
    """Which weights a run starts from, and which of them it keeps."""

    group_title: ClassVar[str] = "fine-tuning"

    init_weights: str | None = option(
        None,
        text,
        "weights to start from: ready ones (see `rfkeras models`), a run folder, a .keras file "
        "or a PyTorch checkpoint",
    )
    freeze: str = option(
        "none",
        choice("none", "trunk"),
        "what stays as it is: none, or trunk (all but the classifier)",
        needs=INITIAL,
    )
    unfreeze_after: int | None = option(
        None, whole(1), "epochs after which the trunk trains too (default: never)", needs=FROZEN
    )
    trunk_lr_scale: float = option(
        1.0,
        number(0.0001, 1.0),
        "learning rate of the trunk, as a share of the classifier's",
        needs=INITIAL,
    )

    @property
    def frozen_epochs(self) -> float:
        """Epochs for which the trunk is frozen; infinite where it never trains."""
        if self.freeze == "none":
            return 0
        return float("inf") if self.unfreeze_after is None else self.unfreeze_after


@dataclass(frozen=True)
class ModelOptions:
    """The architecture; those that are None take the architecture's own default."""

    group_title: ClassVar[str] = "model"

    model: str = option("resnet_rf", text, "architecture, see `rfkeras models`")
    rho: int | tuple[int, ...] | None = option(
        None, whole_numbers(1, 2), "receptive field, 0 to 22: RHO, or RHO_TIME,RHO_FREQUENCY"
    )
    width: int | None = option(None, whole(1), "channels of the first stage")
    blocks: tuple[int, ...] | None = option(
        None, whole_numbers(3), "blocks kept in each stage, such as 4,4,4"
    )
    allow_rf_change: bool | None = option(
        None, switch, "let blocks go that count for the receptive field"
    )
    initialization: str | None = option(
        None, choice("published", "he"), "initial weights: published (the default) or he"
    )
    head: str | None = option(
        None,
        choice("average", "max", "log_mean_exp", "attention"),
        "how frames become a clip: average (the default), max, log_mean_exp or attention",
    )
    shake: bool | None = option(None, switch, "Shake-Shake: random shares of two branches")
    branches: int | None = option(None, whole(1), "residual branches of a block")
    shake_per: str | None = option(
        None, choice("sample", "batch"), "draw Shake-Shake's shares for each sample or batch"
    )
    frequency_aware: bool | None = option(
        None, switch, "a channel before each convolution that tells the frequency"
    )
    damping: float | None = option(
        None, number(0.0, 1.0), "what is left of kernels at their ends, 0 to 1"
    )
    damp_time: bool | None = option(None, switch, "damp kernels along time too")
    decomposition: int | None = option(
        None, whole(1), "factor by which decomposed convolutions are narrower"
    )
    growth_rate: int | None = option(
        None, whole(1), "channels that each layer of a DenseNet adds"
    )
    units: int | None = option(None, whole(1), "units of the recurrent layers of a CRNN")
    summary: str | None = option(
        None, choice("mean", "last"), "what a CRNN's tags are read from: all states or the last"
    )
    dropout: float | None = option(
        None, number(0.0, 0.99), "share dropped after each stage of a VGG or CRNN"
    )
    final_dropout: float | None = option(
        None, number(0.0, 0.99), "share dropped before the classifier of a VGG or CRNN"
    )

    @staticmethod
    def model_option_names() -> tuple[str, ...]:
        """Names of the options that go to the architecture."""
        return tuple(f.name for f in fields(ModelOptions) if f.name != "model")


@dataclass(frozen=True)
class DataOptions:
    """The data set and how it is read."""

    group_title: ClassVar[str] = "data"

    dataset: str = option(
        "gm_instruments",
        text,
        "gm_instruments, openmic, mtg_jamendo, dcase, magnatagatune, gtzan, folder or packed",
    )
    data_dir: str | None = option(
        None, text, "where the data set lies (gm_instruments: where its cache is made)"
    )
    audio_dir: str | None = option(None, text, "where the audio lies, if not in --data-dir")
    subset: str | None = option(
        None, text, "part of the data set, such as moodtheme (mtg_jamendo) or 2020-1b (dcase)"
    )
    fold: int | None = option(
        None, whole(0), "official split or fold of a data set that has several"
    )
    task: str = option(
        "auto",
        choice("auto", "multi_label", "single_label"),
        "auto (the data set's), multi_label (any number of tags) or single_label (one class)",
    )
    dataset_size: int | None = option(
        None, whole(40), "clips to render, for gm_instruments alone"
    )
    sound_font: str | None = option(
        None,
        text,
        ".sf2 file to render with, or several, TimGM6mb:A.sf2:B.sf2, that the clips take in "
        "turn; for gm_instruments alone (default: TimGM6mb)",
    )
    validation_share: float = option(
        0.15, number(0.01, 0.5), "share of the training clips held out for validation"
    )
    train_share: float = option(
        1.0, number(0.001, 1.0), "share of the training clips that is used, the same each time"
    )
    test_share: float = option(
        0.15, number(0.01, 0.9), "share of all clips that is tested, for folder alone"
    )
    allow_absolute: bool = option(
        False, switch, "admit paths outside the CSV's folder, for folder alone"
    )
    max_bad_share: float = option(
        0.01, number(0.0, 1.0), "share of unusable files above which the run stops"
    )
    decoder: str = option(
        "soundfile",
        choice("soundfile", "isolated", "tfio"),
        "soundfile, isolated (it, in processes that may die) or tfio (packed shards alone)",
    )
    cache_gb: float = option(
        2.0, number(0.0), "memory for decoded audio, so that later epochs need not decode"
    )


@dataclass(frozen=True)
class FrontendOptions:
    """The spectrogram and how much audio it is made of."""

    group_title: ClassVar[str] = "front-end and excerpts"

    frontend: str = option(
        "perceptual_mel_22k",
        choice("perceptual_mel_22k", "perceptual_mel_44k", "mel_32k"),
        "front-end preset",
    )
    fixed_floor: bool = option(
        False, switch, "absolute dB floor in the front-end instead of the clip's own"
    )
    input_channels: int = option(1, whole(1), "1 mono, 2 stereo")
    excerpt_seconds: float = option(10.0, number(0.1, 600.0), "length of the training excerpts")
    excerpts_per_clip: int = option(1, whole(1), "excerpts taken from each clip in an epoch")
    window_seconds: float = option(
        10.0, number(0.1, 600.0), "longer files are scored in windows of this length"
    )
