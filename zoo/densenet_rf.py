"""A densely connected network whose receptive field is set by rho.

Its layers do not replace the map but append a few channels to it, so that every layer sees
what all layers before it have found. That such a network tags sound well only where its
receptive field is limited was shown for acoustic scenes (Koutini et al., "The Receptive Field
as a Regularizer in Deep Convolutional Neural Networks for Acoustic Scene Classification",
arXiv 1907.01803).

The layout here is this library's choice, not that of the paper's DenseNets. The layers and
the transitions are those of DenseNet-BC (Huang et al., arXiv 1608.06993): a 1x1 bottleneck of
4 growth rates before each convolution; half of the channels kept, and average pooling, at a
transition; a stem as wide as 2 growth rates. The stem itself is that of the residual network,
and the transitions stand where that one pools: after 1, 3 and 7 of the 23 layers. So all
pooling lies early, rho alone decides how far the many later layers see, and a rho means what
it means in `resnet_rf` (receptive field in pixels):

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

DEPTHS = (1, 2, 4, 16)  # dense layers of each stage
COMPRESSION = 2  # a transition keeps one channel in so many
SIZES = {"_small": 32, "_tiny": 16}


def plan_densenet(rho: int | tuple[int, int]) -> StagedPlan:
    """Kernels of the network: rho, 0 to 22, counts the 3-wide ones after stage 1.

    Raises:
        ConfigError: rho is out of its range.
    """
    return plan_stages(rho, DEPTHS)


@register_model(plan=plan_densenet)
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
    """Receptive-field-regularised DenseNet, rho from 0 to 22.

    Args:
        num_classes: Number of tags.
        name: Name of the Keras model.
        label_names: Names of the tags, kept in the model.
        task: "multi_label" or "single_label".
        rho: Receptive field: 3-wide layers after the first, one number or
            (rho_time, rho_frequency). The same rho gives the same field as in `resnet_rf`.
        width: Channels of the stem.
        growth_rate: Channels that each layer appends; None: half of `width`.
        frequency_aware: Tell the convolutions of every dense layer which row they are at.
        damping: What is left of each kernel at its ends, 0 to 1; None for no damping.
        damp_time: Damp along time too, not along frequency alone.
        decomposition: Divide the channels by this factor inside the second convolution of
            each dense layer; None for whole convolutions.
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
        return trunk(x, plan, growth, layer_options)

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


def trunk(x: Any, plan: StagedPlan, growth_rate: int, layer_options: dict[str, Any]) -> Any:
    """Dense stages with transitions between: stem output to features."""
    from rfkeras.layers import DenseLayer

    for stage, kernels in enumerate(plan.stages, start=1):
        for layer, kernel in enumerate(kernels, start=1):
            name = f"stage{stage}_layer{layer}"
            x = DenseLayer(growth_rate, kernel, name=name, **layer_options)(x)
        if stage < len(plan.stages):
            x = transition(x, f"stage{stage}")
    return _bn_relu(x, "final")


def transition(x: Any, name: str) -> Any:
    """BN, ReLU, 1x1 convolution to half of the channels, 2x2 average pooling."""
    import keras

    from rfkeras.layers import make_conv
    from rfkeras.layers.conv import he_normal

    kept = max(1, x.shape[-1] // COMPRESSION)
    x = _bn_relu(x, f"{name}_transition")
    x = make_conv(
        kept, (1, 1), initializer=he_normal("fan_in"), name=f"{name}_transition_conv"
    )(x)
    return keras.layers.AveragePooling2D(POOL_SIZE, name=f"{name}_pool")(x)


def _bn_relu(x: Any, name: str) -> Any:
    import keras

    from rfkeras.layers import BatchNormalization

    x = BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


for _size, _width in SIZES.items():
    register_alias(
        f"densenet_rf{_size}", "densenet_rf", f"densenet_rf, width {_width}.", width=_width
    )
