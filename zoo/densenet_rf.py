"""A densely connected network whose receptive field is set with rho.

Each layer appends a few channels to the map instead of replacing it, so every layer sees the
outputs of all layers before it. Koutini et al. showed for acoustic scenes that such networks
only work well with a limited receptive field ("The Receptive Field as a Regularizer in Deep
Convolutional Neural Networks for Acoustic Scene Classification", arXiv 1907.01803).

The layout is a choice of this library and differs from the DenseNets of that paper. Layers and
transitions are those of DenseNet-BC (Huang et al., arXiv 1608.06993): a 1x1 bottleneck of
4 growth rates before each convolution; transitions that keep half of the channels and pool by
averaging; a stem with the width of 2 growth rates. The stem itself is that of the residual
network, and the transitions are where that network pools: after 1, 3 and 7 of the 23 layers.
So all pooling happens early, only rho decides how far the many later layers see, and a rho
gives the same receptive field as in `resnet_rf` (in pixels):

| rho | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 12 | 15 | 18 | 22 |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
| pixels | 23 | 31 | 39 | 55 | 71 | 87 | 103 | 135 | 167 | 199 | 295 | 391 | 487 | 615 |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rfkeras.rf.rho import POOL_SIZE, StagedPlan, plan_stages
from zoo.common import stem, tagger
from zoo.registry import register_alias, register_model

if TYPE_CHECKING:
    import keras

    from rfkeras.frontend import Frontend

DEPTHS = (1, 2, 4, 16)  # dense layers per stage
COMPRESSION = 2  # a transition divides the channels by this
SIZES = {"_small": 32, "_tiny": 16}


def plan_densenet(rho: int | tuple[int, int]) -> StagedPlan:
    """Return the kernels of the network; rho counts the 3-wide ones after stage 1.

    Raises:
        ConfigError: rho is outside 0 to 22.
    """
    return plan_stages(rho, DEPTHS)


@register_model(
    plan=plan_densenet, summary="Receptive-field-regularised DenseNet, rho from 0 to 22."
)
def densenet_rf(
    num_classes: int,
    *,
    name: str = "densenet_rf",
    label_names: tuple[str, ...] | None = None,
    task: str = "multi_label",
    rho: int | tuple[int, int] = 7,
    width: int = 64,
    growth_rate: int | None = None,
    frequency_aware: bool = False,
    damping: float | None = None,
    damp_time: bool = False,
    decomposition: int | None = None,
    initialization: str = "published",
    head: str = "average",
    frontend: str | Frontend | None = "perceptual_mel_22k",
    input_channels: int = 1,
) -> keras.Model:
    """Build a receptive-field-regularised DenseNet.

    Args:
        num_classes: Number of tags.
        name: Name of the Keras model.
        label_names: Names of the tags, saved in the model.
        task: "multi_label" or "single_label".
        rho: Receptive field, 0 to 22: the number of 3-wide layers after the first, or
            (rho_time, rho_frequency). A rho gives the same field as in `resnet_rf`.
        width: Channels of the stem.
        growth_rate: Channels that each layer appends; None: half of `width`.
        frequency_aware: Add a channel with the frequency position before the convolutions of
            every dense layer.
        damping: Weight at the kernel edges along frequency, from 0 to 1; None or 1 for no
            damping.
        damp_time: Damp along time as well.
        decomposition: Divide the channels by this factor inside the second convolution of
            each dense layer; None for no decomposition.
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
    plan = plan_densenet(rho)
    layer_options = {
        "frequency_aware": frequency_aware,
        "damping": damping,
        "damp_time": damp_time,
        "decomposition": decomposition,
    }

    def layers(x: Any) -> Any:
        x = stem(x, width, damping, damp_time)
        growth = max(1, width // 2) if growth_rate is None else growth_rate
        return backbone(x, plan, growth, layer_options)

    return tagger(
        layers,
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


def backbone(x: Any, plan: StagedPlan, growth_rate: int, layer_options: dict[str, Any]) -> Any:
    """Apply the dense stages, with transitions between them, to the stem output."""
    from rfkeras.layers import DenseLayer

    for stage, kernels in enumerate(plan.stages, start=1):
        for layer, kernel in enumerate(kernels, start=1):
            name = f"stage{stage}_layer{layer}"
            x = DenseLayer(growth_rate, kernel, name=name, **layer_options)(x)
        if stage < len(plan.stages):
            x = transition(x, f"stage{stage}")
    return _bn_relu(x, "final")


def transition(x: Any, name: str) -> Any:
    """Apply BN, ReLU, a 1x1 convolution to half of the channels, 2x2 average pooling."""
    import keras

    from rfkeras.layers import make_conv
    from rfkeras.layers.conv import he_normal

    kept = max(1, x.shape[-1] // COMPRESSION)
    x = _bn_relu(x, f"{name}_transition")
    x = make_conv(
        kept, (1, 1), initializer=he_normal("fan_in"), name=f"{name}_transition_conv"
    )(x)
    return keras.layers.AveragePooling2D(
        POOL_SIZE, data_format="channels_last", name=f"{name}_pool"
    )(x)


def _bn_relu(x: Any, name: str) -> Any:
    import keras

    from rfkeras.layers import BatchNormalization

    x = BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


for _size, _width in SIZES.items():
    register_alias(
        f"densenet_rf{_size}", "densenet_rf", f"densenet_rf, width {_width}.", width=_width
    )
