"""The paper's CP-ResNet: a ResNet whose receptive field is set by rho.

Reference: Koutini et al., "Receptive-Field Regularized CNNs for Music Classification and
Tagging", arXiv 2007.13503.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rfkeras.errors import ConfigError
from rfkeras.receptive_field.arithmetic import AxisLayer
from rfkeras.receptive_field.plan import (
    POOL_SIZE,
    STEM_KERNEL,
    STEM_PADDING,
    STEM_STRIDE,
    TrunkPlan,
    plan_trunk,
)
from zoo.registry import register_alias, register_model

if TYPE_CHECKING:
    import keras

    from rfkeras.frontend import Frontend


@register_model
def resnet_rf(
    num_classes: int,
    *,
    name: str = "resnet_rf",
    label_names: tuple[str, ...] | None = None,
    task: str = "multi_label",
    rho: int | tuple[int, int] = 7,
    width: int = 128,
    blocks: tuple[int, int, int] = (4, 4, 4),
    allow_rf_change: bool = False,
    initialization: str = "published",
    frontend: str | Frontend | None = "perceptual_mel_22k",
    input_channels: int = 1,
) -> keras.Model:
    """Receptive-field-regularised ResNet (CP-ResNet), rho from 0 to 22.

    Args:
        num_classes: Number of tags.
        name: Name of the Keras model.
        label_names: Names of the tags, kept in the model.
        task: "multi_label" or "single_label".
        rho: Receptive field: 3-wide convolutions after the first block, one number or
            (rho_time, rho_frequency).
        width: Channels of the first stage; the others have 2 and 4 times as many.
        blocks: Blocks kept in each stage.
        allow_rf_change: Let blocks go that count for the receptive field.
        initialization: "published": the classifier and the last convolution of each block
            start at zero; "he": they start He-normal, which learns faster in a short run
            (under batch normalisation Adam's steps are large beside weights that began at
            zero).
        frontend: Preset, layer, or None for a model that takes spectrograms
            (batch, time, mel, input_channels).
        input_channels: 1 for mono, 2 for stereo.

    Returns:
        Model from waveform (or spectrogram) to logits (batch, num_classes). With the
        published initialisation its first logits are exactly 0.

    Raises:
        ConfigError: An option is out of its range.
    """
    import keras

    from rfkeras.frontend import build_input

    plan = plan_trunk(rho, blocks, allow_rf_change)
    if not isinstance(width, int) or width < 1:
        raise ConfigError(f"width must be a whole number of at least 1. Received: {width!r}.")
    inputs, spectrogram = build_input(frontend, input_channels, minimum_frames(plan))
    features = trunk(spectrogram, plan, width, initialization)
    logits = head(features, num_classes, label_names, task, initialization)
    return keras.Model(inputs, logits, name=name)


register_alias("resnet_rf_small", "resnet_rf", "resnet_rf of width 64.", width=64)
register_alias("resnet_rf_tiny", "resnet_rf", "resnet_rf of width 32.", width=32)


def trunk(x: Any, plan: TrunkPlan, width: int, initialization: str) -> Any:
    """Stem and residual stages: (batch, time, mel, c) -> (batch, time', mel', channels)."""
    import keras

    from rfkeras.layers import BatchNormalization, ResidualBlock
    from rfkeras.layers.residual import he_normal

    x = keras.layers.ZeroPadding2D(STEM_PADDING, name="stem_pad")(x)
    x = keras.layers.Conv2D(
        width,
        STEM_KERNEL,
        strides=STEM_STRIDE,
        use_bias=False,
        kernel_initializer=he_normal("fan_in"),
        name="stem_conv",
    )(x)
    x = BatchNormalization(name="stem_bn")(x)
    x = keras.layers.ReLU(name="stem_relu")(x)
    for block in plan.blocks:
        x = ResidualBlock(
            width * 2 ** (block.stage - 1),
            block.kernels,
            depth=len(plan.blocks),
            initialization=initialization,
            name=block.name,
        )(x)
        if block.pooled:
            x = keras.layers.MaxPooling2D(POOL_SIZE, name=f"{block.name}_pool")(x)
    return x


def head(
    x: Any,
    num_classes: int,
    label_names: tuple[str, ...] | None,
    task: str,
    initialization: str,
) -> Any:
    """1x1 convolution to the tags, batch normalisation, average over time and mel."""
    import keras

    from rfkeras.layers import BatchNormalization, ClipLogits
    from rfkeras.layers.residual import he_normal

    x = keras.layers.Conv2D(
        num_classes,
        1,
        use_bias=False,
        kernel_initializer="zeros" if initialization == "published" else he_normal("fan_in"),
        name="classifier_conv",
    )(x)
    x = BatchNormalization(name="classifier_bn")(x)
    return ClipLogits(label_names, task, name="logits", dtype="float32")(x)


def minimum_frames(plan: TrunkPlan) -> int:
    """Fewest spectrogram frames that leave one position after the last pooling."""
    strided = [layer for layer in plan.axis_layers(0) if layer.stride > 1]
    positions = 1
    for layer in reversed(strided):
        positions = _inputs_needed(layer, positions)
    return positions


def _inputs_needed(layer: AxisLayer, outputs: int) -> int:
    """Input positions (padding aside, on both ends) for that many output positions."""
    return (outputs - 1) * layer.stride + layer.kernel - 2 * layer.padding
