"""The baseline: a VGG-style network whose receptive field is set with rho.

The layout follows earlier networks of the residual network's authors for acoustic scenes and
tagging: a 5x5 convolution with stride 2, stages of 3x3 convolutions with batch normalisation
and ReLU, 2x2 max-pooling between them, a 1x1 convolution and a 1x1 classifier, averaged over
the clip. Channels and dropout are those of the published tagging network
(https://github.com/CPJKU/dcase_task2, 48 channels).

Choices of this library: The last two stages, which only pool in time, are left out, so the
network sees 135 frames instead of 471. Every convolution is zero-padded, the stem by 1 as in
the residual network. Dropout only follows the pooling layers and surrounds the last
convolution. The classifier may start at zero.

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

from rfkeras.rf.rho import StagedPlan, plan_stages
from zoo.common import max_pool, stem, tagger
from zoo.registry import register_alias, register_model

if TYPE_CHECKING:
    import keras

    from rfkeras.frontend import Frontend

CHANNELS = ((1,), (2, 2), (4, 4, 6, 6), (8,))  # of each stage's convolutions, in widths
FINAL_CHANNELS = 8  # of the 1x1 convolution before the classifier, in widths
SIZES = {"_small": 24, "_tiny": 12}


def plan_vgg(rho: int | tuple[int, int]) -> StagedPlan:
    """Return the kernels of the network; rho counts the 3-wide ones after stage 1.

    Raises:
        ConfigError: rho is outside 0 to 7.
    """
    return plan_stages(rho, [len(stage) for stage in CHANNELS])


@register_model(
    plan=plan_vgg,
    summary="VGG-style baseline without shortcuts, rho from 0 to 7 (7: 3x3 kernels only).",
)
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
    """Build a VGG-style baseline without shortcuts.

    Args:
        num_classes: Number of tags.
        name: Name of the Keras model.
        label_names: Names of the tags, saved in the model.
        task: "multi_label" or "single_label".
        rho: Receptive field, 0 to 7: the number of 3-wide convolutions after the first
            stage, or (rho_time, rho_frequency). A rho gives the same field as in `resnet_rf`.
        width: Channels of the first stage; the last has 8 times as many.
        dropout: Dropout rate after each pooling layer.
        final_dropout: Dropout rate before and after the last convolution.
        frequency_aware: Add a channel with the frequency position before every convolution
            after the stem.
        damping: Weight at the kernel edges along frequency, from 0 to 1; None or 1 for no
            damping.
        damp_time: Damp along time as well.
        decomposition: Divide the channels by this factor inside each convolution after the
            stem; None for no decomposition.
        initialization: "published": the classifier starts at zero, as in the published
            residual networks; "he": it starts He-normal, like all other convolutions.
        head: How frames are pooled to a clip: "average" (as in the paper), "max",
            "log_mean_exp" or "attention". "frames": logits per frame, (batch, time, classes).
        frontend: Preset, layer, or None for a model that takes spectrograms
            (batch, time, mel, input_channels).
        input_channels: 1 for mono, 2 for stereo.

    Returns:
        Model from waveforms or spectrograms to logits (batch, num_classes).

    Raises:
        ConfigError: An option has a value that is not allowed.
    """
    plan = plan_vgg(rho)
    convolution = {"damping": damping, "damp_time": damp_time, "decomposition": decomposition}

    def backbone(x: Any) -> Any:
        x = stem(x, width, damping, damp_time)
        x = stages(x, plan, width, dropout, frequency_aware, convolution)
        return final(x, width, final_dropout, frequency_aware, convolution)

    return tagger(
        backbone,
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
    """Apply the stages: (batch, time, mel, width) to (batch, time', mel', 8 width)."""
    from rfkeras.layers import ReplicaDropout

    for stage, kernels in enumerate(plan.stages, start=1):
        for layer, kernel in enumerate(kernels, start=1):
            filters = width * CHANNELS[stage - 1][layer - 1]
            name = f"stage{stage}_layer{layer}"
            x = conv_bn_relu(x, filters, kernel, frequency_aware, convolution, name)
        if stage < len(plan.stages):
            x = max_pool(x, f"stage{stage}_pool")
            x = ReplicaDropout(dropout, name=f"stage{stage}_dropout")(x)
    return x


def final(
    x: Any, width: int, dropout: float, frequency_aware: bool, convolution: dict[str, Any]
) -> Any:
    """Apply dropout, the 1x1 convolution before the classifier, and dropout."""
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
    """Apply convolution, batch normalisation and ReLU."""
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
