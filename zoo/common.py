"""Parts that the architectures share: stem, head, and the model around the backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.rf.axis import LayerChain
from rfkeras.rf.rho import POOL_SIZE, STEM_KERNEL, STEM_PADDING, STEM_STRIDE

if TYPE_CHECKING:
    import keras

    from rfkeras.frontend import Frontend

FRAMES = "frames"
HEADS = ("average", "max", "log_mean_exp", "attention", FRAMES)
"""Ways from the map of logits to the model's output. The first four pool it to the logits of a
clip (see `rfkeras.layers.ClipLogits`). "frames" only averages over frequency, which gives
logits per frame, (batch, time, classes)."""


def tagger(
    backbone: Callable[[Any], Any],
    plan: LayerChain,
    *,
    num_classes: int,
    name: str,
    label_names: tuple[str, ...] | None,
    task: str,
    initialization: str,
    head: str,
    frontend: str | Frontend | None,
    input_channels: int,
) -> keras.Model:
    """Build a model from front-end, backbone and head.

    Args:
        backbone: Function from spectrograms (batch, time, mel, input_channels) to features
            (batch, time', mel', channels).
        plan: Layers of the backbone; they decide the smallest number of frames.
        num_classes: Number of tags.
        name: Name of the model.
        label_names: Names of the tags, saved in the model.
        task: "multi_label" or "single_label".
        initialization: "published" (the classifier starts at zero) or "he".
        head: How frames are pooled to a clip, see `HEADS`.
        frontend: Preset, layer, or None for a model that takes spectrograms.
        input_channels: 1 or 2.

    Raises:
        ConfigError: An option has a value that is not allowed.
    """
    from rfkeras.frontend import build_input
    from zoo.tagger import Tagger

    inputs, spectrogram = build_input(frontend, input_channels, plan.minimum_frames)
    features = backbone(spectrogram)
    logits = _classifier(features, num_classes, label_names, task, initialization, head)
    return Tagger(inputs, logits, name=name)


def _classifier(
    x: Any,
    num_classes: int,
    label_names: tuple[str, ...] | None,
    task: str,
    initialization: str,
    head: str,
) -> Any:
    """Apply a 1x1 convolution to one channel per tag, batch normalisation, and pooling."""
    import keras

    from rfkeras.layers import BatchNormalization, ClipLogits
    from rfkeras.layers.conv import he_normal
    from rfkeras.layers.residual import INITIALIZATIONS

    if head not in HEADS:
        raise ConfigError(unknown_name("head", str(head), HEADS))
    if initialization not in INITIALIZATIONS:
        raise ConfigError(unknown_name("initialization", str(initialization), INITIALIZATIONS))
    x = keras.layers.Conv2D(
        num_classes,
        1,
        use_bias=False,
        data_format="channels_last",
        kernel_initializer="zeros" if initialization == "published" else he_normal("fan_in"),
        name="classifier_conv",
    )(x)
    x = BatchNormalization(name="classifier_bn")(x)
    frames = head == FRAMES
    return ClipLogits(
        label_names,
        task,
        pooling="average" if frames else head,
        frames=frames,
        name="logits",
        dtype="float32",
    )(x)


def stem(x: Any, width: int, damping: float | None = None, damp_time: bool = False) -> Any:
    """Apply a 5x5 convolution (stride 2, padding 1), batch normalisation and ReLU."""
    import keras

    from rfkeras.layers import BatchNormalization, make_conv
    from rfkeras.layers.conv import he_normal

    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise ConfigError(f"width must be a whole number of at least 1. Received: {width!r}.")
    x = keras.layers.ZeroPadding2D(STEM_PADDING, data_format="channels_last", name="stem_pad")(
        x
    )
    x = make_conv(
        width,
        (STEM_KERNEL, STEM_KERNEL),
        damping=damping,
        damp_time=damp_time,
        strides=STEM_STRIDE,
        padding="valid",
        initializer=he_normal("fan_in"),
        name="stem_conv",
    )(x)
    x = BatchNormalization(name="stem_bn")(x)
    return keras.layers.ReLU(name="stem_relu")(x)


def max_pool(x: Any, name: str) -> Any:
    """Apply 2x2 max-pooling."""
    import keras

    # Keras' global image_data_format may differ from the layout of these networks.
    return keras.layers.MaxPooling2D(POOL_SIZE, data_format="channels_last", name=name)(x)
