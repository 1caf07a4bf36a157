"""The baseline: a VGG-style network, its receptive field set by rho.

The layout is that of the networks which the residual network's authors used for acoustic
scenes and for tagging before: a 5x5 convolution of stride 2, stages of 3x3 convolutions with
batch normalisation, ReLU and 2x2 max-pooling between, a 1x1 convolution and a 1x1 classifier,
averaged over the clip. Channels and dropout are those of the published tagging network
(https://github.com/CPJKU/dcase_task2, 48 channels).

Choices of this library: its last two stages, which pool in time alone, are left out, so that
the whole network sees 135 frames and not 471; every convolution is zero-padded, and the stem
by 1 as in the residual network; dropout stands after the pooling layers and around the last
convolution only, and the classifier may start at zero.

| rho | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
|---|---|---|---|---|---|---|---|---|
| receptive field (pixels) | 23 | 31 | 39 | 55 | 71 | 87 | 103 | 135 |

Reference: Dorfer et al., "Acoustic scene classification with fully convolutional neural
networks and i-vectors", DCASE 2018; Eghbal-zadeh et al., "A hybrid approach with multi-channel
i-vectors and convolutional neural networks for acoustic scene classification",
arXiv 1706.06525.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rfkeras.rf.rho import POOL_SIZE, StagedPlan, plan_stages
from zoo.common import stem, tagger
from zoo.registry import register_alias, register_model

if TYPE_CHECKING:
    import keras

    from rfkeras.frontend import Frontend

CHANNELS = ((1,), (2, 2), (4, 4, 6, 6), (8,))  # of each stage's convolutions, in widths
FINAL_CHANNELS = 8  # of the 1x1 convolution before the classifier, in widths
SIZES = {"_small": 24, "_tiny": 12}


def plan_vgg(rho: int | tuple[int, int]) -> StagedPlan:
    """Kernels of the network: rho, 0 to 7, counts the 3-wide ones after stage 1.

    Raises:
        ConfigError: rho is out of its range.
    """
    return plan_stages(rho, [len(stage) for stage in CHANNELS])


@register_model(plan=plan_vgg)
def vgg_rf(
    num_classes: int,
    *,
    name: str = "vgg_rf",
    label_names: tuple[str, ...] | None = None,
    task: str = "multi_label",
    rho: int | tuple[int, int] = 7,
    width: int = 48,
    dropout: float = 0.3,
    final_dropout: float = 0.5,
    frequency_aware: bool = False,
    damping: float | None = None,
    damp_time: bool = False,
    decomposition: int | None = None,
    initialization: str = "published",
    head: str = "average",
    frontend: str | Frontend | None = "perceptual_mel_22k",
    input_channels: int = 1,
) -> keras.Model:
    """VGG-style baseline without shortcuts, rho from 0 to 7 (7: 3x3 throughout).

    Args:
        num_classes: Number of tags.
        name: Name of the Keras model.
        label_names: Names of the tags, kept in the model.
        task: "multi_label" or "single_label".
        rho: Receptive field: 3-wide convolutions after the first stage, one number or
            (rho_time, rho_frequency). The same rho gives the same field as in `resnet_rf`.
        width: Channels of the first stage; the last has 8 times as many.
        dropout: Share of values dropped after each pooling layer.
        final_dropout: The same, before and after the last convolution.
        frequency_aware: Tell every convolution after the stem which row it is at.
        damping: What is left of each kernel at its ends, 0 to 1; None for no damping.
        damp_time: Damp along time too, not along frequency alone.
        decomposition: Divide the channels by this factor inside each convolution after the
            stem; None for whole convolutions.
        initialization: All convolutions start He-normal. "published": the classifier
            starts at zero, as in the published residual networks; "he": it does not.
        head: How frames become a clip: "average" (the paper's), "max", "log_mean_exp" or
            "attention"; "frames": logits for every frame, (batch, time, classes).
        frontend: Preset, layer, or None for a model that takes spectrograms
            (batch, time, mel, input_channels).
        input_channels: 1 for mono, 2 for stereo.

    Returns:
        Model from waveform (or spectrogram) to logits (batch, num_classes).

    Raises:
        ConfigError: An option is out of its range.
    """
    plan = plan_vgg(rho)
    convolution = {"damping": damping, "damp_time": damp_time, "decomposition": decomposition}

    def trunk(x: Any) -> Any:
        x = stem(x, width, damping, damp_time)
        x = stages(x, plan, width, dropout, frequency_aware, convolution)
        return final(x, width, final_dropout, frequency_aware, convolution)

    return tagger(
        trunk,
        plan,
        num_classes=num_classes,
        name=name,
        label_names=label_names,
        task=task,
        initialization=initialization,
        head=head,
        frontend=frontend,
        input_channels=input_channels,
    )


def stages(
    x: Any,
    plan: StagedPlan,
    width: int,
    dropout: float,
    frequency_aware: bool,
    convolution: dict[str, Any],
) -> Any:
    """Stages of convolutions: (batch, time, mel, width) to (batch, time', mel', 8 width)."""
    import keras

    from rfkeras.layers import ReplicaDropout

    for stage, kernels in enumerate(plan.stages, start=1):
        for layer, kernel in enumerate(kernels, start=1):
            filters = width * CHANNELS[stage - 1][layer - 1]
            name = f"stage{stage}_layer{layer}"
            x = conv_bn_relu(x, filters, kernel, frequency_aware, convolution, name)
        if stage < len(plan.stages):
            x = keras.layers.MaxPooling2D(POOL_SIZE, name=f"stage{stage}_pool")(x)
            x = ReplicaDropout(dropout, name=f"stage{stage}_dropout")(x)
    return x


def final(
    x: Any, width: int, dropout: float, frequency_aware: bool, convolution: dict[str, Any]
) -> Any:
    """The 1x1 convolution before the classifier, dropout on both its sides."""
    from rfkeras.layers import ReplicaDropout

    x = ReplicaDropout(dropout, name="final_dropout1")(x)
    filters = width * FINAL_CHANNELS
    x = conv_bn_relu(x, filters, (1, 1), frequency_aware, convolution, "final")
    return ReplicaDropout(dropout, name="final_dropout2")(x)


def conv_bn_relu(
    x: Any,
    filters: int,
    kernel: tuple[int, int],
    frequency_aware: bool,
    convolution: dict[str, Any],
    name: str,
) -> Any:
    """Convolution, batch normalisation, ReLU."""
    import keras

    from rfkeras.layers import BatchNormalization, FrequencyChannel, make_conv
    from rfkeras.layers.conv import he_normal

    if frequency_aware:
        x = FrequencyChannel(name=f"{name}_frequency")(x)
    initializer = he_normal("fan_in")
    x = make_conv(filters, kernel, initializer=initializer, name=f"{name}_conv", **convolution)(
        x
    )
    x = BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


for _size, _width in SIZES.items():
    register_alias(f"vgg_rf{_size}", "vgg_rf", f"vgg_rf, width {_width}.", width=_width)
