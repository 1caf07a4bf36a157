"""Options of what is trained, on which data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from rfkeras.options.parsers import (
    choice,
    number,
    option,
    switch,
    text,
    whole,
    whole_numbers,
)


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
