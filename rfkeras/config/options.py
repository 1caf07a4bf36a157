"""The options of a training run, in groups. Each is a field, a flag and a recipe key."""

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
    Registered,
    choice,
    number,
    option,
    switch,
    text,
    weights,
    whole,
    whole_numbers,
)
from rfkeras.frontend.presets import PRESETS
from rfkeras.utils.user_code import AUGMENTATIONS, AUTO_LOSS, LOSSES, METRICS, OPTIMIZERS


@dataclass(frozen=True)
class AugmentationOptions:
    """Random changes to the training clips. All are off by default."""

    group_title: ClassVar[str] = "augmentation"

    mixup: float = option(
        0.0, number(0.0, 100.0), "alpha of mixup (published: 0.3); 0 turns it off"
    )
    time_roll: bool = option(
        False, switch, "roll each spectrogram circularly in time (published: on)"
    )
    gain_db: float = option(
        0.0, number(0.0, 60.0), "random gain per waveform, up to this many dB up or down"
    )
    spec_augment: bool = option(
        False, switch, "blank random stripes of each spectrogram (SpecAugment)"
    )
    time_masks: int = option(
        2, whole(0), "SpecAugment: number of time stripes", needs=SPEC_AUGMENT
    )
    time_mask_frames: int = option(
        40, whole(1), "SpecAugment: largest width of a time stripe", needs=SPEC_AUGMENT
    )
    frequency_masks: int = option(
        2, whole(0), "SpecAugment: number of frequency stripes", needs=SPEC_AUGMENT
    )
    frequency_mask_bands: int = option(
        24, whole(1), "SpecAugment: largest width of a frequency stripe", needs=SPEC_AUGMENT
    )
    augment: tuple[str, ...] = option(
        (),
        Registered(AUGMENTATIONS, several=True),
        "names of augmentations of your own (register_augmentation), separated by commas",
    )


@dataclass(frozen=True)
class OptimizerOptions:
    """Steps, learning rate and loss."""

    group_title: ClassVar[str] = "optimisation"

    epochs: int = option(200, whole(1), "passes over the training set")
    batch_size: int = option(10, whole(1), "clips per step, over all devices together")
    optimizer: str = option(
        "adam",
        Registered(OPTIMIZERS),
        "adam, adamw, another optimizer of Keras such as sgd, or your own (register_optimizer)",
    )
    loss: str = option(
        AUTO_LOSS,
        Registered(LOSSES),
        "auto (cross-entropy of the tags or classes) or your own (register_loss)",
    )
    learning_rate: float = option(
        1e-4,
        number(0.0, 10.0),
        "initial learning rate; if it and --trunk-lr-scale are left out, --init-weights sets "
        "0.01",
    )
    schedule: str = option(
        "linear",
        choice("linear", "published"),
        "when the decay ends: linear (at the last epoch) or published (after 5/7 of the "
        "epochs)",
    )
    hold_epochs: float | None = option(
        None,
        number(0.0),
        "epochs at the initial learning rate, before the linear decay (default: 1/7 of all)",
    )
    decay_end_epoch: float | None = option(
        None, number(0.0), "epoch at which the decay ends (default: set by --schedule)"
    )
    final_learning_rate: float = option(
        1e-6, number(0.0, 10.0), "learning rate after the decay"
    )
    weight_decay: float | None = option(
        None, number(0.0, 1.0), "weight decay of the kernels (adamw only; its default: 0.01)"
    )
    clip_norm: float | None = option(
        None, number(1e-6), "clip the gradient of each step to this norm (default: no limit)"
    )
    class_weights: str | Mapping[str, float] = option(
        "none", weights, "none, balanced or (in recipes only) a table of tags and weights"
    )
    prior_bias: bool = option(
        False,
        switch,
        "initialise the classifier's bias from the tag frequencies (published: zeros)",
    )
    seed: int = option(
        0, whole(0, 2**31 - 1), "seed for initialisation, clip order and excerpts"
    )


@dataclass(frozen=True)
class SelectionOptions:
    """Choice of the weights that a run keeps, and early stopping."""

    group_title: ClassVar[str] = "averaging and selection of weights"

    monitor: str = option("val_mAP", text, "metric in log.csv that selects the best epoch")
    metrics: tuple[str, ...] = option(
        (),
        Registered(METRICS, several=True),
        "names of validation metrics of your own (register_metric), separated by commas",
    )
    early_stop_epochs: int | None = option(
        None, whole(1), "stop after this many epochs without improvement (default: never)"
    )
    averaging: str = option(
        "none",
        choice("none", "swa", "ema"),
        "average of the weights over epochs (swa) or steps (ema)",
        needs=AVERAGE_KEPT,
    )
    swa_start_epoch: int | None = option(
        None,
        whole(1),
        "first averaged epoch (default: after 5/7 of all; never while pruning)",
    )
    swa_every: int = option(3, whole(1), "epochs between two averaged epochs", needs=SWA)
    ema_decay: float = option(
        0.999, number(0.0, 0.999999), "share of the old average kept at each step", needs=EMA
    )
    final_weights: str = option(
        "best",
        choice("best", "last", "average"),
        "best (the better of best epoch and average), last or average",
    )
    thresholds: str = option(
        "validation",
        choice("validation", "half"),
        "per-tag decision thresholds: chosen on the validation split, or 0.5 for all",
    )


@dataclass(frozen=True)
class PruningOptions:
    """Magnitude pruning: kernel weights set to zero, the smallest first."""

    group_title: ClassVar[str] = "pruning"

    prune_share: float | None = option(
        None, number(0.0, 0.9999), "share of the kernel weights that are zero at the end"
    )
    prune_to_parameters: int | None = option(
        None, whole(1), "number of non-zero parameters of the whole model at the end"
    )
    prune_scope: str = option(
        "global",
        choice("global", "layer"),
        "prune the smallest weights of the whole model, or of each kernel",
        needs=PRUNING,
    )
    prune_ramp: str = option(
        "linear",
        choice("linear", "exponential"),
        "how the pruned share grows over the epochs",
        needs=PRUNING,
    )
    prune_epochs: int | None = option(
        None,
        whole(1),
        "epochs until the full share is pruned (default: half of all, at most 50)",
        needs=PRUNING,
    )


@dataclass(frozen=True)
class MachineOptions:
    """Devices, precision, checkpoints and files."""

    group_title: ClassVar[str] = "machine"

    devices: str = option(
        "auto", text, "auto (all GPUs, otherwise the CPU), cpu, gpu, cpu:N or gpu:N"
    )
    precision: str = option(
        "float32",
        choice("float32", "mixed_bfloat16", "mixed_float16"),
        "numeric precision during training; the finished model is float32",
    )
    jit: bool = option(False, switch, "compile the network's step with XLA")
    checkpoint_steps: int = option(50, whole(1), "steps between checkpoints")
    export: bool = option(
        True, switch, "export a SavedModel and verify it in a separate process"
    )


@dataclass(frozen=True)
class FineTuningOptions:
    """Initial weights, and which of them a run trains."""

    group_title: ClassVar[str] = "fine-tuning"

    init_weights: str | None = option(
        None,
        text,
        "initial weights: pretrained weights (see `rfkeras models`), a run folder, a .keras "
        "file or a PyTorch checkpoint",
    )
    freeze: str = option(
        "none",
        choice("none", "trunk"),
        "what to freeze: none, or trunk (all but the classifier)",
        needs=INITIAL,
    )
    unfreeze_after: int | None = option(
        None, whole(1), "epochs after which the trunk trains too (default: never)", needs=FROZEN
    )
    trunk_lr_scale: float = option(
        1.0,
        number(0.0001, 1.0),
        "learning rate of the trunk, as a fraction of the classifier's; if it and "
        "--learning-rate are left out, --init-weights sets 0.01",
        needs=INITIAL,
    )

    @property
    def frozen_epochs(self) -> float:
        """Epochs during which the backbone is frozen. Infinite if it never trains."""
        if self.freeze == "none":
            return 0
        return float("inf") if self.unfreeze_after is None else self.unfreeze_after


@dataclass(frozen=True)
class ModelOptions:
    """The architecture. Options that are None take the architecture's default."""

    group_title: ClassVar[str] = "model"

    model: str = option("resnet_rf", text, "architecture, see `rfkeras models`")
    rho: int | tuple[int, ...] | None = option(
        None, whole_numbers(1, 2), "receptive field, 0 to 22: RHO, or RHO_TIME,RHO_FREQUENCY"
    )
    width: int | None = option(None, whole(1), "channels of the first stage")
    blocks: tuple[int, ...] | None = option(
        None, whole_numbers(3), "number of blocks per stage, such as 4,4,4"
    )
    allow_rf_change: bool | None = option(
        None, switch, "allow removing blocks that affect the receptive field"
    )
    initialization: str | None = option(
        None, choice("published", "he"), "weight initialisation: published (the default) or he"
    )
    head: str | None = option(
        None,
        choice("average", "max", "log_mean_exp", "attention"),
        "pooling over frames: average (the default), max, log_mean_exp or attention",
    )
    shake: bool | None = option(
        None, switch, "Shake-Shake: mix two residual branches with random weights"
    )
    branches: int | None = option(None, whole(1), "residual branches per block")
    shake_per: str | None = option(
        None, choice("sample", "batch"), "draw Shake-Shake's weights per sample or per batch"
    )
    frequency_aware: bool | None = option(
        None, switch, "add a channel with the frequency position before each convolution"
    )
    damping: float | None = option(
        None,
        number(0.0, 1.0),
        "weight at the kernel edges, from 0 to 1 (1 = no damping)",
    )
    damp_time: bool | None = option(None, switch, "damp kernels along time too")
    damp_stem: bool | None = option(
        None, switch, "damp the stem too (default: unless the blocks are decomposed)"
    )
    decomposition: int | None = option(
        None, whole(1), "factor by which decomposed convolutions are narrower"
    )
    growth_rate: int | None = option(
        None, whole(1), "channels that each layer of a DenseNet adds"
    )
    units: int | None = option(None, whole(1), "units of the recurrent layers of a CRNN")
    summary: str | None = option(
        None,
        choice("mean", "last"),
        "recurrent state that a CRNN classifies: the mean of all states, or the last",
    )
    dropout: float | None = option(
        None, number(0.0, 0.99), "dropout rate after each stage of a VGG or CRNN"
    )
    final_dropout: float | None = option(
        None, number(0.0, 0.99), "dropout rate before the classifier of a VGG or CRNN"
    )

    @staticmethod
    def model_option_names() -> tuple[str, ...]:
        """Return the names of the options that are passed to the architecture."""
        return tuple(f.name for f in fields(ModelOptions) if f.name != "model")


@dataclass(frozen=True)
class DataOptions:
    """The data set and how it is read."""

    group_title: ClassVar[str] = "data"

    dataset: str = option(
        "gm_instruments",
        text,
        "gm_instruments, openmic, mtg_jamendo, dcase, magnatagatune, gtzan, folder, packed, "
        "mirdata:NAME, soundata:NAME or your own (register_dataset)",
    )
    data_dir: str | None = option(
        None, text, "folder of the data set (gm_instruments: cache folder)"
    )
    audio_dir: str | None = option(
        None, text, "folder of the audio files, if they are not in --data-dir"
    )
    subset: str | None = option(
        None, text, "part of the data set, such as moodtheme (mtg_jamendo) or 2020-1b (dcase)"
    )
    fold: int | None = option(
        None, whole(0), "official split or fold, for data sets with several"
    )
    task: str = option(
        "auto",
        choice("auto", "multi_label", "single_label"),
        "auto (the data set's), multi_label (any number of tags) or single_label (one class)",
    )
    dataset_size: int | None = option(
        None, whole(40), "number of clips to render (only gm_instruments)"
    )
    sound_font: str | None = option(
        None,
        text,
        ".sf2 file to render with, or several, such as TimGM6mb:A.sf2:B.sf2, used in turn "
        "(only gm_instruments; default: TimGM6mb)",
    )
    validation_share: float = option(
        0.15, number(0.01, 0.5), "fraction of the training clips held out for validation"
    )
    split_rule: str = option(
        "grouped",
        choice("grouped", "clips"),
        "how clips are held out: grouped (class folders by class, openmic by artist) or clips "
        "(one by one, as version 0.1.0 did)",
    )
    train_share: float = option(
        1.0,
        number(0.001, 1.0),
        "fraction of the training clips to use; the choice is the same in every run",
    )
    test_share: float = option(
        0.15,
        number(0.01, 0.9),
        "fraction of clips used for testing (only folder data sets)",
    )
    allow_absolute: bool = option(
        False, switch, "allow paths outside the CSV's folder (only folder data sets)"
    )
    max_bad_share: float = option(
        0.01, number(0.0, 1.0), "stop if more than this fraction of the files is unusable"
    )
    decoder: str = option(
        "soundfile",
        choice("soundfile", "isolated", "tfio"),
        "soundfile, isolated (soundfile in separate processes, for untrusted files) or tfio "
        "(only packed shards)",
    )
    cache_gb: float = option(
        2.0, number(0.0), "GB of memory for caching decoded audio between epochs"
    )
    cache_features: bool = option(
        False,
        switch,
        "compute the spectrogram of each training clip once, and cut the excerpts from it: "
        "steps are faster, excerpts start at multiples of the hop, and frames at their edges "
        "see the audio next to them (needs --fixed-floor; 22 kB of disk per second of audio)",
    )


@dataclass(frozen=True)
class FrontendOptions:
    """The spectrogram, and how much audio it covers."""

    group_title: ClassVar[str] = "front-end and excerpts"

    frontend: str = option(
        "perceptual_mel_22k",
        Registered(PRESETS),
        "front-end preset: perceptual_mel_22k, perceptual_mel_44k, mel_32k or your own "
        "(register_frontend)",
    )
    fixed_floor: bool = option(
        False, switch, "use an absolute dB floor in the front-end instead of one per clip"
    )
    input_channels: int = option(1, whole(1), "1 for mono, 2 for stereo")
    excerpt_seconds: float = option(10.0, number(0.1, 600.0), "length of training excerpts")
    excerpts_per_clip: int = option(1, whole(1), "excerpts per clip and epoch")
    window_seconds: float = option(
        10.0,
        number(0.1, 600.0),
        "clips of this length are scored in batches, others one by one",
    )
